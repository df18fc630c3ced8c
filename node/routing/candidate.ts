/** A backend that could serve a request, with the figures that strategies order by. */
import type { CatalogEntry, NodeLoad } from '../../protocols/catalog/catalog.ts';
import type { Backend } from '../backends/backend.ts';
import type { BackendStats } from './routing-stats.ts';

export interface Candidate {
  readonly backend: Backend;
  readonly entry: CatalogEntry;
  /** Heartbeats are late: chosen only when nothing better is left. */
  readonly suspect: boolean;
  /** What the peer said of itself last; null before its first heartbeat. */
  readonly load: NodeLoad | null;
  readonly stats: BackendStats;
}

/** Orders candidates, best first. Pure. */
export type Strategy = (candidates: readonly Candidate[]) => Candidate[];

/** Fraction of the candidate's slots in use, counting what we sent and it has not reported yet. */
function occupancy(candidate: Candidate): number {
  const reported = candidate.load === null ? 0 : candidate.load.inFlight + candidate.load.queued;
  return Math.max(reported, candidate.stats.activeRequests) / Math.max(1, candidate.entry.slots);
}

/** Fewest requests for its slots; among equals the one we asked least often, so that idle peers take turns. */
export const leastLoaded: Strategy = (candidates) =>
  candidates.toSorted((a, b) => occupancy(a) - occupancy(b) || a.stats.totalRequests - b.stats.totalRequests);

/**
 * Local first, then peers by `strategy`; suspect peers after healthy ones. A model that is only on disk here yields to
 * a peer that has it resident, because a load takes longer than a hop.
 */
export function orderCandidates(
  local: Candidate | null,
  peers: readonly Candidate[],
  strategy: Strategy,
): readonly Candidate[] {
  const healthy = peers.filter((peer) => !peer.suspect);
  const warm = healthy.filter((peer) => peer.entry.state === 'resident');
  const cold = healthy.filter((peer) => peer.entry.state !== 'resident');
  const suspect = peers.filter((peer) => peer.suspect);
  const here = local === null ? [] : [local];
  const rest = [...strategy(cold), ...strategy(suspect)];
  const localIsWarm = local !== null && local.entry.state !== 'on-disk';
  return localIsWarm ? [...here, ...strategy(warm), ...rest] : [...strategy(warm), ...here, ...rest];
}
