/** One budget of retries for all requests together, so that a broad failure is not answered by twice the load. */
import type { Clock } from '../common/clock.ts';

export interface RetryBudgetOptions {
  /** Retries for each request of the window. Default 0.2. */
  readonly ratio: number;
  /**
   * Retries in the window that are always free. Default 64: what one dying node was running and queueing can all go on
   * elsewhere, while a mesh that fails as a whole does not get its load twice.
   */
  readonly floor: number;
  /** Milliseconds. Default 10,000. */
  readonly windowMs: number;
}

export const DEFAULT_RETRY_BUDGET: RetryBudgetOptions = { ratio: 0.2, floor: 64, windowMs: 10_000 };

/** Parts of the window that age together. */
const PARTS = 10;

interface Part {
  readonly startedAt: number;
  requests: number;
  retries: number;
}

export class RetryBudget {
  readonly #clock: Clock;
  readonly #options: RetryBudgetOptions;
  #parts: Part[] = [];

  constructor(components: { clock: Clock }, options: RetryBudgetOptions = DEFAULT_RETRY_BUDGET) {
    this.#clock = components.clock;
    this.#options = options;
  }

  /** A client's request came. */
  request(): void {
    this.#now().requests += 1;
  }

  /** Takes one retry out of the budget; false when none is left. */
  take(): boolean {
    const now = this.#now();
    let [requests, retries] = [0, 0];
    for (const part of this.#parts) {
      requests += part.requests;
      retries += part.retries;
    }
    if (retries + 1 > this.#options.floor + this.#options.ratio * requests) return false;
    now.retries += 1;
    return true;
  }

  /** The part of the window that is running, after those that are over were dropped. */
  #now(): Part {
    const now = this.#clock.now();
    const { windowMs } = this.#options;
    const last = this.#parts.at(-1);
    if (last !== undefined && now - last.startedAt < windowMs / PARTS) return last;
    this.#parts = this.#parts.filter((part) => now - part.startedAt < windowMs);
    const part = { startedAt: now, requests: 0, retries: 0 };
    this.#parts.push(part);
    return part;
  }
}
