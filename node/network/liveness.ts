/** Is a peer alive? Decided from when its heartbeats came, from how regular they were, and from how regular we are. */

/** What the silence of a peer means now. */
export type Verdict = 'alive' | 'suspect' | 'dead';

export interface LivenessThresholds {
  /** Silence after which a peer is the last choice, ms. */
  readonly suspectMs: number;
  /** Silence after which it counts as gone, ms. */
  readonly deadMs: number;
}

/** Heartbeats are sent this often, ms. */
const HEARTBEAT_MS = 500;
const BASE: LivenessThresholds = { suspectMs: 1200, deadMs: 2000 };
/** Worst case of the scaling: a peer this irregular is still declared dead some time. */
const MOST: LivenessThresholds = { suspectMs: 6000, deadMs: 12_000 };
/** Jitter below which the thresholds stay as they are. */
const CALM_JITTER_MS = 100;
/** A minute of heartbeats: enough for a p99 that one outlier does not decide. */
const SAMPLES = 128;
/** Own lag that is ordinary: garbage collection, a busy moment. */
const CALM_LAG_MS = 200;
/** How long own lag counts against our judgement of others. */
const LAG_MEMORY_MS = 5000;

/** The thresholds for a measured jitter (p99 of how much later than due heartbeats came, ms). */
export function thresholdsFor(jitterMs: number): LivenessThresholds {
  const excess = Math.max(0, jitterMs - CALM_JITTER_MS);
  return {
    suspectMs: Math.min(MOST.suspectMs, BASE.suspectMs + 1.5 * excess),
    deadMs: Math.min(MOST.deadMs, BASE.deadMs + 3 * excess),
  };
}

/** Watches one peer. All times come from the caller's monotonic clock. */
export class FailureDetector {
  #lastAt: number;
  readonly #latenessMs: number[] = [];
  #next = 0;
  #thresholds: LivenessThresholds = BASE;

  /** Watching begins at `now`, as if a heartbeat had just come. */
  constructor(now: number) {
    this.#lastAt = now;
  }

  get thresholds(): LivenessThresholds {
    return this.#thresholds;
  }

  /** A heartbeat came. The silence of a peer that was dead says nothing about its jitter and is not counted. */
  heartbeat(now: number): void {
    const gap = now - this.#lastAt;
    this.#lastAt = Math.max(this.#lastAt, now);
    if (gap >= this.#thresholds.deadMs) return;
    this.#latenessMs[this.#next] = Math.max(0, gap - HEARTBEAT_MS);
    this.#next = (this.#next + 1) % SAMPLES;
    this.#thresholds = thresholdsFor(percentile99(this.#latenessMs));
  }

  /** `ownLagMs`: how much our own event loop lagged recently; it is taken off the peer's silence. */
  verdict(now: number, ownLagMs: number): Verdict {
    const stretch = ownLagMs > CALM_LAG_MS ? ownLagMs : 0;
    const silence = now - this.#lastAt - stretch;
    if (silence >= this.#thresholds.deadMs) return 'dead';
    return silence >= this.#thresholds.suspectMs ? 'suspect' : 'alive';
  }
}

/** Of fewer than 100 samples the second largest, so that one outlier never decides alone. */
function percentile99(samples: readonly number[]): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.min(sorted.length - 2, Math.floor(sorted.length * 0.99)))] ?? 0;
}

/** How late our own timer runs: a node that was stopped or starved must not blame its peers. */
export class LoopLag {
  readonly #periodMs: number;
  #lastTickAt: number;
  #worstMs = 0;
  #worstAt: number;

  /** `periodMs`: how often `tick` is due. */
  constructor(now: number, periodMs: number) {
    this.#lastTickAt = now;
    this.#worstAt = now;
    this.#periodMs = periodMs;
  }

  /** The timer fired. */
  tick(now: number): void {
    const lag = Math.max(0, now - this.#lastTickAt - this.#periodMs);
    this.#lastTickAt = now;
    if (lag >= this.recentMs(now)) {
      this.#worstMs = lag;
      this.#worstAt = now;
    }
  }

  /** The worst lag of the last 5 s, ms. */
  recentMs(now: number): number {
    return now - this.#worstAt > LAG_MEMORY_MS ? 0 : this.#worstMs;
  }
}
