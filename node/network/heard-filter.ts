/** Which of the peers heard by mDNS are worth a dial. Anybody on the LAN can forge answers, as many as the wire carries. */
import type { HeardPeer } from './multicast.ts';

export interface HeardFilterLimits {
  /** Heard peers that were never connected. */
  readonly unknown: number;
  /** New ones a second, and how many at once. */
  readonly newPerSecond: number;
  readonly burst: number;
  /** A peer not heard for this long is forgotten. */
  readonly ttlMs: number;
}

const DEFAULT_LIMITS: HeardFilterLimits = { unknown: 256, newPerSecond: 10, burst: 32, ttlMs: 120_000 };
/** Fingerprints heard while the bucket was empty. */
const MAX_WAITING = 4096;
/** An honest node answers every query; a flood of ever new names does not repeat itself. */
const REPEAT_MS = 1000;

/**
 * Admits few new peers a second. Under a flood the bucket is empty; then those get a bucket of their own that are heard
 * again a second later, so that an honest newcomer is found all the same.
 */
export class HeardFilter {
  readonly #limits: HeardFilterLimits;
  readonly #unknown = new Map<string, number>();
  readonly #waiting = new Map<string, number>();
  readonly #first: TokenBucket;
  readonly #repeated: TokenBucket;

  constructor(limits: Partial<HeardFilterLimits> = {}) {
    this.#limits = { ...DEFAULT_LIMITS, ...limits };
    this.#first = new TokenBucket(this.#limits.newPerSecond, this.#limits.burst);
    this.#repeated = new TokenBucket(this.#limits.newPerSecond, this.#limits.burst);
  }

  /** Peers admitted that were never connected. */
  get size(): number {
    return this.#unknown.size;
  }

  /** May this peer be dialled? `trusted`: it is, or was, connected. */
  admit({ fingerprint }: HeardPeer, trusted: boolean, now: number): boolean {
    if (trusted) {
      this.release(fingerprint);
      return true;
    }
    if (this.#unknown.has(fingerprint)) {
      this.#unknown.delete(fingerprint);
      this.#unknown.set(fingerprint, now);
      return true;
    }
    this.#expire(now);
    if (this.#unknown.size >= this.#limits.unknown || !this.#take(fingerprint, now)) return false;
    this.#waiting.delete(fingerprint);
    this.#unknown.set(fingerprint, now);
    return true;
  }

  /** It could not be reached, or it is connected: its place is free. */
  release(fingerprint: string): void {
    this.#unknown.delete(fingerprint);
    this.#waiting.delete(fingerprint);
  }

  #take(fingerprint: string, now: number): boolean {
    if (this.#first.take(now)) return true;
    const since = this.#waiting.get(fingerprint);
    if (since !== undefined) return now - since >= REPEAT_MS && this.#repeated.take(now);
    this.#waiting.set(fingerprint, now);
    const oldest = this.#waiting.size > MAX_WAITING ? this.#waiting.keys().next().value : undefined;
    if (oldest !== undefined) this.#waiting.delete(oldest);
    return false;
  }

  /** Entries are in the order in which they were last heard. */
  #expire(now: number): void {
    for (const [fingerprint, heardAt] of this.#unknown) {
      if (now - heardAt <= this.#limits.ttlMs) return;
      this.#unknown.delete(fingerprint);
    }
  }
}

class TokenBucket {
  readonly #perSecond: number;
  readonly #burst: number;
  #tokens: number;
  #at = 0;

  constructor(perSecond: number, burst: number) {
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#tokens = burst;
  }

  take(now: number): boolean {
    this.#tokens = Math.min(this.#burst, this.#tokens + ((now - this.#at) / 1000) * this.#perSecond);
    this.#at = now;
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}
