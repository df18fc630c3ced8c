/** `meshnode keys create | list | revoke | clear`: what other nodes must show to use the models here. */
import { type IssuedKeyView, openIssuedKeys } from '../../node/index.ts';
import { answer, answerList } from '../answer.ts';
import { type Command, configOf, EXIT, group, type Invocation, refusedAsUsage } from '../command.ts';
import { flagInteger, required } from '../flag-values.ts';

const DAY_MS = 86_400_000;
const MAX_DAYS = 36_500;
const settings = ['data-dir'];

const keysOf = (invocation: Invocation) => openIssuedKeys(configOf(invocation).config.dataDir);

const list: Command = {
  name: 'keys list',
  positionals: '',
  maxPositionals: 0,
  summary: 'the keys that were given out, without the keys',
  settings,
  extra: [],
  async run(invocation) {
    const all = await (await keysOf(invocation)).list();
    const rows = all.map((key) => [
      key.id,
      key.name,
      stateOf(key),
      key.limits.tokensPerMinute === null ? '-' : String(key.limits.tokensPerMinute),
      key.limits.inFlight === null ? '-' : String(key.limits.inFlight),
      dayOf(key.createdAt),
      key.expiresAt === null ? 'never' : dayOf(key.expiresAt),
    ]);
    return answerList(
      invocation,
      { keys: all },
      {
        none: 'No keys: every node of the mesh may use the models here. `meshnode keys create NAME` ends that.',
        columns: ['ID', 'NAME', 'STATE', 'TOKENS/MIN', 'AT ONCE', 'CREATED', 'EXPIRES'],
        rows,
      },
    );
  },
};

const create: Command = {
  name: 'keys create',
  positionals: 'NAME',
  maxPositionals: 1,
  summary: 'make a key; from the first on, nodes need one',
  settings,
  extra: [
    { flag: 'tokens-per-minute', argument: 'N', help: 'prompt and answer together (no limit)' },
    { flag: 'in-flight', argument: 'N', help: 'requests at once (what every node may)' },
    { flag: 'expires', argument: 'DAYS', help: 'refused after so many days (never)' },
  ],
  async run(invocation) {
    const { terminal } = invocation;
    const name = required(invocation, 0, 'meshnode keys create NAME, for example the name of the other node');
    const days = flagInteger(invocation, 'expires', 1, MAX_DAYS);
    const options = {
      tokensPerMinute: flagInteger(invocation, 'tokens-per-minute', 1, Number.MAX_SAFE_INTEGER),
      inFlight: flagInteger(invocation, 'in-flight', 1, 1_000_000),
      expiresAt: days === null ? null : Date.now() + days * DAY_MS,
    };
    const keys = await keysOf(invocation);
    const { key, view } = await refusedAsUsage(() => keys.create(name, options));
    if (invocation.json) {
      terminal.json({ key, ...view });
      return EXIT.ok;
    }
    terminal.line(key);
    terminal.errorLine(`This is key ${view.id} ("${view.name}"). It is shown this once; only its hash is kept.`);
    terminal.errorLine('On the other node: meshnode peers set THIS-NODE --key-stdin');
    return EXIT.ok;
  },
};

const revoke: Command = {
  name: 'keys revoke',
  positionals: 'ID|NAME',
  maxPositionals: 1,
  summary: 'refuse a key from now on',
  settings,
  extra: [],
  async run(invocation) {
    const id = required(invocation, 0, 'meshnode keys revoke ID, as in meshnode keys list');
    const revoked = await (await keysOf(invocation)).revoke(id);
    return answer(
      invocation,
      revoked,
      `Key ${revoked.id} ("${revoked.name}") is refused from now on.`,
      'A key is still asked for: `meshnode keys clear` opens the node to every other node again.',
    );
  },
};

const clear: Command = {
  name: 'keys clear',
  positionals: '',
  maxPositionals: 0,
  summary: 'forget all keys: nodes need none again',
  settings,
  extra: [],
  async run(invocation) {
    await (await keysOf(invocation)).clear();
    return answer(invocation, { keys: [] }, 'No keys any more: every node of the mesh may use the models here.');
  },
};

function stateOf(key: IssuedKeyView): string {
  if (key.revokedAt !== null) return 'revoked';
  return key.expiresAt !== null && key.expiresAt <= Date.now() ? 'expired' : 'in use';
}

const dayOf = (unixMs: number): string => new Date(unixMs).toISOString().slice(0, 10);

export const keys: Command = group('keys', 'what other nodes must show to use the models here', [
  list,
  create,
  revoke,
  clear,
]);
