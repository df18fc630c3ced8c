/** What a failed line of a batch leads to. Pure. */
import { ERROR_TABLE, type ErrorCode, type MeshError } from '../common/errors.ts';

/** `final`: the error file. `again`: asked once more, `afterMs` from now; a try, if it `counts`. */
export type LineVerdict =
  | { readonly kind: 'final' }
  | { readonly kind: 'again'; readonly afterMs: number; readonly counts: boolean };

/** Failures of one line, after which it is given up. */
export const MOST_TRIES = 5;

const SOONEST_MS = 250;
const LATEST_MS = 30_000;
const FIRST_PAUSE_MS = 500;

/** Nobody has failed: there was no room, or nobody to ask, just then. */
const BUSY: ReadonlySet<ErrorCode> = new Set([
  'overloaded',
  'rate_limited',
  'draining',
  'all_circuits_open',
  'model_not_available',
  'model_not_loaded',
  'model_starting',
  'cannot_resume',
  'client_closed',
]);

/** `tries`: failures before this one. */
export function verdictOf({ code, facts }: MeshError, tries: number): LineVerdict {
  if (BUSY.has(code)) {
    const afterMs = Math.min(Math.max(facts.retryAfterMs ?? SOONEST_MS, SOONEST_MS), LATEST_MS);
    return { kind: 'again', afterMs, counts: false };
  }
  const { elsewhere, breaker } = ERROR_TABLE[code];
  const mayPass = elsewhere || breaker === 'failure' || code === 'internal_error';
  if (!mayPass || tries + 1 >= MOST_TRIES) return { kind: 'final' };
  return { kind: 'again', afterMs: Math.min(FIRST_PAUSE_MS * 2 ** tries, LATEST_MS), counts: true };
}
