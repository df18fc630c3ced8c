/** How long a route may be silent, and whether the only one that there is is tried once more. */
import type { BackendKind } from '../backends/backend.ts';
import { type Clock, sleep } from '../common/clock.ts';
import type { ErrorCode, MeshError } from '../common/errors.ts';
import type { Candidate } from './candidate.ts';
import type { MeshDispatcherOptions } from './mesh-dispatcher-components.ts';
import type { Run } from './run.ts';

/** An attempt that failed, and what else there was. */
export interface FailedRoute {
  readonly kind: BackendKind;
  readonly failure: MeshError;
  /** From its selection to its failure, milliseconds. */
  readonly tookMs: number;
  /** Who failed later failed by its silence, and would again. */
  readonly repeatWithinMs: number;
  /** Backends that this request asked for the model so far. */
  readonly asked: number;
  /** Backends that have the model and were not asked. */
  readonly others: number;
  /** 0 to 1. */
  readonly random: number;
}

/** A longer `Retry-After` is for the client to wait, or for another model to answer meanwhile. */
const LONGEST_PAUSE_MS = 5000;
const PAUSE_MS = 100;
const JITTER_MS = 200;
/** After a 429 that does not say for how long. */
const BUSY_PAUSE_MS = 1000;
const BUSY_JITTER_MS = 500;

const TRANSIENT: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['upstream_error', 'peer_unreachable', 'rate_limited']);

/**
 * Milliseconds after which it is asked once more; null: not at all. Pure. Only HTTP servers are, and only those without an
 * alternative: behind one there are often many, of which one failed.
 */
export function sameRoutePauseMs(route: FailedRoute): number | null {
  const { kind, failure, asked, others, random } = route;
  if (kind !== 'http' || asked !== 1 || others > 0) return null;
  const { code, facts } = failure;
  if (!TRANSIENT.has(code) || route.tookMs > route.repeatWithinMs) return null;
  const isBusy = code === 'rate_limited';
  const pauseMs = facts.retryAfterMs ?? (isBusy ? BUSY_PAUSE_MS : PAUSE_MS);
  return pauseMs <= LONGEST_PAUSE_MS ? pauseMs + random * (isBusy ? BUSY_JITTER_MS : JITTER_MS) : null;
}

export interface AskAgainParts {
  readonly clock: Clock;
  /** 0 to 1. Default `Math.random`. */
  readonly random?: () => number;
  readonly repeatWithinMs: number;
}

/**
 * Waits until the only one that has the model, which failed, may be asked once more; false: it may not. `others`: how many
 * have it beside it.
 */
export async function mayAskAgain(
  { last, failure, tried, loadBalancing, options }: Run,
  others: number,
  { clock, random = Math.random, repeatWithinMs }: AskAgainParts,
): Promise<boolean> {
  if (last === null || failure === null || !loadBalancing.failoverEnabled) return false;
  const { candidate, startedAt } = last;
  const { id, kind } = candidate.backend;
  const figures = { tookMs: clock.now() - startedAt, repeatWithinMs, asked: tried.size, others, random: random() };
  const pauseMs = sameRoutePauseMs({ kind, failure, ...figures });
  if (pauseMs === null || !tried.delete(id)) return false;
  await sleep(clock, pauseMs, options.signal).catch(() => {});
  return true;
}

/** The bound for the first token of an attempt that begins. `within`: how many have the model, this one too. Pure. */
export function firstTokenMs(
  { broken, chain, tried, options }: Pick<Run, 'broken' | 'chain' | 'tried' | 'options'>,
  { backend }: Candidate,
  within: number,
  { firstTokenTimeoutMs, silentRouteMs }: MeshDispatcherOptions,
): number {
  const hasOther = chain.hasNext || (within > 1 && tried.size === 0);
  const isBound = backend.kind === 'http' && options.stream && broken === null && hasOther;
  return isBound ? Math.min(firstTokenTimeoutMs, silentRouteMs) : firstTokenTimeoutMs;
}

/**
 * How long an answer that broke off stays with its model. Where another may go on with its text, nobody waits for a backend
 * that is gone, and one that failed is asked again but once, and only when it failed soon. Pure.
 */
export function patienceOf(
  { chain, progress, last, hasGoneOn }: Run,
  { now, repeatWithinMs }: { readonly now: number; readonly repeatWithinMs: number },
): { readonly waits: boolean; readonly asksAgain: boolean } {
  const waits = !chain.hasNext || !progress.emitted.isText;
  const failedSoon = last !== null && now - last.startedAt <= repeatWithinMs;
  return { waits, asksAgain: waits || (failedSoon && !hasGoneOn) };
}
