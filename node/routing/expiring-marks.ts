/** Marks on backends that wear off by themselves. */
import type { Clock } from '../common/clock.ts';

/** Marks kept before those that are over are dropped. */
const KEPT = 1024;

export class ExpiringMarks {
  readonly #clock: Clock;
  readonly #until = new Map<string, number>();

  constructor(components: { clock: Clock }) {
    this.#clock = components.clock;
  }

  /** Marks `id` for `forMs` from now; a mark that lasts longer stays. */
  set(id: string, forMs: number): void {
    const now = this.#clock.now();
    if (this.#until.size >= KEPT) for (const [key, until] of this.#until) if (until <= now) this.#until.delete(key);
    this.#until.set(id, Math.max(now + forMs, this.#until.get(id) ?? 0));
  }

  /** Milliseconds that the mark still lasts; 0 without one. */
  remainingMs(id: string): number {
    if (this.#until.size === 0) return 0;
    return Math.max(0, (this.#until.get(id) ?? 0) - this.#clock.now());
  }

  has(id: string): boolean {
    return this.remainingMs(id) > 0;
  }

  delete(id: string): void {
    this.#until.delete(id);
  }
}
