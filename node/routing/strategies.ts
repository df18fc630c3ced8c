/** The four ways to order candidates. Pure: figures, a cursor and the time in, an order out. */
import { busyness, type Candidate } from './candidate.ts';
import type { StrategyName } from './settings.ts';

export interface StrategyContext {
  readonly model: string;
  readonly cursor: Cursor;
}

/** What is remembered between the choices for one model. */
export interface Cursor {
  /** Choices made so far. */
  readonly choices: number;
  /** Backend that was chosen last; null before the first choice. */
  readonly last: string | null;
}

export const FIRST_CURSOR: Cursor = { choices: 0, last: null };

/** Orders candidates, best first. Pure. */
export type Strategy = (candidates: readonly Candidate[], context: StrategyContext) => readonly Candidate[];

/** Under `fastest` every twentieth choice goes to the one asked longest ago, so that its figure stays true. */
export const EXPLORE_EVERY = 20;

/** The one asked longest ago first: among equals everyone gets a turn, and a newcomer is not flooded to catch up. */
const turns = (a: Candidate, b: Candidate): number => a.lastAsked - b.lastAsked;

/** Fraction of its slots in use. A recent failure weighs as much as all slots: who fails fast always looks idle. */
export function occupancy(candidate: Candidate): number {
  return busyness(candidate) / Math.max(1, candidate.entry.slots) + candidate.penalty;
}

/** Sorts by a figure that is computed once for each. */
function sortedBy(candidates: readonly Candidate[], figure: (candidate: Candidate) => number): Candidate[] {
  const keyed = candidates.map((candidate) => ({ candidate, figure: figure(candidate), turn: candidate.lastAsked }));
  keyed.sort((a, b) => a.figure - b.figure || a.turn - b.turn);
  return keyed.map(({ candidate }) => candidate);
}

function byPriority(candidates: readonly Candidate[]): readonly Candidate[] {
  return candidates.toSorted((a, b) => b.priority - a.priority || a.activeRequests - b.activeRequests || turns(a, b));
}

/**
 * Goes round in the order of fingerprints, from the one after the last that was chosen. The cursor is a name and not a
 * count: with a count, the neighbour of a node that is passed over would get that node's turns as well.
 */
function roundRobin(candidates: readonly Candidate[], { cursor: { last } }: StrategyContext): readonly Candidate[] {
  const byId = (a: Candidate, b: Candidate): number => (a.backend.id < b.backend.id ? -1 : 1);
  if (last === null) return candidates.toSorted(byId);
  const after = candidates.filter(({ backend }) => backend.id > last).sort(byId);
  const before = candidates.filter(({ backend }) => backend.id <= last).sort(byId);
  return after.concat(before);
}

/** Never asked first, then by measured time, then those that were asked and gave no measurement. */
function expectedFirstTokenMs({ firstTokenMs, lastAsked, penalty }: Candidate): number {
  if (firstTokenMs !== null) return firstTokenMs * (1 + penalty);
  return lastAsked === 0 ? -1 : Number.MAX_VALUE;
}

/** Is the next choice one that looks again at whoever was asked longest ago? */
export const explores = ({ choices }: Cursor): boolean => choices % EXPLORE_EVERY === EXPLORE_EVERY - 1;

function fastest(candidates: readonly Candidate[], { cursor }: StrategyContext): readonly Candidate[] {
  const sorted = sortedBy(candidates, expectedFirstTokenMs);
  if (!explores(cursor) || sorted.length === 0) return sorted;
  const longestAgo = sorted.reduce((oldest, candidate) => (turns(candidate, oldest) < 0 ? candidate : oldest));
  return [longestAgo, ...sorted.filter((candidate) => candidate !== longestAgo)];
}

/** Every strategy by its name in the configuration. */
export const STRATEGIES: Readonly<Record<StrategyName, Strategy>> = {
  priority: byPriority,
  'round-robin': roundRobin,
  'least-loaded': (candidates) => sortedBy(candidates, occupancy),
  fastest,
};
