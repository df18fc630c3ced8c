import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Admission } from '../../../node/backends/llama-cpp/admission.ts';
import { Answer, type AnswerEvent } from '../../../node/backends/llama-cpp/answer.ts';
import { MeshError } from '../../../node/common/errors.ts';
import type { ProgressEvent } from '../../../protocols/inference/events.ts';
import { laneOrder } from '../../support/lane-order.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const QUEUED: ProgressEvent = { type: 'progress', state: 'queued', fraction: null };
const ACCEPTED = { type: 'accepted', promptTokens: 1, promptDigest: '' } as const;

const answer = (clock = new ManualClock()): Answer => new Answer({ clock, progress: () => QUEUED }, laneOrder('hi'));

test('requests get slots in the order in which they came, and a full queue refuses', () => {
  const admission = new Admission({ parallel: 2, queueLimit: 1 });
  const [first, second, third, fourth] = [answer(), answer(), answer(), answer()];
  for (const one of [first, second, third]) admission.enqueue(one);
  assert.throws(
    () => admission.enqueue(fourth),
    (error) => error instanceof MeshError && error.code === 'overloaded' && error.facts.retryAfterMs !== undefined,
  );
  assert.deepEqual([admission.admit()?.answer, admission.admit()?.answer, admission.admit()], [first, second, null]);
  assert.equal(admission.inFlight, 2);
});

test('a withdrawn request leaves the queue; one that runs keeps its slot until it is freed', () => {
  const admission = new Admission({ parallel: 1, queueLimit: 4 });
  const [running, waiting, next] = [answer(), answer(), answer()];
  for (const one of [running, waiting, next]) admission.enqueue(one);
  const id = admission.admit()?.id ?? 0;
  assert.equal(admission.withdraw(waiting), null);
  assert.equal(admission.withdraw(running), id);
  assert.equal(admission.admit(), null);
  admission.free(id);
  assert.equal(admission.admit()?.answer, next);
});

test('what the child says reaches the answer that it is about, and what ends one frees its slot', async () => {
  const admission = new Admission({ parallel: 2, queueLimit: 4 });
  const [first, second] = [answer(), answer()];
  admission.enqueue(first);
  admission.enqueue(second);
  const [one, two] = [admission.admit()?.id ?? 0, admission.admit()?.id ?? 0];
  admission.hear({ type: 'accepted', id: one, promptTokens: 1, promptDigest: '' });
  assert.deepEqual([first.state, second.state], ['accepted', 'waiting']);
  admission.hear({ type: 'refused', id: two, code: 'invalid_request', message: 'no', param: 'stop' });
  await assert.rejects(second.events().next(), (error) => error instanceof MeshError && error.facts.param === 'stop');
  assert.deepEqual([admission.inFlight, admission.isIdle], [1, false]);
  const timings = { promptMs: 1, predictedMs: 2 };
  const end = {
    finish: 'stop',
    promptTokens: 1,
    completionTokens: 1,
    reasoningTokens: 0,
    cachedTokens: 0,
    timings,
  } as const;
  assert.deepEqual(admission.hear({ type: 'step', outputs: [{ id: one, tokens: [7], text: 'x', end }] }), [end]);
  assert.equal(first.state, 'ended');
  assert.equal(admission.isIdle, true);
});

test('waiting is reported every half second, until the request is accepted', async () => {
  const clock = new ManualClock();
  const waiting = answer(clock);
  const events = waiting.events();
  const first = events.next();
  clock.advance(500);
  assert.deepEqual((await first).value, QUEUED);
  const second = events.next();
  clock.advance(499);
  waiting.accept(ACCEPTED);
  assert.deepEqual((await second).value, ACCEPTED);
  clock.advance(5_000);
  waiting.step({ id: 1, tokens: [7], text: 'x' });
  assert.equal((await events.next()).value?.type, 'chunk');
  await events.return(undefined);
});

test('steps that nobody read yet become one chunk, and indexes go on', async () => {
  const steady = answer();
  steady.accept(ACCEPTED);
  for (const token of [1, 2, 3]) steady.step({ id: 1, tokens: [token], text: `${token}` });
  const events = steady.events();
  const read = async (): Promise<AnswerEvent | undefined> => (await events.next()).value ?? undefined;
  await read();
  assert.deepEqual(await read(), { type: 'chunk', choice: 0, index: 0, tokens: [1, 2, 3], text: '123' });
  const timings = { promptMs: 1, predictedMs: 2 };
  steady.step({
    id: 1,
    tokens: [4],
    text: '4',
    end: { finish: 'stop', promptTokens: 2, completionTokens: 4, reasoningTokens: 0, cachedTokens: 1, timings },
  });
  assert.deepEqual(await read(), { type: 'chunk', choice: 0, index: 3, tokens: [4], text: '4', finish: 'stop' });
  const end = await read();
  assert.deepEqual(end?.type === 'end' && [end.promptTokens, end.completionTokens, end.cachedTokens], [2, 4, 1]);
  assert.equal((await events.next()).done, true);
});

test('what was generated before a failure is handed out before it', async () => {
  const failing = answer();
  failing.accept(ACCEPTED);
  failing.step({ id: 1, tokens: [1], text: 'a' });
  failing.fail(new MeshError('engine_failed', 'gone'));
  const seen: string[] = [];
  await assert.rejects(async () => {
    for await (const event of failing.events()) seen.push(event.type);
  }, /gone/);
  assert.deepEqual(seen, ['accepted', 'chunk']);
});
