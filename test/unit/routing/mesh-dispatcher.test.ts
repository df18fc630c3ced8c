import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DEFAULT_DISPATCH } from '../../../node/routing/mesh-dispatcher.ts';
import { type PlayedScript, REQUEST, STREAM, scriptedMesh } from '../../support/scripted-mesh.ts';

const OK: PlayedScript = { words: ['ok'] };
const DEAD: PlayedScript = { ending: 'peer_unreachable' };
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('answers from the first candidate and says which it was', async () => {
  const { run, log } = scriptedMesh({ a: { words: ['x', 'y'] }, b: {} });
  const { text, servedBy, attempts, code } = await run();
  assert.deepEqual({ text, servedBy, attempts, code }, { text: 'xy', servedBy: 'a', attempts: 1, code: null });
  assert.deepEqual(log, ['a', 'a done']);
});

test('D-24 D-28 a failure before the first text goes on elsewhere and leaves no trace in the answer', async () => {
  const { run } = scriptedMesh({ a: { words: ['', ''], ending: 'peer_unreachable' }, b: OK });
  const { text, servedBy, attempts, events } = await run();
  assert.deepEqual({ text, servedBy, attempts }, { text: 'ok', servedBy: 'b', attempts: 2 });
  assert.equal(events.filter((event) => event.type === 'accepted').length, 1);
});

test('D-25 a server error of the node goes on elsewhere', async () => {
  const { run } = scriptedMesh({ a: { ending: 'upstream_error', facts: { httpStatus: 500 } }, b: OK });
  assert.equal((await run()).text, 'ok');
});

test('an answer that ends without its end is a failure, not a short answer', async () => {
  const { run } = scriptedMesh({ a: { words: [''], ending: 'cut' }, b: { words: ['whole'] } });
  assert.equal((await run()).text, 'whole');
});

test('D-28 after the first text no other candidate is asked and the answer counts as lost', async () => {
  const { run, log } = scriptedMesh({ a: { words: ['part'], ending: 'peer_unreachable' }, b: OK });
  assert.deepEqual([(await run()).code, log.includes('b')], ['peer_lost', false]);
});

test('D-29 without a stream a death in the middle of the answer is retried whole', async () => {
  const { run } = scriptedMesh({ a: { words: ['part'], ending: 'peer_unreachable' }, b: { words: ['whole'] } });
  const { text, code } = await run({ stream: false });
  assert.deepEqual({ text, code }, { text: 'whole', code: null });
});

test('D-26 D-27 retries once, whole and elsewhere, and then gives the error of the retry', async () => {
  const { run, dials } = scriptedMesh({ a: DEAD, b: { ending: 'engine_failed' }, c: OK });
  assert.equal((await run()).code, 'engine_failed');
  assert.deepEqual(dials(), ['a', 'b']);
});

test('D-26 without an alternative the first error is the answer, and the same node is not asked again', async () => {
  const { run, dials } = scriptedMesh({ a: { ending: 'upstream_error' } });
  assert.deepEqual([(await run()).code, dials()], ['upstream_error', ['a']]);
});

test('D-8 a stale index entry is dropped and costs no retry', async () => {
  const { run, dropped, breakers } = scriptedMesh({ a: { ending: 'model_not_loaded' }, b: DEAD, c: OK });
  assert.equal((await run()).text, 'ok');
  assert.deepEqual([...dropped], ['a']);
  assert.equal(breakers.view('a').consecutiveFailures, 0);
});

test("the client's own mistakes are not retried and count against nobody", async () => {
  const { run, log, breakers } = scriptedMesh({ a: { ending: 'invalid_request' }, b: {} });
  assert.equal((await run()).code, 'invalid_request');
  assert.equal(log.includes('b'), false);
  assert.equal(breakers.view('a').consecutiveFailures, 0);
});

test('D-23 D-30 D-54 with failover off the first error is the answer, also when it is switched while running', async () => {
  const { run, configure } = scriptedMesh({ a: DEAD, b: OK });
  configure({ failoverEnabled: false, strategy: 'priority' });
  assert.equal((await run()).code, 'peer_unreachable');
});

test('D-53 with failover on, which is the default, an unreachable node is replaced once', async () => {
  const { run, dials } = scriptedMesh({ a: DEAD, b: OK });
  assert.deepEqual([(await run()).servedBy, dials()], ['b', ['a', 'b']]);
});

test('D-17 D-20 a sole candidate whose circuit is open is not dialed, and the error says when to come back', async () => {
  const { run, dials, clock } = scriptedMesh({ a: DEAD });
  for (let i = 0; i < 3; i++) assert.equal((await run()).code, 'peer_unreachable');
  clock.advance(20_000);
  const { code, error } = await run();
  assert.deepEqual([code, error?.facts.retryAfterMs, dials().length], ['all_circuits_open', 40_000, 3]);
  clock.advance(40_000);
  assert.equal((await run()).code, 'peer_unreachable');
  assert.equal((await run()).code, 'all_circuits_open', 'the probe failed: at once open again');
});

test('D-20 D-55 an open circuit is skipped and an alternative is used', async () => {
  const scripts: Record<string, PlayedScript> = { a: { ending: 'upstream_error' } };
  const { run, dials } = scriptedMesh(scripts, { loadBalancing: { strategy: 'round-robin' } });
  for (let i = 0; i < 3; i++) await run();
  scripts['b'] = OK;
  for (let i = 0; i < 4; i++) assert.equal((await run()).servedBy, 'b');
  assert.equal(dials().filter((id) => id === 'a').length, 3);
});

test('D-21 an open circuit is skipped also as the target of a failover', async () => {
  const scripts: Record<string, PlayedScript> = { b: { ending: 'upstream_error' } };
  const { run, dials } = scriptedMesh(scripts, {
    remotes: { a: { priority: 1 } },
    loadBalancing: { strategy: 'priority' },
  });
  for (let i = 0; i < 3; i++) await run();
  scripts['a'] = { ending: 'wedged' };
  assert.equal((await run()).code, 'wedged');
  assert.equal(dials().filter((id) => id === 'b').length, 3);
});

test('D-18 a client that goes away releases the probe', async () => {
  const scripts: Record<string, PlayedScript> = { a: { ending: 'upstream_error' } };
  const { run, clock, breakers } = scriptedMesh(scripts);
  for (let i = 0; i < 3; i++) await run();
  clock.advance(60_000);
  scripts['a'] = { ending: 'hang' };
  const client = new AbortController();
  const probing = run({ signal: client.signal });
  await turn();
  assert.equal(breakers.view('a').state, 'half-open');
  assert.equal((await run()).code, 'all_circuits_open', 'one probe at a time');
  client.abort();
  assert.equal((await probing).code, 'client_closed');
  scripts['a'] = OK;
  assert.equal((await run()).text, 'ok');
});

test('D-52 no candidate at all is model_not_available', async () => {
  assert.equal((await scriptedMesh({}).run()).code, 'model_not_available');
});

test('a client that goes away stops the backend and counts against nobody', async () => {
  const { run, log, breakers, stats } = scriptedMesh({ a: { ending: 'hang' }, b: {} });
  const client = new AbortController();
  const running = run({ signal: client.signal });
  await turn();
  client.abort();
  assert.equal((await running).code, 'client_closed');
  assert.deepEqual(log, ['a', 'a done']);
  assert.equal(breakers.view('a').consecutiveFailures, 0);
  const { totalRequests, successCount, failureCount, activeRequests } = stats.of('a');
  assert.deepEqual([totalRequests, successCount, failureCount, activeRequests], [1, 0, 0, 0]);
});

test('a consumer that stops reading stops the backend', async () => {
  const { dispatcher, log, stats, requestLog } = scriptedMesh({ a: { words: ['x', 'y', 'z'] } });
  for await (const event of dispatcher.dispatch(REQUEST, STREAM).events) if (event.type === 'chunk') break;
  assert.deepEqual(log, ['a', 'a done']);
  assert.equal(stats.of('a').activeRequests, 0);
  assert.equal(requestLog.get(REQUEST.requestId)?.outcome, 'client_closed');
});

test('silence before the first token ends at the bound and goes on elsewhere', async () => {
  const { run, clock } = scriptedMesh({ a: { ending: 'hang' }, b: OK });
  const running = run();
  await turn();
  clock.advance(DEFAULT_DISPATCH.firstTokenTimeoutMs);
  assert.equal((await running).text, 'ok');
});

test('a 429 goes on elsewhere, and the busy one is left alone for as long as it asked', async () => {
  const scripts: Record<string, PlayedScript> = { a: { ending: 'rate_limited', facts: { retryAfterMs: 5000 } }, b: OK };
  const { run, dials, clock } = scriptedMesh(scripts, { loadBalancing: { strategy: 'round-robin' } });
  assert.equal((await run()).servedBy, 'b');
  for (let i = 0; i < 3; i++) assert.equal((await run()).servedBy, 'b');
  assert.equal(dials().filter((id) => id === 'a').length, 1);
  scripts['a'] = OK;
  clock.advance(5000);
  assert.deepEqual([(await run()).servedBy, (await run()).servedBy].toSorted(), ['a', 'b']);
});

test('when all are busy the answer is the soonest time to come back, and nobody is dialed', async () => {
  const busy = (retryAfterMs: number): PlayedScript => ({ ending: 'overloaded', facts: { retryAfterMs } });
  const { run, dials, clock } = scriptedMesh({ a: busy(8000), b: busy(90_000) });
  assert.equal((await run()).code, 'overloaded');
  clock.advance(1000);
  const { code, error } = await run();
  assert.deepEqual([code, error?.facts.retryAfterMs, dials()], ['overloaded', 7000, ['a', 'b']]);
});

test('a full queue of this node is told to its client and not moved to others', async () => {
  const { run, dials } = scriptedMesh({ here: { kind: 'engine', ending: 'overloaded' }, a: OK });
  for (let i = 0; i < 2; i++) assert.equal((await run()).code, 'overloaded');
  assert.deepEqual(dials(), ['here', 'here']);
});

test('a spent retry budget gives the original error, and says not to try again', async () => {
  const scripts: Record<string, PlayedScript> = {};
  for (let i = 0; i < 40; i++) scripts[`x${i}`] = { ending: 'wedged' };
  const { run, dials } = scriptedMesh(scripts, { loadBalancing: { strategy: 'round-robin' }, retryFloor: 3 });
  const retried: boolean[] = [];
  for (let i = 0; i < 10; i++) {
    const { error, attempts } = await run();
    assert.equal(error?.code, 'wedged');
    assert.equal(error?.facts.retryable, attempts === 1 ? false : undefined);
    retried.push(attempts === 2);
  }
  assert.equal(retried.filter(Boolean).length, 5, '3 plus a fifth of 10');
  assert.equal(dials().length, 15);
});

test('a stale index and a node that drains cost no budget', async () => {
  const scripts: Record<string, PlayedScript> = { a: OK };
  const { run, breakers } = scriptedMesh(scripts, {
    loadBalancing: { strategy: 'priority' },
    remotes: { b: { priority: 1 } },
  });
  scripts['b'] = { ending: 'draining' };
  for (let i = 0; i < 20; i++) assert.equal((await run()).servedBy, 'a');
  assert.equal(breakers.view('b').consecutiveFailures, 0);
});

test('D-47 a refused key is passed on, counts for no breaker, and others are preferred from then on', async () => {
  const scripts: Record<string, PlayedScript> = { a: { ending: 'unauthorized' }, b: OK };
  const { run, dials, health, breakers } = scriptedMesh(scripts, { loadBalancing: { strategy: 'priority' } });
  assert.equal((await run()).code, 'unauthorized');
  assert.deepEqual(dials(), ['a'], 'no failover');
  for (let i = 0; i < 3; i++) assert.equal((await run()).servedBy, 'b');
  assert.equal(breakers.view('a').consecutiveFailures, 0);
  delete scripts['b'];
  assert.equal((await run()).code, 'unauthorized', 'it is still asked when nobody else is left');
  assert.equal(health.isUnauthorized('a'), true);
});
