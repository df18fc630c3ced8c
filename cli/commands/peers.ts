/** `meshnode peers [list | set]`: the other nodes, how far and how well, and what is set about them here. */
import { openRegistry } from '../../node/index.ts';
import { answer, answerList } from '../answer.ts';
import { CliError, type Command, configOf, EXIT, group, type Invocation, refusedAsUsage } from '../command.ts';
import { flagInteger, required } from '../flag-values.ts';
import { formatLatency, shortFingerprint } from '../format.ts';
import { connect, type PeerAnswer, tryConnect } from '../node-api.ts';
import { secretsAccess } from '../passphrase-input.ts';
import { readKey } from '../secret-input.ts';
import { clean } from '../terminal.ts';

const MAX_PRIORITY = 1_000;
const FINGERPRINT = /^(12D3[1-9A-HJ-NP-Za-km-z]{40,}|api:[a-z0-9-]+)$/;

const list: Command = {
  name: 'peers list',
  positionals: '',
  maxPositionals: 0,
  summary: 'the other nodes, with latency and addresses',
  settings: ['data-dir', 'api-key-file'],
  extra: [],
  async run(invocation) {
    const known = await (await connect(invocation)).peers();
    const rows = known.map((peer) => [
      peer.name,
      peer.status,
      formatLatency(peer.latencyMs),
      peer.models.map((entry) => entry.id).join(', ') || '-',
      shortFingerprint(peer.fingerprint),
      peer.url ?? peer.addresses[0] ?? '-',
    ]);
    return answerList(
      invocation,
      { peers: known },
      {
        none: 'No peers yet: run meshnode start on another machine of this LAN (or give --peer MULTIADDR).',
        columns: ['NAME', 'STATUS', 'LATENCY', 'MODELS', 'FINGERPRINT', 'ADDRESS'],
        rows,
      },
    );
  },
};

const set: Command = {
  name: 'peers set',
  positionals: 'NAME|FINGERPRINT',
  maxPositionals: 1,
  summary: 'how this node treats another: priority, key',
  settings: ['data-dir', 'api-key-file', 'passphrase-file'],
  extra: [
    { flag: 'priority', argument: 'N', help: '-1000 to 1000, higher is preferred (0)' },
    { flag: 'key-stdin', argument: '', help: 'the key it wants is the first line of stdin' },
    { flag: 'remove-key', argument: '', help: 'show it no key any more' },
  ],
  async run(invocation) {
    const { terminal, flags } = invocation;
    const asked = required(invocation, 0, 'meshnode peers set NAME, as in meshnode peers');
    const priority = flagInteger(invocation, 'priority', -MAX_PRIORITY, MAX_PRIORITY);
    const [givesKey, removesKey] = [flags['key-stdin'] !== undefined, flags['remove-key'] !== undefined];
    if (givesKey && removesKey) throw new CliError('--key-stdin and --remove-key contradict each other', EXIT.usage);
    if (priority === null && !givesKey && !removesKey) {
      throw new CliError('nothing to set: give --priority N, --key-stdin or --remove-key', EXIT.usage);
    }
    const fingerprint = await resolve(invocation, asked);
    const key = givesKey ? await readKey(terminal) : null;
    const registry = await openRegistry(configOf(invocation).config, secretsAccess(invocation));
    const patch = priority === null ? {} : { priority };
    let node = await refusedAsUsage(() => registry.set(fingerprint, patch));
    if (givesKey || removesKey) node = await registry.setKey(fingerprint, key);
    const shown = asked === fingerprint ? fingerprint : `${asked} (${shortFingerprint(fingerprint)})`;
    const told = `${clean(shown)}: priority ${node.priority}, ${node.hasKey ? 'with a key' : 'no key'}`;
    return answer(invocation, { node }, told);
  },
};

/** The fingerprint that is meant. A whole one needs no running node, and no peer that was seen before. */
async function resolve(invocation: Invocation, asked: string): Promise<string> {
  if (FINGERPRINT.test(asked)) return asked;
  const registered = (await openRegistry(configOf(invocation).config, secretsAccess(invocation))).get(asked);
  const api = await tryConnect(invocation);
  const peers = api === null ? [] : await api.peers();
  const found = peers.filter((peer) => peer.name.toLowerCase() === asked.toLowerCase());
  const [first] = found;
  if (found.length > 1) throw new CliError(`"${asked}" are several: ${found.map(describe).join(', ')}`);
  if (first !== undefined) return first.fingerprint;
  if (registered !== null) return registered.fingerprint;
  if (api === null) {
    throw new CliError('no node is running here that could know this name: start it, or give the whole fingerprint');
  }
  throw new CliError(`there is no peer "${asked}": ${peers.map(describe).join(', ') || 'none is known yet'}`);
}

const describe = (peer: PeerAnswer): string => `${peer.name} (${peer.fingerprint})`;

export const peers: Command = group('peers', 'the other nodes; set: their priority and key', [list, set]);
