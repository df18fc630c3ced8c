import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { inspect } from 'node:util';
import { PeerBackend } from '../../node/backends/peer.ts';
import { systemClock } from '../../node/common/clock.ts';
import { ERROR_TABLE, MeshError } from '../../node/common/errors.ts';
import { createLogger, type Logger } from '../../node/common/logger.ts';
import { Metrics } from '../../node/common/metrics.ts';
import { Inbound } from '../../node/routing/inbound.ts';
import { IssuedKeys } from '../../node/storage/issued-keys.ts';
import { type InferenceContext, serveInference } from '../../protocols/inference/server.ts';
import { INFERENCE_PROTOCOL } from '../../protocols/protocol-id.ts';
import { ScriptedEngine } from '../support/scripted-engine.ts';
import { lists, startTestNode, type TestNode } from '../support/swarm.ts';
import { watchRejections } from '../support/wire-mesh.ts';

const MODEL = 'm';
const BODY = Buffer.from('{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":3}');

/** A node that demands keys once it has given one out. */
interface Guarded {
  readonly node: TestNode;
  readonly keys: IssuedKeys;
  readonly dataDir: string;
  readonly metrics: Metrics;
  /** What came with each request. */
  readonly shown: InferenceContext['authorization'][];
}

async function startGuarded(context: TestContext, logger: Logger): Promise<Guarded> {
  const dataDir = await mkdtemp(join(tmpdir(), 'meshnode-keys-'));
  context.after(() => rm(dataDir, { recursive: true, force: true }));
  const clock = systemClock;
  const keys = new IssuedKeys({ clock }, { dataDir, refreshMs: 0 });
  const metrics = new Metrics();
  const shown: InferenceContext['authorization'][] = [];
  const local = new ScriptedEngine({ fingerprint: '12D3KooWHere', models: [MODEL], tokenDelayMs: 0 });
  const inbound = new Inbound({ local, metrics, keys });
  const node = await startTestNode({
    models: [MODEL],
    logger,
    handlers: new Map([
      [
        INFERENCE_PROTOCOL,
        (stream, from) =>
          serveInference(
            stream,
            from,
            (request, received) => {
              shown.push(received.authorization);
              return inbound.serve(request, received);
            },
            { clock },
          ),
      ],
    ]),
  });
  context.after(() => node.stop());
  return { node, keys, dataDir, metrics, shown };
}

interface Answer {
  readonly events: unknown[];
  readonly error: MeshError | null;
}

/** Asks `guarded` from `asker`; `stored`: what the asker keeps for each peer. */
async function ask(asker: TestNode, guarded: Guarded, stored: ReadonlyMap<string, string>): Promise<Answer> {
  const backend = new PeerBackend(
    {
      streams: asker.streams,
      peers: asker.table,
      clock: systemClock,
      authorization: (fingerprint) => stored.get(fingerprint) ?? null,
    },
    guarded.node.fingerprint,
  );
  const events: unknown[] = [];
  try {
    const request = { requestId: 'a'.repeat(32), kind: 'chat', model: MODEL, body: BODY, seed: 1 } as const;
    for await (const event of backend.infer(request, { signal: AbortSignal.timeout(20_000) })) events.push(event);
    return { events, error: null };
  } catch (error) {
    assert.ok(error instanceof MeshError);
    return { events, error };
  }
}

const last = ({ events }: Answer): unknown => (events.at(-1) as { type: string } | undefined)?.type;

async function joined(context: TestContext, logger: Logger, to: readonly Guarded[]): Promise<TestNode> {
  const asker = await startTestNode({ logger, peers: to.map(({ node }) => node.address) });
  context.after(() => asker.stop());
  await Promise.all(to.map(({ node }) => lists(asker, node.fingerprint, [MODEL])));
  return asker;
}

/** Everything that is logged. */
function capture(): { logger: Logger; text(): string } {
  const lines: string[] = [];
  return { logger: createLogger('trace', { write: (line) => void lines.push(line) }), text: () => lines.join('') };
}

/** The key as it is and in all encodings in which it could hide. */
function forms(key: string): string[] {
  const hex = Buffer.from(key).toString('hex');
  const found = [key, key.slice(3), hex, hex.toUpperCase(), encodeURIComponent(`Bearer ${key}`)];
  found.push(hex.replace(/../g, '%$&'), hex.replace(/../g, '%$&').toUpperCase(), JSON.stringify([...Buffer.from(key)]));
  // Base64 at each of the three alignments, without what the neighbours share.
  for (const before of ['', 'x', 'xx']) {
    for (const encoding of ['base64', 'base64url'] as const) {
      found.push(
        Buffer.from(before + key)
          .toString(encoding)
          .slice(4, -4),
      );
    }
  }
  return found;
}

const leaks = (text: string, keys: readonly string[]): string[] =>
  keys.flatMap(forms).filter((form) => text.includes(form));

test('D-6 D-45 D-47 D-48 a peer without a key is refused, with it answered, with a wrong or revoked one refused again', async (context) => {
  watchRejections(context);
  const { logger } = capture();
  const guarded = await startGuarded(context, logger);
  const { fingerprint } = guarded.node;
  const asker = await joined(context, logger, [guarded]);
  const stored = new Map<string, string>();

  assert.equal(last(await ask(asker, guarded, stored)), 'end', 'no key was given out, none is needed');
  assert.deepEqual(guarded.shown, [null]);

  const { key } = await guarded.keys.create('asker');
  const without = await ask(asker, guarded, stored);
  assert.equal(without.error?.code, 'unauthorized');
  assert.match(without.error.message, /meshnode peers set NAME --key-stdin/);
  assert.deepEqual(without.events, []);
  assert.equal(ERROR_TABLE[without.error.code].httpStatus, 401);
  assert.equal(ERROR_TABLE[without.error.code].breaker, 'neutral');
  assert.equal(ERROR_TABLE[without.error.code].elsewhere, false);
  assert.equal(asker.table.get(fingerprint)?.status, 'online', 'it is no reason to disconnect');

  stored.set(fingerprint, key);
  assert.equal(last(await ask(asker, guarded, stored)), 'end');
  assert.equal(guarded.shown.at(-1), `Bearer ${key}`);

  stored.set(fingerprint, `${key.slice(0, -1)}${key.endsWith('A') ? 'E' : 'A'}`);
  assert.equal((await ask(asker, guarded, stored)).error?.code, 'unauthorized');

  stored.set(fingerprint, key);
  await guarded.keys.revoke('asker');
  assert.equal((await ask(asker, guarded, stored)).error?.code, 'unauthorized');
});

test('D-45 each peer is shown its own key and no other', async (context) => {
  watchRejections(context);
  const { logger } = capture();
  const [one, two, open] = await Promise.all([1, 2, 3].map(() => startGuarded(context, logger)));
  assert.ok(one !== undefined && two !== undefined && open !== undefined);
  const [ofOne, ofTwo] = [await one.keys.create('asker'), await two.keys.create('asker')];
  const asker = await joined(context, logger, [one, two, open]);
  const stored = new Map([
    [one.node.fingerprint, ofOne.key],
    [two.node.fingerprint, ofTwo.key],
  ]);
  for (const guarded of [one, two, open]) assert.equal(last(await ask(asker, guarded, stored)), 'end');
  assert.deepEqual(one.shown, [`Bearer ${ofOne.key}`]);
  assert.deepEqual(two.shown, [`Bearer ${ofTwo.key}`]);
  assert.deepEqual(open.shown, [null]);
});

test('D-46 no key is in a log line, an event, an error, a metric or a file, in whichever form', async (context) => {
  watchRejections(context);
  const [serving, asking] = [capture(), capture()];
  const guarded = await startGuarded(context, serving.logger);
  const { fingerprint } = guarded.node;
  const { key } = await guarded.keys.create('asker');
  const wrong = `mk_${'wrong'.repeat(8)}xyz`;
  const asker = await joined(context, asking.logger, [guarded]);
  const seen: unknown[] = [];
  for (const stored of [null, key, wrong]) {
    const answer = await ask(asker, guarded, new Map(stored === null ? [] : [[fingerprint, stored]]));
    seen.push(answer);
    asking.logger.warn({ err: answer.error, answer }, 'as a careless line would have it');
  }
  await guarded.keys.revoke('asker');
  seen.push(await ask(asker, guarded, new Map([[fingerprint, key]])), await guarded.keys.list());
  await guarded.keys.create('asker', { inFlight: 1 }).catch((error: unknown) => seen.push(error));
  await guarded.keys.create(key).catch((error: unknown) => seen.push(error));
  await guarded.keys.revoke(key).catch((error: unknown) => seen.push(error));
  assert.equal(seen.length, 7);
  await asker.stop();
  await guarded.node.stop();

  const files = await Promise.all(
    (await readdir(guarded.dataDir)).map((name) => readFile(join(guarded.dataDir, name), 'utf8')),
  );
  const everything = [
    serving.text(),
    asking.text(),
    inspect(seen, { depth: 20, showHidden: true, maxStringLength: null, maxArrayLength: null }),
    inspect(guarded.keys, { depth: 20, showHidden: true }),
    JSON.stringify([asker.table.list(), guarded.node.table.list()]),
    await guarded.metrics.registry.metrics(),
    ...files,
  ].join('\n');
  assert.ok(asking.text().includes('unauthorized'), 'something is logged at all');
  assert.deepEqual(leaks(everything, [key, wrong]), []);
  // The search bites: the key in each form, in the midst of something else.
  for (const hidden of [
    key,
    Buffer.from(`Bearer ${key}"`).toString('base64'),
    Buffer.from(`a: ${key}`).toString('hex'),
  ]) {
    assert.notDeepEqual(leaks(`${everything}${hidden}`, [key, wrong]), []);
  }
});
