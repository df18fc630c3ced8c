import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import {
  type Lane,
  planRound,
  type RoundBounds,
  type SteppedLane,
  StepScheduler,
} from '../../../node/backends/llama-cpp/child/step-scheduler.ts';
import fc from '../../support/fc.ts';

const BOUNDS: RoundBounds = {
  sliceTokens: 128,
  lastSliceTokens: 128,
  busyPrefillTokens: 256,
  batchTokens: 512,
  yieldingPrefillTokens: 16,
};

const lane = (sequenceId: number, pendingTokens: number, arrival = sequenceId): Lane => ({
  sequenceId,
  pendingTokens,
  arrival,
});
const shown = (round: readonly { lane: Lane; tokens: number }[]): (readonly [number, number])[] =>
  round.map((slice) => [slice.lane.sequenceId, slice.tokens] as const);

test('a round takes every generating lane in ascending order of sequence ids', () => {
  assert.deepEqual(shown(planRound([lane(3, 1), lane(0, 1), lane(2, 1)], BOUNDS)), [
    [0, 1],
    [2, 1],
    [3, 1],
  ]);
});

test('prompts join a round in slices, the oldest first, within the budget that others leave them', () => {
  const lanes = [lane(0, 400, 3), lane(1, 1, 0), lane(2, 400, 1), lane(3, 400, 2)];
  assert.deepEqual(shown(planRound(lanes, BOUNDS)), [
    [1, 1],
    [2, 128],
    [3, 128],
  ]);
});

test('prompts alone use the whole batch', () => {
  const lanes = [0, 1, 2, 3, 4].map((id) => lane(id, 1_000));
  assert.deepEqual(shown(planRound(lanes, BOUNDS)), [
    [0, 128],
    [1, 128],
    [2, 128],
    [3, 128],
  ]);
});

test('a short prompt is taken in whole beside long ones, which take little of that round', () => {
  const lanes = [0, 1, 2, 3, 4].map((id) => lane(id, 5_000));
  assert.deepEqual(shown(planRound([...lanes, lane(5, 16)], BOUNDS)), [
    [0, 32],
    [1, 32],
    [2, 32],
    [3, 32],
    [4, 32],
    [5, 16],
  ]);
  assert.deepEqual(shown(planRound([...lanes, lane(5, 16), lane(6, 1)], BOUNDS)).slice(-2), [
    [5, 16],
    [6, 1],
  ]);
});

test('a prompt that ends takes its slice whole, whoever is older', () => {
  assert.deepEqual(shown(planRound([lane(0, 100), lane(1, 1_000)], BOUNDS)), [
    [0, 100],
    [1, 32],
  ]);
  assert.deepEqual(shown(planRound([lane(0, 1_000), lane(1, 100), lane(2, 90)], BOUNDS)), [
    [0, 32],
    [1, 100],
    [2, 90],
  ]);
});

const LEAST_PROGRESS = BOUNDS.sliceTokens / 4;

test('no prompt starves: however many short ones come, the oldest goes on in every round', () => {
  const crowd = fc.array(fc.array(fc.integer({ min: 1, max: 600 }), { maxLength: 12 }), { maxLength: 200 });
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 3_000 }), crowd, (prompt, comers) => {
      const long = { sequenceId: 0, pendingTokens: prompt, arrival: 0 };
      let waiting = [long];
      let rounds = 0;
      for (let arrival = 1; long.pendingTokens > 1; rounds += 1) {
        for (const pendingTokens of comers[rounds] ?? []) {
          if (waiting.length < 64) waiting.push({ sequenceId: arrival, pendingTokens, arrival: arrival++ });
        }
        for (const { lane: one, tokens } of planRound(waiting, BOUNDS)) one.pendingTokens -= tokens;
        waiting = waiting.filter(({ pendingTokens }) => pendingTokens > 0);
        if (!waiting.includes(long)) break;
      }
      assert.ok(rounds <= Math.ceil(prompt / LEAST_PROGRESS), `${rounds} rounds for ${prompt} tokens`);
    }),
  );
});

test('any round is ascending, fits one decode and leaves no generating lane out', () => {
  const lanes = fc.uniqueArray(
    fc.record({ sequenceId: fc.nat(63), pendingTokens: fc.integer({ min: 1, max: 5_000 }), arrival: fc.nat() }),
    { selector: ({ sequenceId }) => sequenceId },
  );
  fc.assert(
    fc.property(lanes, (all) => {
      const round = planRound(all, BOUNDS);
      const ids = round.map((slice) => slice.lane.sequenceId);
      assert.deepEqual(
        ids,
        ids.toSorted((a, b) => a - b),
      );
      assert.ok(round.reduce((sum, { tokens }) => sum + tokens, 0) <= BOUNDS.batchTokens);
      const generating = all.filter(({ pendingTokens }) => pendingTokens === 1);
      assert.ok(generating.every((one) => round.some((slice) => slice.lane === one && slice.tokens === 1)));
      assert.ok(all.length === 0 || round.length > 0, 'something moves');
    }),
  );
});

/** A lane that needs `prompt` tokens evaluated and then generates `answer` tokens, noting each step. */
class NotedLane implements SteppedLane {
  readonly sequenceId: number;
  readonly arrival: number;
  pendingTokens: number;
  cancelled = false;
  steps = 0;
  #left: number;
  readonly #log: string[];

  constructor(sequenceId: number, log: string[], prompt: number, answer: number) {
    this.sequenceId = sequenceId;
    this.arrival = sequenceId;
    this.pendingTokens = prompt;
    this.#left = answer;
    this.#log = log;
  }

  get finished(): boolean {
    return this.cancelled || this.#left === 0;
  }

  async step(tokens: number): Promise<void> {
    this.#log.push(`${this.sequenceId}:${tokens}`);
    this.steps += 1;
    await Promise.resolve();
    this.pendingTokens -= tokens;
    if (this.pendingTokens > 0) return;
    this.pendingTokens = 1;
    this.#left -= 1;
  }
}

/** Runs the lanes to their end; one string a round. `onRound` may meddle. */
async function rounds(
  make: (log: string[]) => NotedLane[],
  onRound: (round: number) => void = () => {},
): Promise<string[]> {
  const log: string[] = [];
  const seen: string[] = [];
  const done = new EventTarget();
  const lanes = make(log);
  const scheduler = new StepScheduler<NotedLane>(
    {
      onRound: () => {
        if (log.length > 0) seen.push(log.splice(0).join(' '));
        onRound(seen.length);
        if (scheduler.size === 0) done.dispatchEvent(new Event('done'));
      },
    },
    BOUNDS,
  );
  const finished = once(done, 'done');
  for (const one of lanes) scheduler.add(one);
  await finished;
  return seen;
}

test('lanes step together, one decode a round, whatever the order in which they came', async () => {
  const seen = await rounds((log) => [3, 1, 0, 2].map((id) => new NotedLane(id, log, 1, 2)));
  assert.deepEqual(seen, ['0:1 1:1 2:1 3:1', '0:1 1:1 2:1 3:1']);
});

test('a long prompt is taken in beside a stream that goes on in every round', async () => {
  const seen = await rounds((log) => [new NotedLane(1, log, 300, 1), new NotedLane(0, log, 1, 4)]);
  assert.deepEqual(seen, ['0:1 1:128', '0:1 1:128', '0:1 1:44', '0:1']);
});

test('a cancelled lane takes no further step, and the others lose no round', async () => {
  let lanes: NotedLane[] = [];
  const seen = await rounds(
    (log) => {
      lanes = [new NotedLane(0, log, 1, 100), new NotedLane(1, log, 1, 4)];
      return lanes;
    },
    (round) => {
      const [first] = lanes;
      if (round === 2 && first !== undefined) first.cancelled = true;
    },
  );
  assert.deepEqual(seen, ['0:1 1:1', '0:1 1:1', '1:1', '1:1']);
});

test('a prompt of no more than a last slice is taken whole, a longer one in ordinary slices', () => {
  const bounds = { ...BOUNDS, sliceTokens: 64 };
  const lane = (sequenceId: number, pendingTokens: number) => ({ sequenceId, pendingTokens, arrival: sequenceId });
  const tokensOf = (...pending: number[]): number[] =>
    planRound(
      pending.map((tokens, id) => lane(id, tokens)),
      bounds,
    ).map(({ tokens }) => tokens);
  assert.deepEqual(tokensOf(128), [128]);
  assert.deepEqual(tokensOf(129), [64]);
  assert.deepEqual(tokensOf(480, 100), [16, 100]);
});
