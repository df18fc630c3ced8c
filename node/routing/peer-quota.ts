/** How much each of those who ask may take: requests at once, and tokens a minute. */
import type { Clock } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';

export interface QuotaLimits {
  /** Requests at once, waiting ones included; null: no limit. */
  readonly inFlight: number | null;
  /** Prompt and generated tokens together; null: no limit. */
  readonly tokensPerMinute: number | null;
}

/** For a peer of whom nothing else was said. */
export const DEFAULT_PEER_QUOTA: QuotaLimits = { inFlight: 64, tokensPerMinute: null };

/** A request that was let in. */
export interface QuotaLease {
  /** Counts tokens as they come. May overdraw: what runs is not cut, the next request waits instead. */
  spend(tokens: number): void;
  /** The request is over. Idempotent. */
  leave(): void;
}

/** What one holder has used. The bucket holds a minute's tokens, and is full at first. */
interface Account {
  inFlight: number;
  /** Below zero while overdrawn. */
  tokens: number;
  filledAt: number;
  tokensPerMinute: number | null;
}

const MINUTE_MS = 60_000;
const IN_FLIGHT_RETRY_MS = 1000;
/** A little less, for sums of fractions come out so. */
const ONE_TOKEN = 1 - 1e-6;
/** Accounts that owe nothing are dropped once there are this many. */
const SWEEP_ABOVE = 1024;

/** One account for each holder: a peer's fingerprint, or `key:<id>`. */
export class PeerQuota {
  readonly #clock: Clock;
  readonly #accounts = new Map<string, Account>();

  constructor({ clock }: { readonly clock: Clock }) {
    this.#clock = clock;
  }

  /**
   * Lets a request in. Limits may differ from call to call: the latest count.
   *
   * @throws MeshError `overloaded` for too many at once, `rate_limited` for an empty bucket, both with `retryAfterMs`;
   *   nothing is booked then.
   */
  enter(holder: string, limits: QuotaLimits): QuotaLease {
    const account = this.#account(holder, limits.tokensPerMinute);
    if (limits.inFlight !== null && account.inFlight >= limits.inFlight) {
      throw new MeshError('overloaded', `Only ${limits.inFlight} requests at once are allowed here`, {
        retryAfterMs: IN_FLIGHT_RETRY_MS,
      });
    }
    const waitMs = untilOneToken(account);
    if (waitMs > 0) {
      const message = `Only ${limits.tokensPerMinute} tokens a minute are allowed here`;
      throw new MeshError('rate_limited', message, { retryAfterMs: waitMs });
    }
    account.inFlight += 1;
    let left = false;
    return {
      spend: (tokens) => {
        this.#refill(account);
        account.tokens -= tokens;
      },
      leave: () => {
        if (left) return;
        left = true;
        account.inFlight -= 1;
        if (account.inFlight === 0 && isIdle(account)) this.#accounts.delete(holder);
      },
    };
  }

  #account(holder: string, tokensPerMinute: number | null): Account {
    const known = this.#accounts.get(holder);
    if (known !== undefined) {
      this.#refill(known);
      // A raised limit does not forgive what is owed; a lowered one does not leave more than it allows.
      if (tokensPerMinute !== known.tokensPerMinute) {
        if (known.tokensPerMinute === null) known.tokens = tokensPerMinute ?? 0;
        known.tokensPerMinute = tokensPerMinute;
        known.tokens = Math.min(known.tokens, tokensPerMinute ?? 0);
      }
      return known;
    }
    if (this.#accounts.size >= SWEEP_ABOVE) this.#sweep();
    const account = { inFlight: 0, tokens: tokensPerMinute ?? 0, filledAt: this.#clock.now(), tokensPerMinute };
    this.#accounts.set(holder, account);
    return account;
  }

  #refill(account: Account): void {
    const now = this.#clock.now();
    const { tokensPerMinute, tokens, filledAt } = account;
    account.filledAt = now;
    if (tokensPerMinute === null) account.tokens = 0;
    else account.tokens = Math.min(tokensPerMinute, tokens + ((now - filledAt) * tokensPerMinute) / MINUTE_MS);
  }

  #sweep(): void {
    for (const [holder, account] of this.#accounts) {
      this.#refill(account);
      if (account.inFlight === 0 && isIdle(account)) this.#accounts.delete(holder);
    }
  }
}

/** An account that a fresh one would equal. */
function isIdle({ tokens, tokensPerMinute }: Account): boolean {
  return tokensPerMinute === null || tokens >= tokensPerMinute;
}

/** Milliseconds, rounded up, until the bucket holds a token; 0 when it does. */
function untilOneToken({ tokens, tokensPerMinute }: Account): number {
  if (tokensPerMinute === null || tokens >= ONE_TOKEN) return 0;
  return Math.ceil(((ONE_TOKEN - tokens) * MINUTE_MS) / tokensPerMinute);
}
