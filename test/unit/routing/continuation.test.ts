/** An answer that breaks off goes on elsewhere, and its reader sees nothing of it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ErrorCode } from '../../../node/common/errors.ts';
import { scriptedAnswer, scriptedToken } from '../../support/scripted-engine.ts';
import { askFor, type Death, SEED, type Twin, textOf, tokensOf, twinMesh } from '../../support/twin-mesh.ts';

const dies = (after: number, code: Death['code'] = 'peer_unreachable'): Twin => ({
  deaths: [{ after, code }],
  gone: true,
});
const PRIORITY = { loadBalancing: { strategy: 'round-robin' } } as const;
const COUNT = 12;
const GOLDEN = scriptedAnswer(SEED, COUNT);
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('the answer goes on from a twin after the last token that came, once each', async () => {
  const mesh = twinMesh({ a: dies(5), b: {} }, PRIORITY);
  const { events, code, servedBy, attempts, resumed, nodes } = await mesh.run(askFor(COUNT));
  assert.deepEqual([textOf(events), code], [GOLDEN, null]);
  assert.deepEqual(
    tokensOf(events),
    Array.from({ length: COUNT }, (_, index) => scriptedToken(SEED, index)),
  );
  assert.deepEqual(
    { servedBy, attempts, resumed, nodes },
    { servedBy: 'a', attempts: 2, resumed: 1, nodes: ['a', 'b'] },
  );
  assert.equal(events.filter(({ type }) => type === 'accepted').length, 1);
  const [end, ...more] = events.filter((event) => event.type === 'end');
  assert.deepEqual([end?.usage.completionTokens, end?.finishReasons, more.length], [COUNT, ['length'], 0]);
  assert.equal(mesh.asked[1]?.request.resume?.choices[0]?.tokens.length, 5);
  assert.deepEqual(await mesh.continuations(), { resumed: 1 });
});

test('every failure that others need not share leads to a twin, those of the client do not', async () => {
  const broken: ErrorCode[] = [
    'peer_unreachable',
    'wedged',
    'engine_failed',
    'out_of_memory',
    'draining',
    'upstream_error',
  ];
  for (const code of [...broken, 'protocol_violation', 'first_token_timeout', 'peer_lost', 'cut'] as const) {
    const { events } = await twinMesh({ a: dies(3, code), b: {} }, PRIORITY).run(askFor(COUNT));
    assert.equal(textOf(events), GOLDEN, code);
  }
  for (const code of ['invalid_request', 'internal_error', 'context_length_exceeded'] as const) {
    const mesh = twinMesh({ a: dies(3, code), b: {} }, PRIORITY);
    assert.deepEqual([(await mesh.run(askFor(COUNT))).code, mesh.ids()], [code, ['a']]);
  }
});

test('text that lags behind its tokens is neither lost nor repeated', async () => {
  for (const after of [1, 2, 5, 11]) {
    const mesh = twinMesh({ a: { ...dies(after), textLag: 2 }, b: { textLag: 2 } }, PRIORITY);
    assert.equal(textOf((await mesh.run(askFor(COUNT))).events), GOLDEN);
  }
});

test('tokens that came before the first text are kept, also when the answer is not streamed', async () => {
  const lagging = twinMesh({ a: { ...dies(2), textLag: 4 }, b: { textLag: 4 } }, PRIORITY);
  const streamed = await lagging.run(askFor(COUNT));
  assert.deepEqual([textOf(streamed.events), streamed.servedBy, streamed.nodes], [GOLDEN, 'b', ['a', 'b']]);
  const mesh = twinMesh({ a: dies(9), b: {} }, PRIORITY);
  const whole = await mesh.run(askFor(COUNT), { stream: false });
  assert.deepEqual([textOf(whole.events), whole.servedBy, whole.resumed], [GOLDEN, 'b', 1]);
  assert.equal(mesh.asked[1]?.request.resume?.choices[0]?.tokens.length, 9);
});

test('several deaths in one answer are survived while twins remain', async () => {
  const mesh = twinMesh({ a: dies(2), b: dies(3), c: dies(0), d: {} }, PRIORITY);
  const { events, resumed, nodes, attempts } = await mesh.run(askFor(COUNT));
  assert.deepEqual([textOf(events), resumed, nodes, attempts], [GOLDEN, 2, ['a', 'b', 'd'], 4]);
  assert.deepEqual(await mesh.continuations(), { resumed: 2, failed: 1 });
});

test('each choice goes on where it stood', async () => {
  for (const after of [1, 4, 10, 11]) {
    const mesh = twinMesh({ a: dies(after), b: {} }, PRIORITY);
    const { events } = await mesh.run(askFor(4, { n: 3 }));
    for (const choice of [0, 1, 2]) assert.equal(textOf(events, choice), scriptedAnswer(SEED, 4, choice));
    const end = events.at(-1);
    assert.equal(end?.type === 'end' && end.usage.completionTokens, 12);
  }
});

test('only a twin goes on: the same file, the same engine build, enough context, within the boundary', async () => {
  const others: Record<string, Twin> = {
    'another file': { digest: 'f'.repeat(64) },
    'a file not known yet': { digest: null },
    'another build': { build: 'newer' },
    'too little context': { contextLength: 6 },
    'too far away': { boundary: 'public' },
  };
  for (const [why, other] of Object.entries(others)) {
    const mesh = twinMesh({ a: dies(5), b: other }, PRIORITY);
    const { code, events } = await mesh.run({ ...askFor(COUNT), boundary: 'mesh' });
    assert.deepEqual([code, textOf(events), mesh.ids()], ['peer_lost', scriptedAnswer(SEED, 5), ['a']], why);
    assert.deepEqual(await mesh.continuations(), { no_twin: 1 }, why);
  }
});

test('a twin whose context holds the whole answer comes before one that holds only what there is', async () => {
  const mesh = twinMesh({ a: dies(5), b: { contextLength: 8 }, c: { contextLength: COUNT + 1 } }, PRIORITY);
  await mesh.run(askFor(COUNT));
  assert.deepEqual(mesh.ids(), ['a', 'c']);
});

test('the engine here goes on with what a peer began, and a peer with what it began', async () => {
  const fromPeer = twinMesh({ here: { kind: 'engine', deaths: [{ after: 0, code: 'engine_failed' }] }, a: dies(5) });
  const first = await fromPeer.run(askFor(COUNT));
  assert.deepEqual([textOf(first.events), fromPeer.ids()], [GOLDEN, ['here', 'a', 'here']]);
  const fromHere = twinMesh({ here: { kind: 'engine', deaths: [{ after: 5, code: 'wedged' }] }, a: {} });
  const second = await fromHere.run(askFor(COUNT));
  assert.deepEqual([textOf(second.events), second.nodes], [GOLDEN, ['here', 'a']]);
});

test('a lone node goes on itself once its engine has started again, but not with one that dies each time', async () => {
  const alone = twinMesh({ here: { kind: 'engine', deaths: [{ after: 5, code: 'engine_failed' }] } });
  const saved = await alone.run(askFor(COUNT));
  assert.deepEqual([textOf(saved.events), saved.nodes, saved.resumed], [GOLDEN, ['here', 'here'], 1]);
  const deaths = Array.from({ length: 9 }, () => ({ after: 0, code: 'engine_failed' as const }));
  const broken = twinMesh({ here: { kind: 'engine', deaths: [{ after: 5, code: 'engine_failed' }, ...deaths] } });
  const lost = await broken.run(askFor(COUNT));
  assert.deepEqual([lost.code, broken.ids().length], ['peer_lost', 2]);
});

test('a peer whose connection broke is asked again when nobody else is left and it is still listed', async () => {
  const mesh = twinMesh({ a: { deaths: [{ after: 5, code: 'peer_unreachable' }] } });
  const { events, nodes } = await mesh.run(askFor(COUNT));
  assert.deepEqual([textOf(events), nodes], [GOLDEN, ['a', 'a']]);
});

test('the only peer is waited for a few seconds, because it may only have been away', async () => {
  const mesh = twinMesh({ a: dies(5) });
  const back = mesh.clock.after(3000, () => mesh.dead.delete('a'));
  const { events, nodes } = await mesh.run(askFor(COUNT));
  back();
  assert.deepEqual([textOf(events), nodes], [GOLDEN, ['a', 'a']]);
  const gone = twinMesh({ a: dies(5) });
  const lost = await gone.run(askFor(COUNT));
  assert.deepEqual([lost.code, gone.ids()], ['peer_lost', ['a']]);
  assert.ok(gone.clock.now() >= 5000 && gone.clock.now() < 7000, `${gone.clock.now()}`);
  const unseen = twinMesh({ a: dies(5) });
  await unseen.run(askFor(COUNT), { stream: false });
  assert.ok(unseen.clock.now() < 2000, 'nothing has gone out: the error is not held back');
});

test('a twin that begins with another prompt is not believed, and the next one is asked', async () => {
  const mesh = twinMesh({ a: dies(5), b: { otherPrompt: true }, c: {} }, PRIORITY);
  const { events, nodes } = await mesh.run(askFor(COUNT));
  assert.deepEqual([textOf(events), nodes, mesh.ids()], [GOLDEN, ['a', 'c'], ['a', 'b', 'c']]);
});

test('a twin that refuses, for whatever reason, is passed over', async () => {
  for (const code of [
    'cannot_resume',
    'unauthorized',
    'model_not_loaded',
    'draining',
    'context_length_exceeded',
  ] as const) {
    const mesh = twinMesh({ a: dies(5), b: { deaths: [{ after: -1, code }] }, c: {} }, PRIORITY);
    assert.deepEqual([textOf((await mesh.run(askFor(COUNT))).events), mesh.ids()], [GOLDEN, ['a', 'b', 'c']], code);
  }
});

test('a twin that is only busy is waited for', async () => {
  const mesh = twinMesh({ a: dies(5), b: { deaths: [{ after: -1, code: 'overloaded', retryAfterMs: 4000 }] } });
  const { events } = await mesh.run(askFor(COUNT));
  assert.deepEqual([textOf(events), mesh.ids()], [GOLDEN, ['a', 'b', 'b']]);
  assert.ok(mesh.clock.now() >= 4000);
});

test('a twin whose engine rests after a crash is waited for as long as it says', async () => {
  for (const code of ['wedged', 'engine_failed'] as const) {
    const mesh = twinMesh({ a: dies(5), b: { deaths: [{ after: -1, code, retryAfterMs: 8000 }] } });
    const { events } = await mesh.run(askFor(COUNT));
    assert.deepEqual([textOf(events), mesh.ids()], [GOLDEN, ['a', 'b', 'b']], code);
    assert.ok(mesh.clock.now() >= 8000);
  }
});

test('when all choices had finished, the end is made here and nobody is asked', async () => {
  const mesh = twinMesh({ a: dies(COUNT), b: {} }, PRIORITY);
  const { events, code, resumed } = await mesh.run(askFor(COUNT));
  const end = events.at(-1);
  assert.deepEqual([textOf(events), code, resumed, mesh.ids()], [GOLDEN, null, 0, ['a']]);
  assert.deepEqual(end?.type === 'end' && [end.usage.completionTokens, end.usage.promptTokens], [COUNT, 1]);
  assert.deepEqual(await mesh.continuations(), { ended: 1 });
});

test('with mid-stream continuation off, or failover off, a broken answer is one error as before', async () => {
  for (const patch of [{ midStream: false }, { failoverEnabled: false }]) {
    const mesh = twinMesh({ a: dies(5), b: {} }, PRIORITY);
    mesh.configure(patch);
    const { code, events } = await mesh.run(askFor(COUNT));
    assert.deepEqual([code, textOf(events), mesh.ids()], ['peer_lost', scriptedAnswer(SEED, 5), ['a']]);
  }
  const restarted = twinMesh({ a: dies(5), b: {} }, { loadBalancing: { ...PRIORITY.loadBalancing, midStream: false } });
  const { events, nodes } = await restarted.run(askFor(COUNT), { stream: false });
  assert.deepEqual([textOf(events), nodes, restarted.asked[1]?.request.resume], [GOLDEN, ['b'], undefined]);
});

test('what was not shown yet begins anew where there is no twin', async () => {
  const mesh = twinMesh({ a: dies(5), b: { digest: 'f'.repeat(64) } }, PRIORITY);
  const { events, nodes, servedBy, resumed } = await mesh.run(askFor(COUNT), { stream: false });
  assert.deepEqual([textOf(events), nodes, servedBy, resumed], [GOLDEN, ['b'], 'b', 0]);
});

test('continuations cost neither the retry nor its budget, and end at eight', async () => {
  const many: Record<string, Twin> = { z: {} };
  for (let i = 0; i < 9; i++) many[`n${i}`] = dies(1);
  const mesh = twinMesh(many, PRIORITY);
  const { code, nodes } = await mesh.run(askFor(COUNT));
  assert.deepEqual([code, nodes.length], ['peer_lost', 9]);
  many['n9'] = {};
});

test('every attempt has its verdict: breakers, figures and the record say who died and who went on', async () => {
  const mesh = twinMesh({ a: dies(5, 'upstream_error'), b: {} }, PRIORITY);
  const request = askFor(COUNT);
  await mesh.run(request);
  assert.deepEqual([mesh.breakers.view('a').consecutiveFailures, mesh.breakers.view('b').consecutiveFailures], [1, 0]);
  const figures = (id: string): number[] => {
    const { totalRequests, successCount, failureCount, activeRequests } = mesh.stats.of(id);
    return [totalRequests, successCount, failureCount, activeRequests];
  };
  assert.deepEqual(
    [figures('a'), figures('b')],
    [
      [1, 0, 1, 0],
      [1, 1, 0, 0],
    ],
  );
  const record = mesh.requestLog.get(request.requestId);
  assert.deepEqual(
    record?.attempts.map(({ backend, outcome }) => [backend, outcome]),
    [
      ['a', 'upstream_error'],
      ['b', 'ok'],
    ],
  );
  assert.match(record.attempts[1]?.reason ?? '', /^Goes on after token 5 of a, which ended with upstream_error\. /);
  assert.equal(record.outcome, 'ok');
});

test('a client that goes away stops the twin as well, and nobody is asked after it', async () => {
  const mesh = twinMesh({ a: dies(5), b: { deaths: [{ after: 2, code: 'hang' }] }, c: {} }, PRIORITY);
  const client = new AbortController();
  const running = mesh.run(askFor(COUNT), { signal: client.signal });
  while (mesh.ids().length < 2) await turn();
  for (let i = 0; i < 10; i++) await turn();
  client.abort();
  const { code, events } = await running;
  assert.deepEqual([code, textOf(events), mesh.ids()], ['client_closed', scriptedAnswer(SEED, 7), ['a', 'b']]);
  assert.ok(mesh.asked.every(({ done }) => done));
  assert.equal(mesh.breakers.view('b').consecutiveFailures, 0);
});

test('a client that goes away while a twin is waited for ends the wait', async () => {
  const mesh = twinMesh({ a: dies(5), b: { deaths: [{ after: -1, code: 'overloaded', retryAfterMs: 20_000 }] } });
  const client = new AbortController();
  const running = mesh.run(askFor(COUNT), { signal: client.signal });
  while (mesh.ids().length < 2) await turn();
  for (let i = 0; i < 3; i++) await turn();
  client.abort();
  assert.equal((await running).code, 'client_closed');
  assert.equal(mesh.ids().length, 2);
});

test('a reader that stops between two nodes leaves none of them at work', async () => {
  const mesh = twinMesh({ a: dies(3), b: {} }, PRIORITY);
  const options = { signal: new AbortController().signal, stream: true };
  let chunks = 0;
  for await (const event of mesh.dispatcher.dispatch(askFor(COUNT), options).events) {
    if (event.type === 'chunk' && ++chunks === 4) break;
  }
  assert.deepEqual([mesh.ids(), mesh.asked.every(({ done }) => done)], [['a', 'b'], true]);
  assert.deepEqual([mesh.stats.of('a').activeRequests, mesh.stats.of('b').activeRequests], [0, 0]);
});
