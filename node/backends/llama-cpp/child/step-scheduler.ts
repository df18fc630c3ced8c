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
  /** Nobody waits for it: it takes a step when nobody else would, and now and then. Absent: somebody waits. */
  readonly isBatch?: boolean;
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
  /** Most prompt tokens of batch work in a round, where the machine is fast: whoever comes waits for the round's end. */
  readonly yieldingPrefillTokens: number;
}

/**
 * How long batch work has stood still, while others ran. `due`: it takes one step beside those that generate, so that its own signs of life
 * stay true; `overdue`: beside prompts too.
 */
export type BatchRest = 'short' | 'due' | 'overdue';

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
export function planRound<L extends Lane>(
  lanes: Iterable<L>,
  bounds: RoundBounds,
  batchRest: BatchRest = 'short',
): Slice<L>[] {
  const stepping = withoutYielding([...lanes], batchRest);
  const round: Slice<L>[] = [];
  const prompts: L[] = [];
  for (const lane of stepping) {
    if (lane.pendingTokens <= 1) round.push({ lane, tokens: 1 });
    else prompts.push(lane);
  }
  const isBatchWork = stepping.some((lane) => lane.isBatch === true);
  let left = Math.min(
    bounds.batchTokens - round.length,
    round.length > 0 ? bounds.busyPrefillTokens : bounds.batchTokens,
    isBatchWork ? bounds.yieldingPrefillTokens : bounds.batchTokens,
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

function withoutYielding<L extends Lane>(lanes: readonly L[], batchRest: BatchRest): readonly L[] {
  const awaited = lanes.filter((lane) => lane.isBatch !== true);
  if (awaited.length === 0 || batchRest === 'overdue') return lanes;
  const allGenerate = awaited.every(({ pendingTokens }) => pendingTokens <= 1);
  return batchRest === 'due' && allGenerate ? lanes : awaited;
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

/** Batch work that stands still for so long takes a step, milliseconds. */
const BATCH_DUE_MS = 2000;
const BATCH_OVERDUE_MS = 20_000;
/** So long a round of batch work should take at most, milliseconds: how many prompt tokens that is, is measured. */
const BATCH_ROUND_MS = 20;
const FEWEST_BATCH_TOKENS = 4;
/** Before anything is measured. */
const FIRST_BATCH_TOKENS = 8;
/** Weight of the newest round. */
const NEWEST = 0.2;

export class StepScheduler<L extends SteppedLane> {
  readonly #now: () => number;
  /** Milliseconds for each token of a round of batch work, smoothed; null unmeasured. */
  #batchTokenMs: number | null = null;
  /** When batch work last took a step, or had none to take. */
  #batchSteppedAt = 0;
  readonly #bounds: RoundBounds;
  readonly #onRound: (stepped: readonly L[]) => void;
  readonly #lanes = new Set<L>();
  #running = false;

  /** `onRound` is called after each round with the lanes that took part, and may look at what they produced. */
  constructor(
    components: {
      onRound: (stepped: readonly L[]) => void;
      /** Milliseconds, monotonic. Default: the system's. */
      now?: () => number;
    },
    bounds: RoundBounds,
  ) {
    this.#onRound = components.onRound;
    this.#now = components.now ?? (() => performance.now());
    this.#bounds = bounds;
  }

  get size(): number {
    return this.#lanes.size;
  }

  /** Is there work that somebody waits for? */
  get isAwaited(): boolean {
    for (const lane of this.#lanes) if (lane.isBatch !== true) return true;
    return false;
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
      const startedAt = this.#now();
      const round = planRound(this.#lanes, this.#boundsNow(), this.#batchRest());
      if (round.some(({ lane }) => lane.isBatch === true)) this.#batchSteppedAt = this.#now();
      // All in one tick, in this order: that makes them one batch.
      await Promise.all(round.map(({ lane, tokens }) => lane.step(tokens)));
      this.#measure(round, this.#now() - startedAt);
      for (const { lane } of round) if (lane.finished) this.#lanes.delete(lane);
      this.#onRound(round.map(({ lane }) => lane));
      // Lets cancels and new requests in.
      await nextTurn();
    }
    this.#running = false;
  }

  #boundsNow(): RoundBounds {
    const perToken = this.#batchTokenMs;
    const fitting = perToken === null ? FIRST_BATCH_TOKENS : Math.floor(BATCH_ROUND_MS / Math.max(perToken, 0.01));
    const most = this.#bounds.yieldingPrefillTokens;
    return { ...this.#bounds, yieldingPrefillTokens: Math.min(most, Math.max(FEWEST_BATCH_TOKENS, fitting)) };
  }

  /** Only of rounds that read a prompt for batch work and nothing else. */
  #measure(round: readonly Slice<L>[], elapsedMs: number): void {
    const tokens = round.reduce((sum, slice) => sum + slice.tokens, 0);
    if (tokens < FEWEST_BATCH_TOKENS || round.some(({ lane }) => lane.isBatch !== true)) return;
    const before = this.#batchTokenMs ?? elapsedMs / tokens;
    this.#batchTokenMs = before + NEWEST * (elapsedMs / tokens - before);
  }

  #batchRest(): BatchRest {
    const now = this.#now();
    if (![...this.#lanes].some((lane) => lane.isBatch === true)) this.#batchSteppedAt = now;
    const restedMs = now - this.#batchSteppedAt;
    return restedMs < BATCH_DUE_MS ? 'short' : restedMs < BATCH_OVERDUE_MS ? 'due' : 'overdue';
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
