/** `meshnode peers`: the other nodes, how far and how well. */
import { type Command, EXIT } from '../command.ts';
import { formatLatency, shortFingerprint } from '../format.ts';
import { connect } from '../node-api.ts';
import { table } from '../terminal.ts';

export const peers: Command = {
  name: 'peers',
  positionals: '',
  maxPositionals: 0,
  summary: 'the other nodes, with latency and addresses',
  settings: ['data-dir', 'api-key-file'],
  extra: [],
  async run(invocation) {
    const { terminal } = invocation;
    const api = await connect(invocation);
    const known = await api.peers();
    if (invocation.json) {
      terminal.json({ peers: known });
      return EXIT.ok;
    }
    if (known.length === 0) {
      terminal.line('No peers yet: run meshnode start on another machine of this LAN (or give --peer MULTIADDR).');
      return EXIT.ok;
    }
    const rows = known.map((peer) => [
      peer.name,
      peer.status,
      formatLatency(peer.latencyMs),
      peer.models.map((entry) => entry.id).join(', ') || '-',
      shortFingerprint(peer.fingerprint),
      peer.addresses[0] ?? '-',
    ]);
    for (const line of table(['NAME', 'STATUS', 'LATENCY', 'MODELS', 'FINGERPRINT', 'ADDRESS'], rows))
      terminal.line(line);
    return EXIT.ok;
  },
};
