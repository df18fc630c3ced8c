/** What peers may know of shared services and ask of them, without a network between. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { GatewayHolder } from '../../../node/backends/gateway.ts';
import { systemClock } from '../../../node/common/clock.ts';
import { type ErrorCode, MeshError } from '../../../node/common/errors.ts';
import { silentLogger } from '../../../node/common/logger.ts';
import { Metrics } from '../../../node/common/metrics.ts';
import { Breakers } from '../../../node/routing/breakers.ts';
import { Inbound } from '../../../node/routing/inbound.ts';
import { PeerQuota } from '../../../node/routing/peer-quota.ts';
import { RoutingStats } from '../../../node/routing/routing-stats.ts';
import { DEFAULT_LOAD_BALANCING } from '../../../node/routing/settings.ts';
import { SharedBackends } from '../../../node/routing/shared-backends.ts';
import type { Boundary, InferenceEvent, InferenceRequest } from '../../../protocols/inference/events.ts';
import { decodeOpen, encodeRequest, requestOf } from '../../../protocols/inference/open-message.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { ScriptedEngine } from '../../support/scripted-engine.ts';
import { catalogEntry } from '../../support/swarm.ts';

const HERE = '12D3KooWHere';
const REQUEST: InferenceRequest = {
  requestId: 'a'.repeat(32),
  kind: 'chat',
  model: 'm',
  seed: 1,
  body: Buffer.from('{"model":"m"}'),
};

interface Service {
  readonly id: string;
  readonly shared?: boolean;
  readonly boundary?: Boundary;
  readonly models?: readonly string[];
  answer?(): AsyncIterable<InferenceEvent>;
}

/** As an HTTP server answers: text without tokens, counts at the end. */
async function* said(...texts: readonly string[]): AsyncGenerator<InferenceEvent> {
  yield { type: 'accepted', node: 'api:secret-name', promptTokens: 0, promptDigest: '', artifact: null };
  for (const text of texts) yield { type: 'chunk', choice: 0, index: 0, tokens: [], text };
  const usage = { promptTokens: 7, completionTokens: 9, cachedTokens: 0 };
  yield { type: 'end', finishReasons: ['stop'], usage, timings: { promptMs: 1, predictedMs: 1 } };
}

function sharing(services: readonly Service[], enabled = true): SharedBackends {
  const listed = services.flatMap(
    ({ id, shared = true, boundary = 'mesh', models = ['m'], answer = () => said('Hi') }) =>
      models.map((model) => {
        const entry = catalogEntry(model, { quantization: 'secret', tokensPerSecond: 5 });
        const backend = { id, kind: 'http' as const, infer: () => answer() };
        const holder: GatewayHolder = { backend, entry, suspect: false, shared, place: { priority: 0, boundary } };
        return { model, holder, fingerprint: id, entry, shared, boundary };
      }),
  );
  const clock = systemClock;
  const gateways = {
    holders: (model: string) => listed.filter((one) => one.model === model).map(({ holder }) => holder),
    models: () => listed,
    drop: () => {},
    onChange: () => () => {},
  };
  const settings = {
    loadBalancing: () => ({ ...DEFAULT_LOAD_BALANCING, enabled }),
    remote: () => ({ priority: 0, boundary: 'public' as const }),
  };
  const parts = { breakers: new Breakers({ clock }), stats: new RoutingStats({ clock }), metrics: new Metrics() };
  return new SharedBackends({ ...parts, gateways, settings, clock, logger: silentLogger }, { fingerprint: HERE });
}

const asking = (shared: SharedBackends, over: Partial<InferenceRequest> = {}) =>
  Array.fromAsync(shared.infer({ ...REQUEST, ...over }, { signal: AbortSignal.timeout(10_000) }));

test('F-5 F-8 peers are told the ids of shared models and how far away the nearest is, nothing else', () => {
  const shared = sharing([
    { id: 'api:own', shared: false, models: ['private'] },
    { id: 'api:far', boundary: 'public', models: ['m', 'gpt'] },
    { id: 'api:near', boundary: 'local' },
  ]);
  const unsaid = { digest: null, quantization: null, sizeBytes: 0, tokensPerSecond: null };
  const told = { contextLength: 512, state: 'resident', slots: 4, ...unsaid };
  assert.deepEqual(shared.catalog(), [
    { id: 'm', ...told, boundary: 'mesh' },
    { id: 'gpt', ...told, boundary: 'public' },
  ]);
  assert.deepEqual([shared.serves('m'), shared.serves('private')], [true, false]);
  const off = sharing([{ id: 'api:a' }], false);
  assert.deepEqual([off.catalog(), off.serves('m')], [[], false]);
});

test('F-8 a service further away than the request may go is not asked, whatever the peer believes', async () => {
  let asked = 0;
  const answer = () => {
    asked += 1;
    return said('Hi');
  };
  const shared = sharing([{ id: 'api:far', boundary: 'public', answer }]);
  for (const boundary of ['local', 'mesh', 'private-cluster'] as const) {
    await assert.rejects(asking(shared, { boundary }), { code: 'model_not_loaded' });
  }
  assert.equal(asked, 0);
  const events = await asking(shared);
  assert.equal(asked, 1);
  const [accepted] = events;
  assert.ok(accepted?.type === 'accepted');
  assert.equal(accepted.node, HERE);
  assert.match(accepted.promptDigest, /^[0-9a-f]{64}$/, 'what the wire demands');
});

test('F-8 how far a request may go travels with it, and what does not say stays in the mesh', () => {
  const travelled = (request: InferenceRequest, change: (head: Record<string, unknown>) => void = () => {}) => {
    const [frame] = [...encodeRequest(request, { hops: 1 })];
    assert.ok(frame);
    const head = { ...(frame.head as Record<string, unknown>) };
    change(head);
    const open = decodeOpen({ type: frame.type, head, body: new Uint8Array(0) });
    return requestOf(open, REQUEST.body).boundary;
  };
  for (const boundary of ['local', 'mesh', 'private-cluster'] as const) {
    assert.equal(travelled({ ...REQUEST, boundary }), boundary);
  }
  assert.equal(travelled(REQUEST), undefined, 'no limit');
  assert.equal(travelled({ ...REQUEST, boundary: 'public' }), undefined);
  assert.equal(
    travelled(REQUEST, (head) => {
      delete head['boundary'];
    }),
    'mesh',
  );
  assert.equal(
    travelled(REQUEST, (head) => {
      head['boundary'] = 'galaxy';
    }),
    'mesh',
  );
});

test('D-46 how a service fails is told as this node, by a code that leaves its engine in peace', async () => {
  const rows: readonly (readonly [ErrorCode, ErrorCode])[] = [
    ['invalid_request', 'invalid_request'],
    ['context_length_exceeded', 'context_length_exceeded'],
    ['unauthorized', 'model_not_loaded'],
    ['forbidden', 'model_not_loaded'],
    ['upstream_error', 'engine_failed'],
    ['peer_unreachable', 'engine_failed'],
    ['rate_limited', 'engine_failed'],
    ['model_starting', 'model_starting'],
  ];
  for (const [code, expected] of rows) {
    const answer = async function* (): AsyncGenerator<InferenceEvent> {
      yield* [];
      throw new MeshError(code, 'secret.example:8000 says sk-canary', { retryAfterMs: 60_000 });
    };
    const shared = sharing([{ id: 'api:a', answer }]);
    await assert.rejects(asking(shared), (error) => {
      assert.ok(error instanceof MeshError);
      assert.equal(error.code, expected, code);
      assert.doesNotMatch(error.message, /secret|canary|api:/);
      assert.equal(error.cause, undefined);
      if (expected === 'model_starting') assert.equal(error.facts.retryAfterMs, 60_000);
      return true;
    });
  }
  const resume = { promptDigest: 'b'.repeat(64), artifact: 'c'.repeat(64), choices: [] };
  await assert.rejects(asking(sharing([{ id: 'api:a' }]), { resume }), { code: 'cannot_resume' });
});

test('F-5 a service that is not shared is never asked for a peer, though a shared one has the same model and fails', async () => {
  let asked = 0;
  const own = () => {
    asked += 1;
    return said('private');
  };
  const broken = async function* (): AsyncGenerator<InferenceEvent> {
    yield* [];
    throw new MeshError('upstream_error', 'boom');
  };
  const shared = sharing([
    { id: 'api:own', shared: false, answer: own },
    { id: 'api:lent', answer: broken },
  ]);
  await assert.rejects(asking(shared), { code: 'engine_failed' });
  assert.equal(asked, 0);
});

test('F-16 a second shared service answers when the first fails before its first token', async () => {
  const broken = async function* (): AsyncGenerator<InferenceEvent> {
    yield* [];
    throw new MeshError('upstream_error', 'boom');
  };
  const shared = sharing([
    { id: 'api:a', answer: broken },
    { id: 'api:b', answer: () => said('Hello') },
  ]);
  for (let i = 0; i < 3; i += 1) {
    const events = await asking(shared);
    assert.deepEqual(
      events.map((event) => (event.type === 'chunk' ? event.text : event.type)),
      ['accepted', 'Hello', 'end'],
    );
  }
});

test('N-15 what a shared service gives counts against the quota of the peer: chunks at first, then as its end says', async () => {
  const clock = new ManualClock();
  const quota = new PeerQuota({ clock });
  const shared = sharing([{ id: 'api:a', answer: () => said('one', 'two') }]);
  const local = new ScriptedEngine({ fingerprint: HERE, models: ['own'], tokenDelayMs: 0 });
  const metrics = new Metrics();
  // 16 tokens an answer: 7 of the prompt and 9 generated.
  const inbound = new Inbound(
    { local, metrics, quota, shared },
    { perPeer: 1, tokensPerMinute: 16, bodyBudgetBytes: 1 },
  );
  const context = { from: '12D3KooWPeer', signal: AbortSignal.timeout(10_000) };
  const serve = () => Array.fromAsync(inbound.serve(REQUEST, context));
  assert.equal((await serve()).at(-1)?.type, 'end');
  await assert.rejects(serve(), { code: 'rate_limited' });
  clock.advance(60_000);
  await serve();
  assert.match(await metrics.registry.metrics(), /origin="peer",served_by="http",outcome="ok"\} 2/);
  await assert.rejects(Array.fromAsync(inbound.serve({ ...REQUEST, model: 'x' }, context)), {
    code: 'model_not_loaded',
  });
});
