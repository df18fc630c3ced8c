/** How many requests a second one caller may make: FIRST's throttle. */
import type { Clock } from '../../common/clock.ts';

export interface ThrottleOptions {
  /** Requests a second of one caller, of which one second's worth may come at once; 0: no limit. */
  readonly requestsPerSecond: number;
}

interface Bucket {
  tokens: number;
  at: number;
}

/** Callers that are remembered; the one that was seen first is forgotten, and begins anew. */
const MAX_CALLERS = 10_000;

/** A token bucket for each caller. */
export class Throttle {
  readonly #clock: Clock;
  readonly #perSecond: number;
  readonly #buckets = new Map<string, Bucket>();

  constructor({ clock }: { readonly clock: Clock }, { requestsPerSecond }: ThrottleOptions) {
    this.#clock = clock;
    this.#perSecond = requestsPerSecond;
  }

  /** Takes one request of the caller; 0 when it may pass, else milliseconds until the next may. */
  take(caller: string): number {
    if (this.#perSecond === 0) return 0;
    const now = this.#clock.now();
    const bucket = this.#buckets.get(caller) ?? { tokens: this.#perSecond, at: now };
    bucket.tokens = Math.min(this.#perSecond, bucket.tokens + ((now - bucket.at) / 1000) * this.#perSecond);
    bucket.at = now;
    this.#buckets.set(caller, bucket);
    const oldest = this.#buckets.size > MAX_CALLERS ? this.#buckets.keys().next().value : undefined;
    if (oldest !== undefined) this.#buckets.delete(oldest);
    if (bucket.tokens < 1) return ((1 - bucket.tokens) / this.#perSecond) * 1000;
    bucket.tokens -= 1;
    return 0;
  }
}
