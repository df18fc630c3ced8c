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

/** A signal with a deadline that can be moved, for waits that are repeated many times (one timer, not one per wait). */
export interface Deadline extends Disposable {
  readonly signal: AbortSignal;
  /** Starts the bound again: the signal aborts `boundMs` from now. */
  refresh(boundMs: number): void;
}

/**
 * A signal that aborts with `reason()` after `boundMs`, or with the parent's reason when `parent` aborts first.
 * Dispose it when the wait is over; after that it never aborts.
 */
export function deadline(clock: Clock, boundMs: number, reason: () => Error, parent?: AbortSignal): Deadline {
  const controller = new AbortController();
  let cancel: CancelTimer = () => {};
  const refresh = (ms: number): void => {
    cancel();
    cancel = clock.after(ms, () => controller.abort(reason()));
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
