/** One bound for a wait that is repeated for every frame: costs a clock reading, not a timer, each time. */
import { type CancelTimer, type Clock, graceMs } from '../node/common/clock.ts';

/**
 * A signal that aborts when a wait lasted too long (once a second later, after a pause of our own), when the parent
 * aborts, or when told to. Dispose it when done.
 */
export class Watchdog implements Disposable {
  readonly #clock: Clock;
  readonly #controller = new AbortController();
  readonly #parent: AbortSignal | undefined;
  readonly #onParent = (): void => this.abort(this.#parent?.reason);
  #dueAt: number | null = null;
  #boundMs = 0;
  /** The present wait was prolonged already. */
  #isGrace = false;
  #reason: (() => Error) | null = null;
  #timerAt = Number.POSITIVE_INFINITY;
  #cancel: CancelTimer = () => {};

  constructor(clock: Clock, parent?: AbortSignal) {
    this.#clock = clock;
    this.#parent = parent;
    if (parent?.aborted === true) this.#onParent();
    else parent?.addEventListener('abort', this.#onParent, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** From now on there are `boundMs`, until the next `arm` or `disarm`. */
  arm(boundMs: number, reason: () => Error): void {
    this.#dueAt = this.#clock.now() + boundMs;
    this.#boundMs = boundMs;
    this.#isGrace = false;
    this.#reason = reason;
    if (this.#dueAt < this.#timerAt) this.#schedule(this.#dueAt, boundMs);
  }

  /** No bound now: somebody else is to act. */
  disarm(): void {
    this.#dueAt = null;
  }

  abort(reason: unknown): void {
    this.#controller.abort(reason);
  }

  [Symbol.dispose](): void {
    this.#cancel();
    this.#dueAt = null;
    this.#parent?.removeEventListener('abort', this.#onParent);
  }

  #schedule(at: number, delayMs: number): void {
    this.#cancel();
    this.#timerAt = at;
    this.#cancel = this.#clock.after(delayMs, () => this.#onTimer());
  }

  #onTimer(): void {
    const timerAt = this.#timerAt;
    this.#timerAt = Number.POSITIVE_INFINITY;
    if (this.#dueAt === null) return;
    if (!this.#isGrace) this.#prolong(timerAt);
    const leftMs = this.#dueAt - this.#clock.now();
    if (leftMs <= 0) this.abort(this.#reason?.());
    else this.#schedule(this.#dueAt, leftMs);
  }

  /** The timer that was due at `timerAt` fired. */
  #prolong(timerAt: number): void {
    const now = this.#clock.now();
    const more = graceMs(this.#clock, timerAt, this.#boundMs);
    if (this.#dueAt === null || more === 0 || this.#dueAt > now + more) return;
    this.#dueAt = now + more;
    this.#isGrace = true;
  }
}
