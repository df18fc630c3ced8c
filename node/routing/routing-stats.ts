/** What this node has seen of each backend: the figures behind `routing-stats` and behind the strategies. */

export interface BackendStats {
  readonly totalRequests: number;
  readonly successCount: number;
  readonly failureCount: number;
  /** Mean time to the first token of successful attempts, milliseconds; 0 before the first. */
  readonly avgLatencyMs: number;
  /** Attempts from selection to end, whatever the end. */
  readonly activeRequests: number;
}

interface Counters {
  total: number;
  success: number;
  failure: number;
  latencySumMs: number;
  active: number;
}

/** Ends the count of one attempt; the second call does nothing. */
export type EndAttempt = (outcome: 'success' | 'failure' | 'neutral', firstTokenMs: number | null) => void;

const NOTHING: BackendStats = {
  totalRequests: 0,
  successCount: 0,
  failureCount: 0,
  avgLatencyMs: 0,
  activeRequests: 0,
};

export class RoutingStats {
  readonly #byBackend = new Map<string, Counters>();

  /** Counts an attempt on `backendId` from its selection on. */
  begin(backendId: string): EndAttempt {
    const counters = this.#countersOf(backendId);
    counters.total += 1;
    counters.active += 1;
    let ended = false;
    return (outcome, firstTokenMs) => {
      if (ended) return;
      ended = true;
      counters.active -= 1;
      if (outcome === 'failure') counters.failure += 1;
      if (outcome === 'success') {
        counters.success += 1;
        counters.latencySumMs += firstTokenMs ?? 0;
      }
    };
  }

  of(backendId: string): BackendStats {
    const counters = this.#byBackend.get(backendId);
    if (counters === undefined) return NOTHING;
    return {
      totalRequests: counters.total,
      successCount: counters.success,
      failureCount: counters.failure,
      avgLatencyMs: counters.success === 0 ? 0 : counters.latencySumMs / counters.success,
      activeRequests: counters.active,
    };
  }

  #countersOf(backendId: string): Counters {
    let counters = this.#byBackend.get(backendId);
    if (counters === undefined) {
      counters = { total: 0, success: 0, failure: 0, latencySumMs: 0, active: 0 };
      this.#byBackend.set(backendId, counters);
    }
    return counters;
  }
}
