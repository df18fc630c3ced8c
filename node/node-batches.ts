/** Batch work, put together: a dispatcher of its own, whose requests yield to all others. */
import { batchAnswer } from './api/batch-answer.ts';
import type { Clock } from './common/clock.ts';
import type { Logger } from './common/logger.ts';
import type { Metrics } from './common/metrics.ts';
import type { Admission } from './routing/admission.ts';
import type { BackendHealth } from './routing/backend-health.ts';
import { batchHealth } from './routing/batch-health.ts';
import { BatchRoom } from './routing/batch-room.ts';
import { BatchService } from './routing/batch-service.ts';
import type { Breakers } from './routing/breakers.ts';
import { DEFAULT_DISPATCH, MeshDispatcher } from './routing/mesh-dispatcher.ts';
import { RequestLog } from './routing/request-log.ts';
import type { Router } from './routing/router.ts';
import type { RoutingStats } from './routing/routing-stats.ts';
import type { ServiceState } from './routing/service-state.ts';
import type { RoutingSettings } from './routing/settings.ts';

export interface BatchParts {
  readonly router: Router;
  readonly breakers: Breakers;
  readonly health: BackendHealth;
  readonly stats: RoutingStats;
  readonly settings: RoutingSettings;
  readonly admission: Admission;
  readonly state: ServiceState;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly warn: (message: string) => void;
}

/** A line stands still for as long as people need its machine. */
const FIRST_TOKEN_TIMEOUT_MS = 6 * 3_600_000;

/** To be started after what the router asks; stopped before it. */
export function openBatches(parts: BatchParts, { dataDir }: { readonly dataDir: string }): BatchService {
  const { router, breakers, stats, settings, admission, state, metrics, clock, logger, warn } = parts;
  const health = batchHealth(parts.health, clock);
  const used = (model: string): number => admission.used(model);
  const chainOf = (name: string): readonly string[] => settings.aliases?.().chainOf(name) ?? [name];
  const room = new BatchRoom({ router, health, used, chainOf, clock });
  // Its own retries and records: those of people are not to be used up.
  const requestLog = new RequestLog({ clock });
  const dispatcher = new MeshDispatcher(
    { router: room, breakers, health, stats, settings, requestLog, metrics, clock, logger },
    { ...DEFAULT_DISPATCH, firstTokenTimeoutMs: FIRST_TOKEN_TIMEOUT_MS },
  );
  const isOpen = (): boolean => state.mode !== 'draining';
  const service = new BatchService({ dispatcher, room, answer: batchAnswer, isOpen, clock, logger, warn }, { dataDir });
  metrics.gauge('meshnode_batch_lines_running', 'Lines of batches that are being asked.', () => service.running);
  return service;
}
