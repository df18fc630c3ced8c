/** So many requests within so long, all kinds together: a service's limit kept on this side. */
import type { CancelTimer, Clock } from '../../common/clock.ts';

export interface RequestBudgetOptions {
  readonly requests: number;
  readonly windowMs: number;
}

/** The service documents 20 in 10 s; the half second more is for requests that travel at different speeds. */
export const GLOBUS_BUDGET: RequestBudgetOptions = { requests: 20, windowMs: 10_500 };

interface Waiting {
  /** Who is due first goes first. */
  readonly dueAt: number;
  go(): void;
}

export class RequestBudget {
  readonly #clock: Clock;
  readonly #options: RequestBudgetOptions;
  /** When the last requests were allowed, oldest first. */
  #allowed: number[] = [];
  #waiting: Waiting[] = [];
  #pausedUntil = Number.NEGATIVE_INFINITY;
  #cancel: CancelTimer | null = null;

  constructor({ clock }: { readonly clock: Clock }, options: RequestBudgetOptions = GLOBUS_BUDGET) {
    this.#clock = clock;
    this.#options = options;
  }

  /**
   * Resolves when one request may be sent. `patienceMs`: how much later than others it may go; none starves, for who
   * has waited long is due before who just came.
   *
   * @throws the signal's reason when it aborts first.
   */
  take(patienceMs: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      signal.throwIfAborted();
      const onAbort = (): void => {
        this.#waiting = this.#waiting.filter((each) => each !== waiting);
        reject(signal.reason as Error);
      };
      const waiting: Waiting = {
        dueAt: this.#clock.now() + patienceMs,
        go: () => {
          signal.removeEventListener('abort', onAbort);
          resolve();
        },
      };
      signal.addEventListener('abort', onAbort, { once: true });
      const at = this.#waiting.findIndex((each) => each.dueAt > waiting.dueAt);
      this.#waiting.splice(at === -1 ? this.#waiting.length : at, 0, waiting);
      this.#run();
    });
  }

  /** Nothing is sent for so long: the service said that it was too much. */
  pause(durationMs: number): void {
    this.#pausedUntil = Math.max(this.#pausedUntil, this.#clock.now() + durationMs);
  }

  #run(): void {
    const { requests, windowMs } = this.#options;
    for (;;) {
      const now = this.#clock.now();
      this.#allowed = this.#allowed.filter((at) => at > now - windowMs);
      const [next] = this.#waiting;
      if (next === undefined) return;
      const oldest = this.#allowed.length < requests ? undefined : this.#allowed[0];
      const freeAt = Math.max(this.#pausedUntil, oldest === undefined ? now : oldest + windowMs);
      if (freeAt > now) {
        this.#wakeIn(freeAt - now);
        return;
      }
      this.#waiting.shift();
      this.#allowed.push(now);
      next.go();
    }
  }

  #wakeIn(delayMs: number): void {
    this.#cancel?.();
    this.#cancel = this.#clock.after(delayMs, () => {
      this.#cancel = null;
      this.#run();
    });
  }
}
