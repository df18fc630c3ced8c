/** Tokens that were used in the present minute, by endpoint and by caller. Source: FIRST's tokens-per-minute limits. */
import type { Clock } from '../common/clock.ts';

/** One limit that is reached. */
export interface Exhausted {
  /** `tpm_model`: by all callers together; `tpm_user`: by this one. */
  readonly limit: 'tpm_model' | 'tpm_user';
  readonly limitTokens: number;
  readonly usedTokens: number;
  /** Milliseconds until the next window begins. */
  readonly retryAfterMs: number;
}

/** 0: no limit. */
export interface TokenLimits {
  readonly slug: string;
  readonly tpmModel: number;
  readonly tpmUser: number;
}

const WINDOW_MS = 60_000;
/** Callers and endpoints that are counted in one window; those past it are counted together. */
const MAX_COUNTED = 10_000;
const OTHERS = '';

/** Fixed windows of a minute. Checked before a request, counted after it: the last one of a window may go past the limit. */
export class FederatedUsage {
  readonly #clock: Clock;
  #windowStart = Number.NEGATIVE_INFINITY;
  readonly #used = new Map<string, number>();

  constructor({ clock }: { readonly clock: Clock }) {
    this.#clock = clock;
  }

  /** The limit of this endpoint that is reached, if any. Without a caller only that of all callers is looked at. */
  exhausted({ slug, tpmModel, tpmUser }: TokenLimits, caller: string | null): Exhausted | null {
    this.#roll();
    const retryAfterMs = this.#windowStart + WINDOW_MS - this.#clock.now();
    const all = this.#read(slug);
    if (tpmModel > 0 && all >= tpmModel) {
      return { limit: 'tpm_model', limitTokens: tpmModel, usedTokens: all, retryAfterMs };
    }
    if (caller === null || tpmUser <= 0) return null;
    const own = this.#read(ofCaller(slug, caller));
    if (own < tpmUser) return null;
    return { limit: 'tpm_user', limitTokens: tpmUser, usedTokens: own, retryAfterMs };
  }

  /** Counts tokens for the endpoint. */
  count(slug: string, tokens: number): void {
    this.#add(slug, tokens);
  }

  /** Counts tokens for one caller of the endpoint. */
  countFor(slug: string, caller: string, tokens: number): void {
    this.#add(ofCaller(slug, caller), tokens);
  }

  #roll(): void {
    const now = this.#clock.now();
    if (now - this.#windowStart < WINDOW_MS) return;
    this.#windowStart = now;
    this.#used.clear();
  }

  #read(key: string): number {
    const used = this.#used.get(key);
    return used ?? (this.#used.size < MAX_COUNTED ? 0 : (this.#used.get(OTHERS) ?? 0));
  }

  #add(key: string, tokens: number): void {
    this.#roll();
    const counted = this.#used.has(key) || this.#used.size < MAX_COUNTED ? key : OTHERS;
    this.#used.set(counted, (this.#used.get(counted) ?? 0) + tokens);
  }
}

/** Slugs have no blanks. */
const ofCaller = (slug: string, caller: string): string => `${slug} ${caller}`;
