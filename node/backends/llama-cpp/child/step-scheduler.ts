/**
 * Drives all running requests in rounds, one decode per round.
 *
 * Why not one loop per request: llama.cpp packs only consecutive ascending sequence ids into one batch, and requests
 * that come a moment late make a batch of their own. Left to themselves, sixteen streams reach half the speed.
 */

/** A request on a sequence, as far as the order of steps is concerned. */
export interface Lane {
  readonly sequenceId: number;
  /** Tokens to evaluate before the next one can be sampled: 1 as soon as the prompt is in. */
  readonly pendingTokens: number;
  /** Grows with each request: the oldest prompt goes on in every round, and of equally long ones the older is first. */
  readonly arrival: number;
}

export interface RoundBounds {
  /** Most prompt tokens of one request in a round: what the others wait for at most. */
  readonly sliceTokens: number;
  /** A prompt with no more than these left is taken in whole: one that is sent with others then begins with them. */
  readonly lastSliceTokens: number;
  /** Most prompt tokens in a round in which others are generating. */
  readonly busyPrefillTokens: number;
  /** Most tokens in a round. */
  readonly batchTokens: number;
}

export interface Slice<L> {
  readonly lane: L;
  readonly tokens: number;
}

/** The part of a slice that is left to prompts which do not end in a round, beside one that does. */
const YIELDED_PART = 1 / 4;

/**
 * What the next round evaluates, in ascending order of sequence ids. Requests that generate are always in it. Prompts
 * share what is left: the oldest first, so that each gets its turn, then the shortest, which have little to wait for but
 * the round itself. That one is kept short for them: beside a prompt that ends in it, the others take small slices.
 */
export function planRound<L extends Lane>(lanes: Iterable<L>, bounds: RoundBounds): Slice<L>[] {
  const round: Slice<L>[] = [];
  const prompts: L[] = [];
  for (const lane of lanes) {
    if (lane.pendingTokens <= 1) round.push({ lane, tokens: 1 });
    else prompts.push(lane);
  }
  let left = Math.min(
    bounds.batchTokens - round.length,
    round.length > 0 ? bounds.busyPrefillTokens : bounds.batchTokens,
  );
  const ends = ({ pendingTokens }: L): boolean => pendingTokens <= bounds.lastSliceTokens;
  const sliceTokens = prompts.some(ends) ? Math.ceil(bounds.sliceTokens * YIELDED_PART) : bounds.sliceTokens;
  for (const lane of oldestThenShortest(prompts)) {
    const tokens = Math.min(lane.pendingTokens, ends(lane) ? bounds.lastSliceTokens : sliceTokens, left);
    if (tokens <= 0) break;
    round.push({ lane, tokens });
    left -= tokens;
  }
  return round.toSorted((a, b) => a.lane.sequenceId - b.lane.sequenceId);
}

function oldestThenShortest<L extends Lane>(prompts: readonly L[]): L[] {
  const [oldest, ...others] = prompts.toSorted((a, b) => a.arrival - b.arrival);
  if (oldest === undefined) return [];
  return [oldest, ...others.toSorted((a, b) => a.pendingTokens - b.pendingTokens)];
}

export interface SteppedLane extends Lane {
  /** Generated, cancelled or failed: takes no further step. */
  readonly finished: boolean;
  /** Evaluates its next `tokens`. Queues its work before it first yields, and never rejects. */
  step(tokens: number): Promise<void>;
}

export class StepScheduler<L extends SteppedLane> {
  readonly #bounds: RoundBounds;
  readonly #onRound: (stepped: readonly L[]) => void;
  readonly #lanes = new Set<L>();
  #running = false;

  /** `onRound` is called after each round with the lanes that took part, and may look at what they produced. */
  constructor(components: { onRound: (stepped: readonly L[]) => void }, bounds: RoundBounds) {
    this.#onRound = components.onRound;
    this.#bounds = bounds;
  }

  get size(): number {
    return this.#lanes.size;
  }

  /** The lane takes part from the next round on. */
  add(lane: L): void {
    this.#lanes.add(lane);
    if (this.#running) return;
    this.#running = true;
    void this.#run();
  }

  async #run(): Promise<void> {
    // Two turns, so that the channel is read once in between: requests sent together begin in one batch.
    await nextTurn();
    await nextTurn();
    while (this.#lanes.size > 0) {
      this.#sweep();
      const round = planRound(this.#lanes, this.#bounds);
      // All in one tick, in this order: that makes them one batch.
      await Promise.all(round.map(({ lane, tokens }) => lane.step(tokens)));
      for (const { lane } of round) if (lane.finished) this.#lanes.delete(lane);
      this.#onRound(round.map(({ lane }) => lane));
      // Lets cancels and new requests in.
      await nextTurn();
    }
    this.#running = false;
  }

  /** Cancelled lanes leave without taking up room in a round. */
  #sweep(): void {
    const gone = [...this.#lanes].filter((lane) => lane.finished);
    for (const lane of gone) this.#lanes.delete(lane);
    if (gone.length > 0) this.#onRound(gone);
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
