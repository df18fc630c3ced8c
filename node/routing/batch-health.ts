/** The health of backends as batch work sees it: what makes batch work wait says nothing to those who are waited for. */
import type { Clock } from '../common/clock.ts';
import { ExpiringMarks } from './expiring-marks.ts';
import type { SelectorHealth } from './selector.ts';

const DEFAULT_PAUSE_MS = 500;
const MOST_PAUSE_MS = 10_000;
/** Of a model that a cluster starts, or could not start: its lines would all ask at once otherwise, and again. */
const STARTING_PAUSE_MS = 30_000;

/** The same verdicts but for two: a peer that is `overloaded` and a model that starts are left alone, by batch work only. */
export function batchHealth(health: SelectorHealth, clock: Clock): SelectorHealth {
  const busy = new ExpiringMarks({ clock });
  const starting = new ExpiringMarks({ clock });
  const startOf = (id: string, model: string): string => `${id} ${model}`;
  return {
    isUnauthorized: (id) => health.isUnauthorized(id),
    obstacle(id, model) {
      const obstacle = health.obstacle(id, model);
      if (obstacle !== null) return obstacle;
      const retryInMs = Math.max(busy.remainingMs(id), starting.remainingMs(startOf(id, model)));
      return retryInMs > 0 ? { kind: 'cooling_off', retryInMs } : null;
    },
    acquire(target) {
      const permit = health.acquire(target);
      if (permit === null) return null;
      const { id, kind, model } = target;
      return {
        ...permit,
        failed(error) {
          if (error.code === 'model_starting') {
            const pauseMs = Math.min(error.facts.retryAfterMs ?? STARTING_PAUSE_MS, STARTING_PAUSE_MS);
            starting.set(startOf(id, model), pauseMs);
          }
          if (kind !== 'peer' || error.code !== 'overloaded') return permit.failed(error);
          busy.set(id, Math.min(error.facts.retryAfterMs ?? DEFAULT_PAUSE_MS, MOST_PAUSE_MS));
          permit.released();
          return false;
        },
      };
    },
  };
}
