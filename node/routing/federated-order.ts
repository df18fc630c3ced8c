/**
 * In which order the targets of a federated endpoint are asked. Source: FIRST's federated routing, with two changes: a
 * model whose job starts counts as queued, and a free node may come before a queue.
 */
import type { EndpointState, FederatedTarget } from '../storage/fixtures/fixture-types.ts';

/** What is known of a target now. */
export interface TargetState {
  readonly state: EndpointState;
  /** Idle nodes of its cluster; null when unknown. */
  readonly freeNodes: number | null;
}

export interface FederatedRules {
  readonly stateOf: (target: FederatedTarget) => TargetState;
  /** Groups of the caller; null: it is not asked for groups. */
  readonly groups: readonly string[] | null;
  /** A cold model with free nodes starts in minutes, a queued one may wait for hours. FIRST prefers the queued one. */
  readonly preferFreeOverQueued: boolean;
}

/** 0 is asked first; the strategy chooses among equals. */
export type FederatedRank = 0 | 1 | 2 | 3 | 4;

export interface RankedTarget {
  readonly target: FederatedTarget;
  readonly rank: FederatedRank;
}

/** Nothing is known to run there: it is asked when all others are gone, if its gateway lets it be asked at all. */
export const LAST_RANK: FederatedRank = 4;

/** The targets that this caller may use, in the order of the fixture, each with its rank. Pure. */
export function rankTargets(targets: readonly FederatedTarget[], rules: FederatedRules): readonly RankedTarget[] {
  return targets
    .filter(({ allowedGroups }) => allowedGroups !== null && mayUse(allowedGroups, rules.groups))
    .map((target) => ({ target, rank: rankOf(rules.stateOf(target), rules) }));
}

/** Is a caller with these groups among the allowed ones? No allowed groups: everybody is. Pure. */
export function mayUse(allowed: readonly string[], groups: readonly string[] | null): boolean {
  return allowed.length === 0 || groups === null || groups.some((group) => allowed.includes(group));
}

/** Running, queued, cold with free nodes, cold without or unknown, and last what does not answer. Pure. */
export function rankOf(
  { state, freeNodes }: TargetState,
  { preferFreeOverQueued }: Pick<FederatedRules, 'preferFreeOverQueued'>,
): FederatedRank {
  switch (state) {
    case 'running':
      return 0;
    case 'queued':
      return preferFreeOverQueued ? 2 : 1;
    case 'cold':
      if (freeNodes === null || freeNodes <= 0) return 3;
      return preferFreeOverQueued ? 1 : 2;
    case 'stopped':
    case 'offline':
    case 'unknown':
      return LAST_RANK;
  }
}
