/** Time as the node sees it: one monotonic clock, injected everywhere, so that tests can move it by hand. */

/** Cancels a pending timer; calling it twice, or after the timer fired, does nothing. */
export type CancelTimer = () => void;

/** A monotonic clock with timers. All times are milliseconds. */
export interface Clock {
  /** Milliseconds since an arbitrary origin; never goes backwards. */
  now(): number;
  /** Runs `callback` once after `delayMs`. The timer does not keep the process alive. */
  after(delayMs: number, callback: () => void): CancelTimer;
  /** Runs `callback` every `periodMs` until cancelled. The timer does not keep the process alive. */
  every(periodMs: number, callback: () => void): CancelTimer;
}

/** The clock of the running system. */
export const systemClock: Clock = {
  now: () => performance.now(),
  after(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    timer.unref();
    return () => clearTimeout(timer);
  },
  every(periodMs, callback) {
    const timer = setInterval(callback, periodMs);
    timer.unref();
    return () => clearInterval(timer);
  },
};

/**
 * Resolves after `delayMs` on `clock`.
 *
 * @throws the signal's reason when it aborts first.
 */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted === true) {
      reject(signal.reason as Error);
      return;
    }
    const onAbort = (): void => {
      cancel();
      reject(signal?.reason as Error);
    };
    const cancel = clock.after(delayMs, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/** A timer that fires so much later than it was due, ms, shows that this process stood still or was starved. */
const OWN_PAUSE_MS = 500;
/** What came meanwhile is read within this time, ms. */
const GRACE_MS = 1000;

/**
 * How much longer to wait for what was due at `dueAt` with a bound of `boundMs`; 0 when it is really late. After a pause
 * of our own, timers fire before what others sent meanwhile is read, and their silence means nothing.
 */
export function graceMs(clock: Clock, dueAt: number, boundMs: number): number {
  return clock.now() - dueAt > OWN_PAUSE_MS ? Math.min(boundMs, GRACE_MS) : 0;
}

/** A signal with a deadline that can be moved, for waits that are repeated many times (one timer, not one per wait). */
export interface Deadline extends Disposable {
  readonly signal: AbortSignal;
  /** Starts the bound again: the signal aborts `boundMs` from now. */
  refresh(boundMs: number): void;
}

/**
 * A signal that aborts with `reason()` after `boundMs` (once a second later, after a pause of our own), or with the
 * parent's reason when `parent` aborts first.
 * Dispose it when the wait is over; after that it never aborts.
 */
export function deadline(clock: Clock, boundMs: number, reason: () => Error, parent?: AbortSignal): Deadline {
  const controller = new AbortController();
  let cancel: CancelTimer = () => {};
  const arm = (ms: number, isGrace: boolean): void => {
    const dueAt = clock.now() + ms;
    cancel = clock.after(ms, () => {
      const more = isGrace ? 0 : graceMs(clock, dueAt, ms);
      if (more > 0) arm(more, true);
      else controller.abort(reason());
    });
  };
  const refresh = (ms: number): void => {
    cancel();
    arm(ms, false);
  };
  const onParent = (): void => controller.abort(parent?.reason);
  if (parent?.aborted === true) {
    onParent();
  } else {
    parent?.addEventListener('abort', onParent, { once: true });
    refresh(boundMs);
  }
  return {
    signal: controller.signal,
    refresh,
    [Symbol.dispose]() {
      cancel();
      parent?.removeEventListener('abort', onParent);
    },
  };
}

/**
 * Waits for `work`, but no longer than the signal lives. The work itself goes on; its late result or error is dropped.
 *
 * @throws the signal's reason when it aborts first, else what `work` rejects with.
 */
export function abortable<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
