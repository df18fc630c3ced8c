/** What lines of batches came to, on its way to the store: many in one transaction. */
import type { CancelTimer, Clock } from '../common/clock.ts';
import type { Logger } from '../common/logger.ts';
import type { BatchStore, LineOutcome } from '../storage/batch-store.ts';

export interface BatchOutcomesComponents {
  readonly store: Pick<BatchStore, 'finish'>;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Kept in one transaction. */
const KEPT_AT_ONCE = 32;
const RETRY_MS = 1000;

export class BatchOutcomes {
  readonly #components: BatchOutcomesComponents;
  readonly #keepMs: number;
  #waiting: LineOutcome[] = [];
  #isStuck = false;
  #cancelKeep: CancelTimer | null = null;

  /** `keepMs`: they are kept this late at most, milliseconds. */
  constructor(components: BatchOutcomesComponents, { keepMs }: { readonly keepMs: number }) {
    this.#components = components;
    this.#keepMs = keepMs;
  }

  /** The store took none the last time: what is asked now would only wait here. */
  get isStuck(): boolean {
    return this.#isStuck;
  }

  add(outcome: LineOutcome): void {
    this.#waiting.push(outcome);
    if (this.#waiting.length >= KEPT_AT_ONCE && !this.#isStuck) this.keep();
    else this.#cancelKeep ??= this.#components.clock.after(this.#keepMs, () => this.keep());
  }

  /** Keeps all of them now. Those that the store does not take stay, and are tried again. Never throws. */
  keep(): void {
    const { store, clock, logger } = this.#components;
    this.#cancelKeep?.();
    this.#cancelKeep = null;
    if (this.#waiting.length === 0) return;
    try {
      store.finish(this.#waiting);
      this.#waiting = [];
      this.#isStuck = false;
    } catch (err) {
      if (!this.#isStuck) logger.error({ err }, 'answers of a batch could not be kept: they are tried again');
      this.#isStuck = true;
      this.#cancelKeep = clock.after(RETRY_MS, () => this.keep());
    }
  }

  /** Keeps what can be kept, once; nothing is tried after it. */
  close(): void {
    this.keep();
    this.#cancelKeep?.();
    this.#cancelKeep = null;
  }
}
