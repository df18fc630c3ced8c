/** `meshnode status`: this node, its peers and what can be asked of them, on one screen. */
import { type Command, EXIT } from '../command.ts';
import { formatDuration, mergeModels, shortFingerprint } from '../format.ts';
import { connect } from '../node-api.ts';
import { storeInWords } from '../secret-store-report.ts';
import { clean, table } from '../terminal.ts';

export const status: Command = {
  name: 'status',
  positionals: '',
  maxPositionals: 0,
  summary: 'this node, its peers and models at a glance',
  settings: ['data-dir', 'api-key-file'],
  extra: [],
  async run(invocation) {
    const { terminal } = invocation;
    const api = await connect(invocation);
    const [node, peers] = await Promise.all([api.node(), api.peers()]);
    if (invocation.json) {
      terminal.json({ node, peers });
      return EXIT.ok;
    }
    const closed = node.draining ? 'draining' : node.state === 'paused' ? 'paused for other nodes' : null;
    const state = closed === null ? terminal.paint('green', 'running') : terminal.paint('yellow', closed);
    terminal.line(`${terminal.paint('bold', clean(node.name))} is ${state}, up ${formatDuration(node.uptimeMs)}`);
    terminal.line(`  API          ${clean(node.api)}/v1`);
    terminal.line(`  fingerprint  ${clean(node.fingerprint)}`);
    terminal.line(`  version      ${clean(node.version)}, engine ${clean(node.engineBuild)}`);
    if (node.secrets !== undefined) terminal.line(`  secrets      ${storeInWords(node.secrets)}`);
    terminal.line('');
    const rows = peers.map((peer) => [
      peer.name,
      peer.status,
      shortFingerprint(peer.fingerprint),
      String(peer.models.length),
    ]);
    for (const line of peers.length === 0
      ? ['No peers yet.']
      : table(['PEER', 'STATUS', 'FINGERPRINT', 'MODELS'], rows)) {
      terminal.line(line);
    }
    terminal.line('');
    const models = mergeModels(node, peers).map((model) => [
      model.id,
      model.holders.map((holder) => holder.node).join(', '),
    ]);
    for (const line of models.length === 0 ? ['No models yet.'] : table(['MODEL', 'ON'], models)) terminal.line(line);
    return EXIT.ok;
  },
};
