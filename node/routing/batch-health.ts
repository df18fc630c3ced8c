/** The health of backends as batch work sees it: that a peer has no room for batch work says nothing to those who are waited for. */
import type { Clock } from '../common/clock.ts';
import { ExpiringMarks } from './expiring-marks.ts';
import type { SelectorHealth } from './selector.ts';

const DEFAULT_PAUSE_MS = 500;
const MOST_PAUSE_MS = 10_000;

/** The same verdicts but for one: a peer that is `overloaded` is left alone by batch work only. */
export function batchHealth(health: SelectorHealth, clock: Clock): SelectorHealth {
  const busy = new ExpiringMarks({ clock });
  return {
    isUnauthorized: (id) => health.isUnauthorized(id),
    obstacle(id, model) {
      const obstacle = health.obstacle(id, model);
      if (obstacle !== null) return obstacle;
      const retryInMs = busy.remainingMs(id);
      return retryInMs > 0 ? { kind: 'cooling_off', retryInMs } : null;
    },
    acquire(target) {
      const permit = health.acquire(target);
      if (permit === null || target.kind !== 'peer') return permit;
      return {
        ...permit,
        failed(error) {
          if (error.code !== 'overloaded') return permit.failed(error);
          busy.set(target.id, Math.min(error.facts.retryAfterMs ?? DEFAULT_PAUSE_MS, MOST_PAUSE_MS));
          permit.released();
          return false;
        },
      };
    },
  };
}
