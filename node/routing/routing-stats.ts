/** What this node has seen of each backend: the figures behind `routing-stats` and behind the strategies. */
import { type Clock, systemClock } from '../common/clock.ts';

export interface BackendStats {
  readonly totalRequests: number;
  readonly successCount: number;
  readonly failureCount: number;
  /** Mean time to the first token of successful attempts, milliseconds; 0 before the first. */
  readonly avgLatencyMs: number;
  /** Attempts from selection to end, whatever the end. */
  readonly activeRequests: number;
}

/** What strategies order one model at one backend by. */
export interface BackendFigures {
  readonly activeRequests: number;
  /** Place of the last attempt for this model in the order of all attempts; 0: never asked. */
  readonly lastAsked: number;
  /** Smoothed time to first token, milliseconds; null unmeasured. */
  readonly firstTokenMs: number | null;
  /** Failures that still weigh on the backend; each wears off in `PENALTY_MS`. */
  readonly penalty: number;
}

/** Ends the count of one attempt; the second call does nothing. */
export type EndAttempt = (outcome: 'success' | 'failure' | 'neutral', firstTokenMs: number | null) => void;

interface ModelFigures {
  lastAsked: number;
  firstTokenMs: number | null;
}

interface Counters {
  total: number;
  success: number;
  failure: number;
  /** Successes whose time to the first token is in the sum. */
  timed: number;
  latencySumMs: number;
  active: number;
  penalty: number;
  penaltyAt: number;
  readonly models: Map<string, ModelFigures>;
}

const NOTHING: BackendStats = {
  totalRequests: 0,
  successCount: 0,
  failureCount: 0,
  avgLatencyMs: 0,
  activeRequests: 0,
};
const NEVER_ASKED: ModelFigures = { lastAsked: 0, firstTokenMs: null };
const NO_FIGURES: BackendFigures = { activeRequests: 0, lastAsked: 0, firstTokenMs: null, penalty: 0 };

/** How long one failure weighs on its backend, milliseconds. */
export const PENALTY_MS = 2000;
/** Failures that weigh at once: more would keep a backend out for longer than its breaker looks. */
const MOST_PENALTY = 4;
/** Weight of the newest time in the smoothed one. */
const NEWEST_WEIGHT = 0.3;
/** Backends, and models of each, that are remembered; the one counted first is forgotten first. */
const KEPT = 1024;

export class RoutingStats {
  readonly #clock: Clock;
  readonly #byBackend = new Map<string, Counters>();
  #asked = 0;

  constructor(components: { clock: Clock } = { clock: systemClock }) {
    this.#clock = components.clock;
  }

  /** Counts an attempt on `backendId` from its selection on. */
  begin(backendId: string, modelId = ''): EndAttempt {
    const counters = this.#countersOf(backendId);
    counters.total += 1;
    counters.active += 1;
    figuresOf(counters, modelId).lastAsked = ++this.#asked;
    let ended = false;
    return (outcome, firstTokenMs) => {
      if (ended) return;
      ended = true;
      counters.active -= 1;
      if (outcome === 'failure') this.#failed(counters);
      if (outcome === 'success') {
        counters.success += 1;
        counters.timed += firstTokenMs === null ? 0 : 1;
        counters.latencySumMs += firstTokenMs ?? 0;
      }
    };
  }

  /** A first token came, `afterMs` after its attempt began. */
  firstToken(backendId: string, modelId: string, afterMs: number): void {
    const figures = figuresOf(this.#countersOf(backendId), modelId);
    const before = figures.firstTokenMs ?? afterMs;
    figures.firstTokenMs = before + NEWEST_WEIGHT * (afterMs - before);
  }

  of(backendId: string): BackendStats {
    const counters = this.#byBackend.get(backendId);
    if (counters === undefined) return NOTHING;
    return {
      totalRequests: counters.total,
      successCount: counters.success,
      failureCount: counters.failure,
      avgLatencyMs: counters.timed === 0 ? 0 : counters.latencySumMs / counters.timed,
      activeRequests: counters.active,
    };
  }

  figures(backendId: string, modelId: string): BackendFigures {
    const counters = this.#byBackend.get(backendId);
    if (counters === undefined) return NO_FIGURES;
    const { lastAsked, firstTokenMs } = counters.models.get(modelId) ?? NEVER_ASKED;
    const penalty = counters.penalty === 0 ? 0 : this.#penalty(counters);
    return { activeRequests: counters.active, lastAsked, firstTokenMs, penalty };
  }

  #failed(counters: Counters): void {
    counters.failure += 1;
    counters.penalty = Math.min(MOST_PENALTY, this.#penalty(counters) + 1);
    counters.penaltyAt = this.#clock.now();
  }

  #penalty({ penalty, penaltyAt }: Counters): number {
    return Math.max(0, penalty - (this.#clock.now() - penaltyAt) / PENALTY_MS);
  }

  #countersOf(backendId: string): Counters {
    let counters = this.#byBackend.get(backendId);
    if (counters === undefined) {
      if (this.#byBackend.size >= KEPT) this.#forgetOldest();
      counters = {
        total: 0,
        success: 0,
        failure: 0,
        timed: 0,
        latencySumMs: 0,
        active: 0,
        penalty: 0,
        penaltyAt: 0,
        models: new Map(),
      };
      this.#byBackend.set(backendId, counters);
    }
    return counters;
  }

  #forgetOldest(): void {
    for (const [backendId, { active }] of this.#byBackend) {
      if (active > 0) continue;
      this.#byBackend.delete(backendId);
      return;
    }
  }
}

function figuresOf({ models }: Counters, modelId: string): ModelFigures {
  let figures = models.get(modelId);
  if (figures === undefined) {
    const oldest = models.size >= KEPT ? models.keys().next().value : undefined;
    if (oldest !== undefined) models.delete(oldest);
    figures = { lastAsked: 0, firstTokenMs: null };
    models.set(modelId, figures);
  }
  return figures;
}
