/** Takes a backend out of the choice after consecutive failures and lets one probe find out whether it is back. */
import type { Clock } from '../common/clock.ts';

export interface BreakerOptions {
  /** Consecutive failures that open the circuit. Default 3. */
  readonly failureThreshold: number;
  /** How long it stays open before a probe may pass, milliseconds. Default 60,000. */
  readonly resetTimeoutMs: number;
}

export const DEFAULT_BREAKER: BreakerOptions = { failureThreshold: 3, resetTimeoutMs: 60_000 };

/** The right to make one attempt. Exactly one of the three verdicts counts; later ones do nothing. */
export interface Permit {
  success(): void;
  failure(): void;
  /** The attempt said nothing about the backend: the client went away, the request was bad. */
  neutral(): void;
}

type State =
  | { readonly kind: 'closed'; readonly failures: number }
  | { readonly kind: 'open'; readonly until: number; readonly failures: number }
  | { readonly kind: 'half-open'; readonly failures: number };

export interface BreakerView {
  readonly open: boolean;
  readonly consecutiveFailures: number;
  /** Milliseconds until a probe may pass; 0 when an attempt is possible now. */
  readonly retryInMs: number;
}

/** One breaker. Success is the end of an answer, not its first token, so that a peer that dies midway does trip it. */
export class CircuitBreaker {
  readonly #clock: Clock;
  readonly #options: BreakerOptions;
  #state: State = { kind: 'closed', failures: 0 };
  /** Verdicts of attempts that began under an earlier state are stale and ignored. */
  #generation = 0;

  constructor(components: { clock: Clock }, options: BreakerOptions = DEFAULT_BREAKER) {
    this.#clock = components.clock;
    this.#options = options;
  }

  /** A permit, or null while the circuit is open or its one probe is under way. */
  acquire(): Permit | null {
    const state = this.#state;
    if (state.kind === 'half-open') return null;
    if (state.kind === 'open') {
      if (this.#clock.now() < state.until) return null;
      this.#enter({ kind: 'half-open', failures: state.failures });
    }
    return this.#permit(this.#generation);
  }

  view(): BreakerView {
    const state = this.#state;
    const retryInMs = state.kind === 'open' ? Math.max(0, state.until - this.#clock.now()) : 0;
    return { open: state.kind === 'open', consecutiveFailures: state.failures, retryInMs };
  }

  #permit(generation: number): Permit {
    let used = false;
    const once = (verdict: () => void) => () => {
      if (used || generation !== this.#generation) return;
      used = true;
      verdict();
    };
    return {
      success: once(() => this.#succeeded()),
      failure: once(() => this.#failed()),
      neutral: once(() => this.#gaveNoVerdict()),
    };
  }

  #succeeded(): void {
    if (this.#state.kind === 'closed') this.#state = { kind: 'closed', failures: 0 };
    else this.#enter({ kind: 'closed', failures: 0 });
  }

  #failed(): void {
    const failures = this.#state.failures + 1;
    if (this.#state.kind === 'closed' && failures < this.#options.failureThreshold) {
      this.#state = { kind: 'closed', failures };
      return;
    }
    this.#enter({ kind: 'open', until: this.#clock.now() + this.#options.resetTimeoutMs, failures });
  }

  /** A probe without a verdict gives the lease back: open again, and due at once. */
  #gaveNoVerdict(): void {
    if (this.#state.kind !== 'half-open') return;
    this.#enter({ kind: 'open', until: this.#clock.now(), failures: this.#state.failures });
  }

  #enter(state: State): void {
    this.#state = state;
    this.#generation += 1;
  }
}
