import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { Slots } from '../../../node/backends/llama-cpp/child/slots.ts';
import {
  type BatchRest,
  planRound,
  type RoundBounds,
  type SteppedLane,
  StepScheduler,
} from '../../../node/backends/llama-cpp/child/step-scheduler.ts';
import fc from '../../support/fc.ts';

const BOUNDS: RoundBounds = {
  sliceTokens: 64,
  lastSliceTokens: 128,
  busyPrefillTokens: 256,
  batchTokens: 512,
  yieldingPrefillTokens: 16,
};

const lane = (sequenceId: number, pendingTokens: number, isBatch: boolean) => ({
  sequenceId,
  pendingTokens,
  arrival: sequenceId,
  isBatch,
});
const ids = (lanes: readonly ReturnType<typeof lane>[], rest?: BatchRest): number[] =>
  planRound(lanes, BOUNDS, rest).map((slice) => slice.lane.sequenceId);

test('batch work takes no step while somebody’s answer is read or generated', () => {
  assert.deepEqual(ids([lane(0, 1, true), lane(1, 1, false), lane(2, 500, true)]), [1]);
  assert.deepEqual(ids([lane(0, 1, true), lane(1, 700, false)]), [1]);
  assert.deepEqual(ids([lane(0, 1, true), lane(2, 500, true)]), [0, 2]);
});

test('batch work that stood still for long takes a step beside answers, and for very long beside prompts', () => {
  const generating = [lane(0, 1, true), lane(1, 1, false)];
  const reading = [lane(0, 1, true), lane(1, 700, false)];
  assert.deepEqual(ids(generating, 'due'), [0, 1]);
  assert.deepEqual(ids(reading, 'due'), [1]);
  assert.deepEqual(ids(reading, 'overdue'), [0, 1]);
});

test('prompts of batch work take little of a round, because whoever comes waits for its end', () => {
  const round = planRound([lane(0, 1, true), lane(1, 400, true), lane(2, 400, true)], BOUNDS);
  const prompt = round.filter(({ lane: { sequenceId } }) => sequenceId > 0);
  assert.equal(
    prompt.reduce((sum, { tokens }) => sum + tokens, 0),
    16,
  );
});

test('somebody is always served as if there were no batch work', () => {
  const any = fc.record({ pendingTokens: fc.integer({ min: 1, max: 900 }), isBatch: fc.boolean() });
  fc.assert(
    fc.property(fc.array(any, { minLength: 1, maxLength: 16 }), (drawn) => {
      const lanes = drawn.map(({ pendingTokens, isBatch }, id) => lane(id, pendingTokens, isBatch));
      const people = lanes.filter(({ isBatch }) => !isBatch);
      const round = planRound(lanes, BOUNDS);
      assert.ok(round.length > 0, 'every round goes on with something');
      if (people.length > 0) assert.deepEqual(round, planRound(people, BOUNDS));
    }),
  );
});

test('how much of a prompt batch work reads at a time follows from how long that takes', async () => {
  for (const [tokenMs, slice] of [
    [0.1, 16],
    [2, 10],
    [50, 4],
  ] as const) {
    let now = 0;
    const done = new EventTarget();
    const taken: number[] = [];
    let left = 600;
    const prompt: SteppedLane = {
      sequenceId: 0,
      arrival: 0,
      isBatch: true,
      get pendingTokens() {
        return left;
      },
      get finished() {
        return left <= 1;
      },
      step: async (tokens) => {
        taken.push(tokens);
        left -= tokens;
        now += tokens * tokenMs;
      },
    };
    const onRound = (): void => void (prompt.finished && done.dispatchEvent(new Event('done')));
    const finished = once(done, 'done');
    new StepScheduler<SteppedLane>({ now: () => now, onRound }, BOUNDS).add(prompt);
    await finished;
    assert.deepEqual([taken[0], taken[3]], [8, slice]);
  }
});

test('batch work takes the slot that batch work left, and leaves conversations where they are', () => {
  const held = Array.from({ length: 3 }, (_, slot) => Array.from({ length: 40 }, (_, at) => slot * 100 + at));
  const slots = new Slots(held.map((tokens) => ({ tokens })));
  for (const isBatch of [false, true, false]) assert.notEqual(slots.acquire([1, 2, 3]), null, String(isBatch));
  for (const [index, isBatch] of [false, true, false].entries()) slots.release(index, isBatch);
  assert.equal(slots.acquire([7, 8, 9])?.index, 1);
});

class CountedLane implements SteppedLane {
  readonly sequenceId: number;
  readonly arrival: number;
  readonly isBatch: boolean;
  readonly pendingTokens = 1;
  steps = 0;
  readonly #most: number;

  constructor(sequenceId: number, isBatch: boolean, most: number) {
    this.sequenceId = sequenceId;
    this.arrival = sequenceId;
    this.isBatch = isBatch;
    this.#most = most;
  }

  get finished(): boolean {
    return this.steps >= this.#most;
  }

  async step(): Promise<void> {
    this.steps += 1;
  }
}

test('beside an answer that takes long, batch work takes a step every two seconds, and all of them after it', async () => {
  let now = 0;
  const done = new EventTarget();
  const person = new CountedLane(0, false, 100);
  const batch = new CountedLane(1, true, 50);
  const whenPersonEnded: number[] = [];
  const scheduler: StepScheduler<CountedLane> = new StepScheduler<CountedLane>(
    {
      now: () => now,
      onRound: () => {
        now += 100;
        if (person.finished && whenPersonEnded.length === 0) whenPersonEnded.push(batch.steps);
        if (scheduler.size === 0) done.dispatchEvent(new Event('done'));
      },
    },
    BOUNDS,
  );
  const finished = once(done, 'done');
  scheduler.add(batch);
  scheduler.add(person);
  await finished;
  assert.deepEqual(whenPersonEnded, [4]);
  assert.equal(batch.steps, 50);
});
