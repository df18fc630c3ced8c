/** Where requests go: the rows of the fallback table, load balancing off, boundaries, strategies at work, the record. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { STRATEGY_NAMES } from '../../../node/routing/settings.ts';
import type { InferenceEvent } from '../../../protocols/inference/events.ts';
import { type PlayedScript, REQUEST, STREAM, scriptedMesh } from '../../support/scripted-mesh.ts';

const OK: PlayedScript = { words: ['ok'] };
const HERE: PlayedScript = { ...OK, kind: 'engine' };
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('D-2 D-49 with load balancing off a model that is not here is a 503: no peer, no HTTP node, no lookup', async () => {
  const scripts: Record<string, PlayedScript> = { a: OK, 'api:b': { ...OK, kind: 'http' } };
  const { run, log, looked, asked, configure } = scriptedMesh(scripts, { loadBalancing: { enabled: false } });
  const { code, error } = await run();
  assert.equal(code, 'model_not_available');
  assert.match(error?.message ?? '', /load balancing is off/);
  assert.deepEqual([log, looked, asked], [[], [], []]);
  scripts['here'] = HERE;
  assert.equal((await run()).servedBy, 'here');
  configure({ enabled: true });
  delete scripts['here'];
  assert.ok((await run()).servedBy !== null, 'switched on without a restart');
});

test('D-50 a model that is here is served here', async () => {
  const { run, dials } = scriptedMesh({ a: OK, here: HERE });
  for (let i = 0; i < 3; i++) assert.equal((await run()).servedBy, 'here');
  assert.deepEqual(dials(), ['here', 'here', 'here']);
});

test('D-1 D-5 D-51 a model that is only elsewhere is asked for there, the index first and the DHT last', async () => {
  const known = scriptedMesh({ a: OK });
  assert.equal((await known.run()).servedBy, 'a');
  assert.deepEqual(known.looked, []);
  const far = scriptedMesh({}, { far: { b: OK } });
  assert.equal((await far.run()).servedBy, 'b');
  assert.deepEqual(far.looked, ['m']);
});

test('D-52 a model that nobody has, not even by the DHT, is a 503', async () => {
  const { run, looked } = scriptedMesh({});
  const { code, error } = await run();
  assert.deepEqual([code, error?.facts.param, looked], ['model_not_available', 'model', ['m']]);
});

test('D-9 this node is no candidate of itself, whatever the index says', async () => {
  const scripts: Record<string, PlayedScript> = { here: { ...OK, kind: 'peer' } };
  assert.equal((await scriptedMesh(scripts).run()).code, 'model_not_available');
});

test('a request stays within its boundary, and the error names it', async () => {
  const scripts: Record<string, PlayedScript> = {
    a: OK,
    'api:p': { ...OK, kind: 'http' },
    'api:w': { ...OK, kind: 'http' },
  };
  const remotes = {
    'api:p': { boundary: 'private-cluster', priority: 5 },
    'api:w': { boundary: 'public', priority: 9 },
  } as const;
  const { run, dials, looked } = scriptedMesh(scripts, { remotes, loadBalancing: { strategy: 'priority' } });
  const served = async (boundary: 'local' | 'mesh' | 'private-cluster' | 'public') => {
    const { servedBy, error } = await run({}, { boundary });
    return servedBy ?? error?.message;
  };
  assert.equal(await served('public'), 'api:w');
  assert.equal(await served('private-cluster'), 'api:p');
  assert.equal(await served('mesh'), 'a');
  assert.match((await served('local')) ?? '', /boundary 'local' \(this node only\)/);
  assert.deepEqual([dials(), looked], [['api:w', 'api:p', 'a'], []]);
  scripts['a'] = { ending: 'upstream_error' };
  assert.match((await served('mesh')) ?? '', /scripted upstream_error/, 'it fails rather than leaks');
  assert.deepEqual(dials().slice(3), ['a']);
});

test('within a boundary that only others satisfy the DHT is asked for someone nearer', async () => {
  const remotes = { 'api:w': { boundary: 'public' } } as const;
  const { run, looked } = scriptedMesh({ 'api:w': { ...OK, kind: 'http' } }, { remotes, far: { b: OK } });
  assert.equal((await run({}, { boundary: 'mesh' })).servedBy, 'b');
  assert.deepEqual(looked, ['m']);
});

test('D-13 requests that come at once are spread: each choice sees the one before', async () => {
  for (const strategy of STRATEGY_NAMES) {
    const { run, stats } = scriptedMesh({ a: OK, b: OK, c: OK }, { loadBalancing: { strategy } });
    await Promise.all(Array.from({ length: 9 }, () => run()));
    const shares = ['a', 'b', 'c'].map((id) => stats.of(id).totalRequests);
    assert.equal(Math.max(...shares) - Math.min(...shares) <= (strategy === 'fastest' ? 9 : 0), true, strategy);
  }
});

test('D-12 round-robin counts per model, and a node whose circuit is open gives its share to all', async () => {
  const scripts: Record<string, PlayedScript> = { b: { ending: 'upstream_error' } };
  const { run, stats } = scriptedMesh(scripts, { loadBalancing: { strategy: 'round-robin' } });
  for (let i = 0; i < 3; i++) await run();
  Object.assign(scripts, { a: OK, c: OK, d: OK });
  for (let i = 0; i < 30; i++) await run();
  assert.deepEqual(
    ['a', 'b', 'c', 'd'].map((id) => stats.of(id).totalRequests),
    [10, 3, 10, 10],
  );
});

test('D-13 a node that fails fast is no black hole under least-loaded', async () => {
  const { run, dials } = scriptedMesh({ bad: { ending: 'model_not_loaded' }, good: OK });
  for (let i = 0; i < 10; i++) assert.equal((await run()).text, 'ok');
  assert.equal(dials().filter((id) => id === 'bad').length, 1, 'a stale entry is asked once');
  const failing = scriptedMesh({ bad: { ending: 'engine_failed' }, good: { ending: 'hang', words: ['x'] } });
  const clients = Array.from({ length: 4 }, () => new AbortController());
  const running = clients.map(({ signal }) => failing.run({ signal }));
  await turn();
  await turn();
  for (const client of clients) client.abort();
  await Promise.all(running);
  const shares = failing.dials().filter((id) => id === 'bad').length;
  assert.ok(shares <= 3, `${shares} went to the one that fails`);
});

test('D-15 D-11 the strategy is read at each request, priorities too', async () => {
  const remotes: Record<string, { priority: number }> = { a: { priority: 1 }, b: { priority: 2 } };
  const { run, configure, requestLog } = scriptedMesh(
    { a: OK, b: OK },
    { remotes, loadBalancing: { strategy: 'priority' } },
  );
  assert.equal((await run()).servedBy, 'b');
  remotes['a'] = { priority: 3 };
  assert.equal((await run()).servedBy, 'a');
  configure({ strategy: 'round-robin' });
  const { requestId, servedBy } = await run();
  assert.equal(servedBy, 'b');
  assert.equal(requestLog.get(requestId)?.strategy, 'round-robin');
});

test('D-14 fastest measures everyone once and then stays with the one that answers first', async () => {
  const { run, clock, stats, dials } = scriptedMesh({ a: OK, b: OK }, { loadBalancing: { strategy: 'fastest' } });
  const slow = stats.begin('a', 'm');
  clock.advance(50);
  stats.firstToken('a', 'm', 50);
  slow('success', 50);
  for (let i = 0; i < 5; i++) await run();
  assert.deepEqual(dials(), ['b', 'b', 'b', 'b', 'b']);
});

test('every answer can be explained, by its id or by what its client saw, and without its prompt', async () => {
  const scripts: Record<string, PlayedScript> = { a: { ending: 'wedged' }, b: OK, 'api:w': { ...OK, kind: 'http' } };
  const remotes = { 'api:w': { boundary: 'public' }, a: { priority: 7 } } as const;
  const { run, requestLog } = scriptedMesh(scripts, { remotes, loadBalancing: { strategy: 'priority' } });
  const { requestId } = await run({ label: 'seen by the client' }, { boundary: 'mesh' });
  const record = requestLog.get(requestId);
  assert.equal(requestLog.get('seen by the client'), record);
  assert.deepEqual(
    record?.candidates.map(({ backend, skipped }) => [backend, skipped]),
    [
      ['b', null],
      ['a', 'already_failed'],
      ['api:w', 'boundary'],
    ],
  );
  assert.deepEqual(
    record.attempts.map(({ backend, outcome }) => [backend, outcome]),
    [
      ['a', 'wedged'],
      ['b', 'ok'],
    ],
  );
  assert.match(record.attempts[0]?.reason ?? '', /^priority: priority 7, .*of 2 that could be asked/);
  assert.match(record.attempts[1]?.reason ?? '', /^After wedged elsewhere/);
  assert.deepEqual([record.outcome, record.strategy, record.boundary], ['ok', 'priority', 'mesh']);
  assert.equal(JSON.stringify(record).includes('secret prompt'), false);
  assert.equal(requestLog.get('never seen'), null);
});

test('the record of a refused request says why each one was passed over', async () => {
  const scripts: Record<string, PlayedScript> = { a: { ending: 'upstream_error' }, b: { ending: 'rate_limited' } };
  const { run, requestLog } = scriptedMesh(scripts, {
    loadBalancing: { strategy: 'priority' },
    remotes: { a: { priority: 1 } },
  });
  for (let i = 0; i < 3; i++) await run();
  const { requestId, code } = await run();
  assert.equal(code, 'overloaded');
  assert.equal(requestLog.get(requestId)?.outcome, 'overloaded');
  assert.deepEqual(
    requestLog.get(requestId)?.candidates.map(({ backend, skipped }) => [backend, skipped]),
    [
      ['a', 'circuit_open'],
      ['b', 'cooling_off'],
    ],
  );
});

test('the last thousand requests are kept, with 16 candidates of each', async () => {
  const many = Object.fromEntries(Array.from({ length: 60 }, (_, i) => [`n${i}`, OK]));
  const { run, requestLog } = scriptedMesh(many);
  const first = await run({ label: 'first' });
  assert.equal(requestLog.get(first.requestId)?.candidates.length, 16);
  for (let i = 0; i < 999; i++) await run({ label: 'same' });
  assert.notEqual(requestLog.get('first'), null);
  await run();
  assert.deepEqual([requestLog.get('first'), requestLog.get(first.requestId)], [null, null]);
  assert.notEqual(requestLog.get('same'), null);
});

test('a whole answer whose reader stops at its end is ok in the record', async () => {
  const { dispatcher, requestLog } = scriptedMesh({ a: OK });
  const events: InferenceEvent[] = [];
  for await (const event of dispatcher.dispatch(REQUEST, STREAM).events) {
    events.push(event);
    if (event.type === 'end') break;
  }
  assert.equal(requestLog.get(REQUEST.requestId)?.outcome, 'ok');
});
