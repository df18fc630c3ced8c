import type { CancelTimer, Clock } from '../../node/common/clock.ts';

interface Timer {
  at: number;
  readonly periodMs: number | null;
  readonly callback: () => void;
}

/** A clock that moves only when told to. Timers fire in order of their time while it advances. */
export class ManualClock implements Clock {
  #now = 0;
  readonly #timers = new Set<Timer>();

  now(): number {
    return this.#now;
  }

  after(delayMs: number, callback: () => void): CancelTimer {
    return this.#add({ at: this.#now + delayMs, periodMs: null, callback });
  }

  every(periodMs: number, callback: () => void): CancelTimer {
    return this.#add({ at: this.#now + periodMs, periodMs, callback });
  }

  /** Moves time on by `ms`, firing what falls due. */
  advance(ms: number): void {
    const end = this.#now + ms;
    for (let next = this.#earliest(end); next !== null; next = this.#earliest(end)) {
      this.#now = Math.max(this.#now, next.at);
      if (next.periodMs === null) this.#timers.delete(next);
      else next.at += next.periodMs;
      next.callback();
    }
    this.#now = end;
  }

  #earliest(until: number): Timer | null {
    let earliest: Timer | null = null;
    for (const timer of this.#timers) {
      if (timer.at <= until && (earliest === null || timer.at < earliest.at)) earliest = timer;
    }
    return earliest;
  }

  #add(timer: Timer): CancelTimer {
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }
}
