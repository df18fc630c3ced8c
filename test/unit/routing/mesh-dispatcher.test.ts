import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Backend } from '../../../node/backends/backend.ts';
import { type ErrorCode, MeshError } from '../../../node/common/errors.ts';
import { silentLogger } from '../../../node/common/logger.ts';
import { Metrics } from '../../../node/common/metrics.ts';
import { Breakers } from '../../../node/routing/breakers.ts';
import { DEFAULT_DISPATCH, MeshDispatcher } from '../../../node/routing/mesh-dispatcher.ts';
import { RoutingStats } from '../../../node/routing/routing-stats.ts';
import type { InferenceEvent, InferenceRequest } from '../../../protocols/inference/events.ts';
import { ManualClock } from '../../support/manual-clock.ts';

/** What a scripted backend does: the words it gives, then its end, an error, or silence until it is cancelled. */
interface Script {
  words?: string[];
  ending?: ErrorCode | 'end' | 'hang' | 'stop';
}

const REQUEST: InferenceRequest = {
  requestId: 'a'.repeat(32),
  kind: 'chat',
  model: 'm',
  body: new Uint8Array(),
  seed: 1,
};
const STREAM = { signal: new AbortController().signal, stream: true };

function scripted(id: string, script: Script, log: string[]): Backend {
  return {
    id,
    kind: 'peer',
    async *infer(request, { signal }): AsyncGenerator<InferenceEvent> {
      log.push(id);
      assert.equal(request, REQUEST, 'the request is replayed whole');
      const { words = [], ending = 'end' } = script;
      try {
        if (words.length > 0 || ending === 'end') {
          yield { type: 'accepted', node: id, promptTokens: 1, promptDigest: '', artifact: null };
        }
        for (const [index, text] of words.entries()) yield { type: 'chunk', choice: 0, index, tokens: [index], text };
        if (ending === 'hang')
          await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
        if (ending === 'end') {
          const usage = { promptTokens: 1, completionTokens: words.length, cachedTokens: 0 };
          yield { type: 'end', finishReasons: ['stop'], usage, timings: { promptMs: 0, predictedMs: 0 } };
        } else if (ending !== 'stop' && ending !== 'hang') throw new MeshError(ending, `scripted ${ending}`);
      } finally {
        log.push(`${id} done`);
      }
    },
  };
}

function setUp(scripts: Record<string, Script>, options = DEFAULT_DISPATCH) {
  const log: string[] = [];
  const clock = new ManualClock();
  const stats = new RoutingStats();
  const breakers = new Breakers({ clock });
  const backends = Object.entries(scripts).map(([id, script]) => scripted(id, script, log));
  const entry = {
    id: 'm',
    digest: null,
    quantization: null,
    contextLength: 1,
    sizeBytes: 1,
    state: 'resident' as const,
    slots: 1,
    tokensPerSecond: null,
  };
  const forgotten: string[] = [];
  const dispatcher = new MeshDispatcher(
    {
      router: {
        candidates: async (_model, excluded) =>
          backends
            .filter((backend) => !excluded.has(backend.id))
            .map((backend) => ({ backend, entry, suspect: false, load: null, stats: stats.of(backend.id) })),
        forget: (id) => forgotten.push(id),
      },
      breakers,
      stats,
      metrics: new Metrics(),
      clock,
      logger: silentLogger,
    },
    options,
  );
  const run = async (dispatchOptions = STREAM) => {
    const dispatch = dispatcher.dispatch(REQUEST, dispatchOptions);
    const events: InferenceEvent[] = [];
    let error: MeshError | null = null;
    try {
      for await (const event of dispatch.events) events.push(event);
    } catch (thrown) {
      assert.ok(thrown instanceof MeshError);
      error = thrown;
    }
    const text = events.map((event) => (event.type === 'chunk' ? event.text : '')).join('');
    return { events, text, code: error?.code ?? null, servedBy: dispatch.servedBy, attempts: dispatch.attempts };
  };
  return { run, log, clock, stats, breakers, forgotten, dispatcher };
}

test('answers from the first candidate and says which it was', async () => {
  const { run, log } = setUp({ a: { words: ['x', 'y'] }, b: {} });
  const { text, servedBy, attempts, code } = await run();
  assert.deepEqual({ text, servedBy, attempts, code }, { text: 'xy', servedBy: 'a', attempts: 1, code: null });
  assert.deepEqual(log, ['a', 'a done']);
});

test('a failure before the first text goes on elsewhere and leaves no trace in the answer', async () => {
  const { run } = setUp({ a: { words: ['', ''], ending: 'peer_unreachable' }, b: { words: ['ok'] } });
  const { text, servedBy, attempts, events } = await run();
  assert.deepEqual({ text, servedBy, attempts }, { text: 'ok', servedBy: 'b', attempts: 2 });
  assert.equal(events.filter((event) => event.type === 'accepted').length, 1);
});

test('an answer that ends without its end is a failure, not a short answer', async () => {
  const { run } = setUp({ a: { words: [''], ending: 'stop' }, b: { words: ['whole'] } });
  assert.equal((await run()).text, 'whole');
});

test('after the first text no other candidate is asked and the answer counts as lost', async () => {
  const { run, log } = setUp({ a: { words: ['part'], ending: 'peer_unreachable' }, b: { words: ['ok'] } });
  assert.deepEqual([(await run()).code, log.includes('b')], ['peer_lost', false]);
});

test('without a stream a death in the middle of the answer is retried whole', async () => {
  const { run } = setUp({ a: { words: ['part'], ending: 'peer_unreachable' }, b: { words: ['whole'] } });
  const { text, code } = await run({ ...STREAM, stream: false });
  assert.deepEqual({ text, code }, { text: 'whole', code: null });
});

test('retries once and then gives the error of the retry', async () => {
  const { run, log } = setUp({
    a: { ending: 'peer_unreachable' },
    b: { ending: 'engine_failed' },
    c: { words: ['ok'] },
  });
  assert.equal((await run()).code, 'engine_failed');
  assert.equal(log.includes('c'), false);
});

test('a stale index entry is dropped and costs no retry', async () => {
  const { run, forgotten } = setUp({
    a: { ending: 'model_not_loaded' },
    b: { ending: 'peer_unreachable' },
    c: { words: ['ok'] },
  });
  assert.equal((await run()).text, 'ok');
  assert.deepEqual(forgotten, ['a']);
});

test("the client's own mistakes are not retried and count against nobody", async () => {
  const { run, log, breakers } = setUp({ a: { ending: 'invalid_request' }, b: {} });
  for (let i = 0; i < 4; i++) assert.equal((await run()).code, 'invalid_request');
  assert.equal(log.includes('b'), false);
  assert.equal(breakers.of('a').view().consecutiveFailures, 0);
});

test('with failover off the first error is the answer', async () => {
  const { run } = setUp({ a: { ending: 'peer_unreachable' }, b: {} }, { ...DEFAULT_DISPATCH, failoverEnabled: false });
  assert.equal((await run()).code, 'peer_unreachable');
});

test('an open circuit is skipped, also as the target of a failover, and all open says when to come back', async () => {
  const { run, log, clock } = setUp({ a: { ending: 'peer_unreachable' } });
  for (let i = 0; i < 3; i++) await run();
  log.length = 0;
  assert.equal((await run()).code, 'all_circuits_open');
  assert.deepEqual(log, []);
  clock.advance(60_000);
  assert.equal((await run()).code, 'peer_unreachable');
});

test('no candidate at all is model_not_available', async () => {
  assert.equal((await setUp({}).run()).code, 'model_not_available');
});

test('a client that goes away stops the backend and counts against nobody', async () => {
  const { run, log, breakers, stats } = setUp({ a: { ending: 'hang' }, b: {} });
  const client = new AbortController();
  const running = run({ signal: client.signal, stream: true });
  await new Promise((resolve) => setImmediate(resolve));
  client.abort();
  assert.equal((await running).code, 'client_closed');
  assert.deepEqual(log, ['a', 'a done']);
  assert.equal(breakers.of('a').view().consecutiveFailures, 0);
  assert.deepEqual(stats.of('a'), {
    totalRequests: 1,
    successCount: 0,
    failureCount: 0,
    avgLatencyMs: 0,
    activeRequests: 0,
  });
});

test('a consumer that stops reading stops the backend', async () => {
  const { dispatcher, log, stats } = setUp({ a: { words: ['x', 'y', 'z'] } });
  for await (const event of dispatcher.dispatch(REQUEST, STREAM).events) if (event.type === 'chunk') break;
  assert.deepEqual(log, ['a', 'a done']);
  assert.equal(stats.of('a').activeRequests, 0);
});

test('silence before the first token ends at the bound and goes on elsewhere', async () => {
  const { run, clock } = setUp({ a: { ending: 'hang' }, b: { words: ['ok'] } });
  const running = run();
  await new Promise((resolve) => setImmediate(resolve));
  clock.advance(DEFAULT_DISPATCH.firstTokenTimeoutMs);
  assert.equal((await running).text, 'ok');
});
