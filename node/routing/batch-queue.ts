/** The lines of one model of one batch: which is next, which waits for another try. No I/O but the store's. */
import type { BatchStore, PendingLine } from '../storage/batch-store.ts';

/** Lines that are read from the store at a time. */
const WINDOW = 64;

interface Later {
  readonly line: PendingLine;
  readonly dueAt: number;
}

export class BatchQueue {
  readonly model: string;
  /** Since when nobody has the model; null while somebody does. */
  absentSince: number | null = null;
  readonly #store: Pick<BatchStore, 'pending'>;
  readonly #batch: number;
  #ready: PendingLine[] = [];
  #later: Later[] = [];
  /** The last line that was read. */
  #cursor = 0;
  #isRead = false;
  #isDropped = false;

  constructor(components: { readonly store: Pick<BatchStore, 'pending'> }, options: { batch: number; model: string }) {
    this.#store = components.store;
    this.#batch = options.batch;
    this.model = options.model;
  }

  /** Every line was taken, and none waits. */
  isEmpty(now: number): boolean {
    return this.#later.length === 0 && this.#next(now) === undefined;
  }

  /** Is there a line that may be asked now? */
  hasDue(now: number): boolean {
    return this.#next(now) !== undefined;
  }

  /** The next line that may be asked now, which the queue then forgets. */
  take(now: number): PendingLine | null {
    if (this.#next(now) === undefined) return null;
    return this.#ready.shift() ?? null;
  }

  /** Forgets all of its lines, those too that were not read yet. */
  drop(): void {
    this.#ready = [];
    this.#later = [];
    this.#isRead = true;
    this.#isDropped = true;
  }

  /** The line is to be asked again, at `dueAt`. */
  again(line: PendingLine, dueAt: number): void {
    if (!this.#isDropped) this.#later.push({ line, dueAt });
  }

  #next(now: number): PendingLine | undefined {
    if (this.#later.some(({ dueAt }) => dueAt <= now)) {
      this.#ready.push(...this.#later.filter(({ dueAt }) => dueAt <= now).map(({ line }) => line));
      this.#later = this.#later.filter(({ dueAt }) => dueAt > now);
    }
    if (this.#ready.length === 0 && !this.#isRead) {
      this.#ready = this.#store.pending(this.#batch, this.model, { after: this.#cursor, limit: WINDOW });
      this.#cursor = this.#ready.at(-1)?.line ?? this.#cursor;
      this.#isRead = this.#ready.length < WINDOW;
    }
    return this.#ready[0];
  }
}
