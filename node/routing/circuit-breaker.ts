/** Takes a backend out of the choice after consecutive failures and lets one probe find out whether it is back. */
import type { Clock } from '../common/clock.ts';

export interface BreakerOptions {
  /** Consecutive failures that open the circuit, each of an attempt begun after the one before. Default 3. */
  readonly failureThreshold: number;
  /** How long it stays open before a probe may pass, milliseconds. Default 60,000. */
  readonly resetTimeoutMs: number;
  /** A probe that gave no verdict for so long is given up, milliseconds. Default 30 minutes, past any honest answer. */
  readonly probeLeaseMs: number;
}

export const DEFAULT_BREAKER: BreakerOptions = {
  failureThreshold: 3,
  resetTimeoutMs: 60_000,
  probeLeaseMs: 1_800_000,
};

/** The right to make one attempt. Exactly one of the three verdicts counts; later ones do nothing. */
export interface Permit {
  success(): void;
  failure(): void;
  /** The attempt said nothing about the backend: the client went away, the request was bad. */
  neutral(): void;
}

type State =
  | { readonly kind: 'closed'; readonly failures: number }
  /** `reopened`: by a probe that failed, not by the threshold. */
  | { readonly kind: 'open'; readonly failures: number; readonly until: number; readonly reopened: boolean }
  | { readonly kind: 'half-open'; readonly failures: number; readonly leaseUntil: number };

export interface BreakerView {
  readonly state: State['kind'];
  readonly open: boolean;
  readonly consecutiveFailures: number;
  /** Milliseconds until a probe may pass; 0 when an attempt is possible now, or as soon as the probe is over. */
  readonly retryInMs: number;
}

/** One breaker. Success is the end of an answer, not its first token, so that a peer that dies midway does trip it. */
export class CircuitBreaker {
  readonly #clock: Clock;
  readonly #options: BreakerOptions;
  #state: State = { kind: 'closed', failures: 0 };
  /** Verdicts of attempts that began under an earlier state are stale and ignored. */
  #generation = 0;
  /** Failures counted so far, to tell whether an attempt began after the last one. */
  #counted = 0;
  /** When the failures that led to the present state were counted; no more than the threshold. */
  #countedAt: readonly number[] = [];

  constructor(components: { clock: Clock }, options: BreakerOptions = DEFAULT_BREAKER) {
    this.#clock = components.clock;
    this.#options = options;
  }

  /** Would `acquire` give a permit now? Changes nothing. */
  admits(): boolean {
    const state = this.#state;
    if (state.kind === 'closed') return true;
    return this.#clock.now() >= (state.kind === 'open' ? state.until : state.leaseUntil);
  }

  /** A permit, or null while the circuit is open or its one probe is under way. */
  acquire(): Permit | null {
    if (!this.admits()) return null;
    if (this.#state.kind !== 'closed') {
      const leaseUntil = this.#clock.now() + this.#options.probeLeaseMs;
      this.#enter({ kind: 'half-open', failures: this.#state.failures, leaseUntil });
    }
    return this.#permit(this.#generation);
  }

  view(): BreakerView {
    const state = this.#state;
    const retryInMs = state.kind === 'open' ? Math.max(0, state.until - this.#clock.now()) : 0;
    return { state: state.kind, open: state.kind === 'open', consecutiveFailures: state.failures, retryInMs };
  }

  /** Nothing to remember: closed without a failure. */
  isIdle(): boolean {
    return this.#state.kind === 'closed' && this.#state.failures === 0;
  }

  /**
   * Takes back the failures counted since `since`: they turned out to be this host's own. A circuit that they opened
   * closes; one that a probe found broken stays open.
   */
  forgive(since: number): void {
    const state = this.#state;
    const kept = this.#countedAt.filter((at) => at < since);
    if (kept.length === this.#countedAt.length || state.kind === 'half-open') return;
    if (state.kind === 'open' && state.reopened) return;
    const failures = state.failures - (this.#countedAt.length - kept.length);
    this.#countedAt = kept;
    if (state.kind === 'open') this.#enter({ kind: 'closed', failures });
    else this.#state = { kind: 'closed', failures };
  }

  /** The backend was away and shows that it is back: no reason to wait any longer, but its next failure opens it again. */
  returned(): void {
    if (this.#state.kind !== 'open') return;
    this.#countedAt = [];
    this.#enter({ kind: 'closed', failures: this.#options.failureThreshold - 1 });
  }

  #permit(generation: number): Permit {
    let used = false;
    const begun = this.#counted;
    const once = (verdict: () => void) => () => {
      if (used || generation !== this.#generation) return;
      used = true;
      verdict();
    };
    return {
      success: once(() => this.#succeeded()),
      // Attempts that were under way together and end together saw one failure, not many: only the first counts.
      failure: once(() => {
        if (begun === this.#counted) this.#failed();
      }),
      neutral: once(() => this.#gaveNoVerdict()),
    };
  }

  #succeeded(): void {
    this.#countedAt = [];
    if (this.#state.kind === 'closed') this.#state = { kind: 'closed', failures: 0 };
    else this.#enter({ kind: 'closed', failures: 0 });
  }

  #failed(): void {
    this.#counted += 1;
    const { failureThreshold, resetTimeoutMs } = this.#options;
    const now = this.#clock.now();
    const failures = this.#state.failures + 1;
    const reopened = this.#state.kind !== 'closed';
    this.#countedAt = [...this.#countedAt, now].slice(-failureThreshold);
    if (!reopened && failures < failureThreshold) this.#state = { kind: 'closed', failures };
    else this.#enter({ kind: 'open', failures, until: now + resetTimeoutMs, reopened });
  }

  /** A probe without a verdict gives the lease back: open again, and due at once. */
  #gaveNoVerdict(): void {
    if (this.#state.kind !== 'half-open') return;
    const { failures } = this.#state;
    this.#enter({ kind: 'open', failures, until: this.#clock.now(), reopened: true });
  }

  #enter(state: State): void {
    this.#state = state;
    this.#generation += 1;
  }
}
