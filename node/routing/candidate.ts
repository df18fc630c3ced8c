/** A backend that could serve a request, with the figures that strategies order by, and the classes that come before any strategy. */
import type { CatalogEntry, NodeLoad } from '../../protocols/catalog/catalog.ts';
import { BOUNDARIES, type Boundary, type InferenceRequest } from '../../protocols/inference/events.ts';
import type { Backend } from '../backends/backend.ts';

export interface Candidate {
  readonly backend: Backend;
  readonly entry: CatalogEntry;
  /** Heartbeats are late, its engine stands still, or it takes no new work: chosen only when nothing better is left. */
  readonly suspect: boolean;
  /** What the peer said of itself last; null before its first heartbeat, and where nobody says. */
  readonly load: NodeLoad | null;
  /** -1000 to 1000, higher is preferred. */
  readonly priority: number;
  /** How far away it is. */
  readonly boundary: Boundary;
  /** Build of its inference library; null where it has none of its own, or does not say. */
  readonly engineBuild: string | null;
  /** Could it go on with a text that another of its kind began as an answer to this? Absent: no. */
  readonly continuesText?: (request: InferenceRequest) => boolean;
  /** Within its class the lowest comes first, before any strategy. Absent: 0. */
  readonly rank?: number;
  /** Attempts of ours on it, from selection to end. */
  readonly activeRequests: number;
  /** Place of our last attempt on it for this model in the order of all attempts; 0: never asked. */
  readonly lastAsked: number;
  /** Smoothed time to first token for this model, milliseconds; null unmeasured. */
  readonly firstTokenMs: number | null;
  /** Recent failures that still weigh on it; each wears off in 2 s. */
  readonly penalty: number;
}

/** The one further away. */
export function furthest(a: Boundary, b: Boundary): Boundary {
  return BOUNDARIES.indexOf(a) < BOUNDARIES.indexOf(b) ? b : a;
}

/** Requests that run or wait there: what it reports, or what we sent when that is more, because reports come late. */
export function busyness({ load, activeRequests }: Candidate): number {
  return load === null ? activeRequests : Math.max(load.inFlight + load.queued, activeRequests);
}

export interface OrderRules {
  /** Orders one class, best first. */
  readonly strategy: (candidates: readonly Candidate[]) => readonly Candidate[];
  /** Did it refuse our key lately? */
  readonly isUnauthorized: (backendId: string) => boolean;
}

/**
 * Local first, then remote ones by the strategy; suspect ones after healthy ones, and those that refuse our key at the
 * very end. A model that is only on disk here yields to a peer that has it resident, because a load takes longer than a
 * hop. Pure.
 */
export function orderCandidates(
  candidates: readonly Candidate[],
  { strategy, isUnauthorized }: OrderRules,
): readonly Candidate[] {
  const here: Candidate[] = [];
  const warm: Candidate[] = [];
  const cold: Candidate[] = [];
  const suspect: Candidate[] = [];
  const unauthorized: Candidate[] = [];
  for (const candidate of candidates) {
    if (candidate.backend.kind === 'engine') here.push(candidate);
    else if (isUnauthorized(candidate.backend.id)) unauthorized.push(candidate);
    else if (candidate.suspect) suspect.push(candidate);
    else if (candidate.entry.state === 'resident') warm.push(candidate);
    else cold.push(candidate);
  }
  const localIsWarm = here.some(({ entry }) => entry.state !== 'on-disk');
  const classes = localIsWarm ? [here, warm, cold, suspect, unauthorized] : [warm, here, cold, suspect, unauthorized];
  return classes.flatMap((members) => (members.length < 2 ? members : inRanks(members, strategy)));
}

/** The strategy orders each rank, the lowest rank first. */
function inRanks(members: readonly Candidate[], strategy: OrderRules['strategy']): readonly Candidate[] {
  const ranks = [...new Set(members.map(({ rank = 0 }) => rank))].sort((a, b) => a - b);
  if (ranks.length === 1) return strategy(members);
  return ranks.flatMap((wanted) => strategy(members.filter(({ rank = 0 }) => rank === wanted)));
}
