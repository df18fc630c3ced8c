import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../../node/common/errors.ts';
import { Metrics } from '../../../node/common/metrics.ts';
import { Inbound, type InboundComponents, type InboundOptions } from '../../../node/routing/inbound.ts';
import { PeerQuota } from '../../../node/routing/peer-quota.ts';
import { ServiceState } from '../../../node/routing/service-state.ts';
import type { VerifiedKey } from '../../../node/storage/issued-keys.ts';
import type { InferenceEvent } from '../../../protocols/inference/events.ts';
import { HeldEngine } from '../../support/held-engine.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { catalogEntry } from '../../support/swarm.ts';
import { ACCEPTED, chunk, END } from '../../support/wire-mesh.ts';

const MODEL = 'm';
const FOREVER = new AbortController().signal;

function verified(overrides: Partial<VerifiedKey> = {}): VerifiedKey {
  const limits = { tokensPerMinute: null, inFlight: null };
  return { id: '01234567', name: 'anna', scopes: ['inference'], limits, ...overrides };
}

/** Keys of which `right` is valid. */
function keysOf(key: VerifiedKey): NonNullable<InboundComponents['keys']> {
  return {
    refresh: async () => {},
    required: () => true,
    verify: (shown) => (shown === 'right' ? key : null),
  };
}

function setUp(components: Partial<InboundComponents> = {}, options: Partial<InboundOptions> = {}) {
  const engine = new HeldEngine([catalogEntry(MODEL)]);
  const metrics = new Metrics();
  const quota = new PeerQuota({ clock: new ManualClock() });
  const inbound = new Inbound(
    { local: engine, metrics, quota, ...components },
    { perPeer: 64, bodyBudgetBytes: 100, ...options },
  );
  const serve = (from: string, authorization: string | null = null, model = MODEL) =>
    inbound.serve(
      { requestId: 'a'.repeat(32), kind: 'chat', model, body: new Uint8Array(), seed: 1 },
      { from, signal: FOREVER, authorization },
    );
  return { engine, metrics, inbound, serve };
}

/** `ok` or the code of the failure, the engine finishing at once. */
async function outcome(engine: HeldEngine, events: AsyncIterable<InferenceEvent>): Promise<string> {
  try {
    for await (const event of events) if (event.type === 'accepted') engine.running[0]?.finish();
    return 'ok';
  } catch (error) {
    assert.ok(error instanceof MeshError);
    return error.code;
  }
}

async function failure(events: AsyncGenerator<InferenceEvent>): Promise<MeshError> {
  const error: unknown = await events.next().then(
    () => null,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof MeshError);
  return error;
}

test('D-8 a request of a peer runs on the engine here or nowhere: a model that is not here is model_not_loaded', async () => {
  const { engine, serve } = setUp();
  assert.equal(await outcome(engine, serve('A')), 'ok');
  assert.equal(await outcome(engine, serve('A', null, 'elsewhere')), 'model_not_loaded');
});

test('D-47 D-48 a node that demands keys refuses a missing and a wrong one and says how to set it', async () => {
  const { engine, serve, metrics } = setUp({ keys: keysOf(verified()) });
  for (const authorization of [null, '', 'Bearer wrong', 'wrong', 'Bearer ', 'Basic right', 'Bearer right more']) {
    const error = await failure(serve('A', authorization));
    assert.equal(error.code, 'unauthorized', String(authorization));
    assert.match(error.message, /meshnode peers set NAME --key-stdin/);
    assert.doesNotMatch(error.message, /right|wrong/);
  }
  for (const authorization of ['Bearer right', 'bearer  right', 'right']) {
    assert.equal(await outcome(engine, serve('A', authorization)), 'ok');
  }
  assert.equal(engine.started.length, 3);
  assert.match(await metrics.registry.metrics(), /outcome="unauthorized"} 7/);
});

test('N-11 a node that has given out no key asks for none, and ignores one that it is shown', async () => {
  const keys = { refresh: async () => {}, required: () => false, verify: () => null };
  const { engine, serve } = setUp({ keys });
  assert.equal(await outcome(engine, serve('A')), 'ok');
  assert.equal(await outcome(engine, serve('A', 'Bearer anything')), 'ok');
});

test('a key without the scope is forbidden', async () => {
  const { serve } = setUp({ keys: keysOf(verified({ scopes: ['status'] })) });
  assert.equal((await failure(serve('A', 'Bearer right'))).code, 'forbidden');
});

test('the key comes before everything else: who has none learns nothing of models, load or state', async () => {
  const state = new ServiceState();
  state.set('draining');
  const { serve } = setUp({ keys: keysOf(verified()), state }, { perPeer: 0 });
  assert.equal((await failure(serve('A', null, 'elsewhere'))).code, 'unauthorized');
});

test('a paused or drained node refuses peers', async () => {
  const state = new ServiceState();
  const { engine, serve } = setUp({ state });
  for (const mode of ['paused', 'draining'] as const) {
    state.set(mode);
    const error = await failure(serve('A'));
    assert.equal(error.code, 'draining');
    assert.ok((error.facts.retryAfterMs ?? 0) > 0);
  }
  state.set('open');
  assert.equal(await outcome(engine, serve('A')), 'ok');
});

test('D-48 N-15 the limits of a key count for all peers that show it, beside those of each peer', async () => {
  const limits = { tokensPerMinute: 5, inFlight: 2 };
  const { engine, serve, inbound } = setUp({ keys: keysOf(verified({ limits })) }, { perPeer: 1 });
  const [first, second] = [serve('A', 'right'), serve('B', 'right')];
  await first.next();
  await second.next();
  assert.equal(inbound.active(), 2);
  assert.equal((await failure(serve('A', 'right'))).message, 'Only 1 requests at once are allowed here');
  assert.equal((await failure(serve('C', 'right'))).message, 'Only 2 requests at once are allowed here');
  // Whoever was refused by the key has left the account of the peer, too.
  await first.return(undefined);
  await second.return(undefined);
  assert.equal(inbound.active(), 0);
  // Twice three tokens of prompt are more than five.
  const refused = await failure(serve('C', 'right'));
  assert.equal(refused.code, 'rate_limited');
  assert.ok((refused.facts.retryAfterMs ?? 0) > 0);
  assert.equal(engine.running.length, 0);
});

test('tokens are counted as they come, prompt and answer', async () => {
  const quota = new PeerQuota({ clock: new ManualClock() });
  const spent: number[] = [];
  const enter = quota.enter.bind(quota);
  quota.enter = (holder, limits) => {
    const lease = enter(holder, limits);
    return { ...lease, spend: (tokens) => void spent.push(tokens) };
  };
  const { engine, serve } = setUp({ quota });
  engine.infer = async function* () {
    yield ACCEPTED;
    yield chunk(0);
    yield { type: 'chunk', choice: 0, index: 1, tokens: [1, 2, 3], text: '' };
    yield END;
  };
  assert.equal(await outcome(engine, serve('A')), 'ok');
  assert.deepEqual(spent, [3, 1, 3]);
});

test('a node waits for the requests of its peers to end, or for the signal', async () => {
  const { serve, inbound } = setUp();
  await inbound.whenIdle(FOREVER);
  const events = serve('A');
  await events.next();
  const idle = inbound.whenIdle(FOREVER);
  await inbound.whenIdle(AbortSignal.abort());
  await events.return(undefined);
  await idle;
});

test('bodies of all peers together have a budget', () => {
  const { inbound } = setUp();
  const release = inbound.reserveBytes(60);
  assert.equal(inbound.reserveBytes(60), null);
  release?.();
  release?.();
  assert.notEqual(inbound.reserveBytes(100), null);
  assert.equal(inbound.reserveBytes(1), null);
});
