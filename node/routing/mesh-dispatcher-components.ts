/** What the dispatcher is made of. */
import type { Clock } from '../common/clock.ts';
import type { Logger } from '../common/logger.ts';
import type { Metrics } from '../common/metrics.ts';
import type { Breakers } from './breakers.ts';
import type { Candidate } from './candidate.ts';
import type { RequestLog } from './request-log.ts';
import type { RetryBudgetOptions } from './retry-budget.ts';
import type { RoutingStats } from './routing-stats.ts';
import type { SelectorHealth } from './selector.ts';
import type { RoutingSettings } from './settings.ts';

export interface MeshDispatcherComponents {
  readonly router: {
    /** Everyone who says that it serves the model. Reads memory only. */
    candidates(modelId: string): readonly Candidate[];
    /** Asks further away (the DHT), a bounded time long. */
    lookFurther(modelId: string, signal: AbortSignal): Promise<void>;
    /** The backend said that it does not serve this model after all. */
    forget(backendId: string, modelId: string): void;
    /** Did a peer that has the model fall silent so lately that it may be back at once? Default: nobody did. */
    isAwaited?(modelId: string): boolean;
  };
  readonly breakers: Breakers;
  readonly stats: RoutingStats;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Default: one of its own over `breakers`. */
  readonly health?: SelectorHealth;
  readonly settings?: RoutingSettings;
  /** Default: one of its own, which nobody reads. */
  readonly requestLog?: RequestLog;
  /** 0 to 1, for pauses that are not to be alike. Default `Math.random`. */
  readonly random?: () => number;
}

export interface MeshDispatcherOptions {
  /** From dispatch to the first token, queueing and loading included, milliseconds. Default 15 minutes. */
  readonly firstTokenTimeoutMs: number;
  /**
   * As that, for a stream from an HTTP server while there is somebody else to ask: such a server says nothing while it
   * queues, so that one that hangs looks like one that works. Milliseconds, default 60,000.
   */
  readonly silentRouteMs: number;
  /** An attempt that failed later than this is not repeated on the same route. Milliseconds, default 10,000. */
  readonly repeatWithinMs: number;
  readonly retryBudget: RetryBudgetOptions;
}
