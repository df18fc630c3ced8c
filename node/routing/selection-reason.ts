/** Why a candidate was chosen, in one sentence: the strategy and the figure that decided. */
import { busyness, type Candidate } from './candidate.ts';
import type { Run } from './run.ts';
import type { StrategyName } from './settings.ts';
import { type Cursor, explores } from './strategies.ts';

export interface ChosenCandidate {
  readonly chosen: Candidate;
  /** Candidates that could have been chosen, the chosen one too. */
  readonly eligible: number;
  readonly strategy: StrategyName;
  readonly cursor: Cursor;
}

/** One sentence for people. Pure. */
export function reasonOf({ chosen, eligible, strategy, cursor }: ChosenCandidate): string {
  if (chosen.backend.kind === 'engine') {
    return eligible > 1 ? 'The model is here, and what is here is served here.' : 'The model is here and nowhere else.';
  }
  if (eligible === 1) return 'It was the only one that could be asked.';
  return `${strategy}: ${FIGURES[strategy](chosen, cursor)} (of ${eligible} that could be asked).`;
}

const FIGURES: Readonly<Record<StrategyName, (chosen: Candidate, cursor: Cursor) => string>> = {
  priority: ({ priority, activeRequests }) => `priority ${priority}, with ${count(activeRequests)} of ours in flight`,
  'round-robin': (_, { last }) => (last === null ? 'first in turn' : `next in turn after ${shortId(last)}`),
  'least-loaded': (chosen) => {
    const failing = chosen.penalty > 0 ? `, recent failures weigh ${chosen.penalty.toFixed(1)}` : '';
    return `${count(busyness(chosen))} for ${chosen.entry.slots} slots${failing}`;
  },
  fastest: ({ firstTokenMs, lastAsked }, cursor) => {
    if (firstTokenMs === null) return lastAsked === 0 ? 'not measured yet, so it gets a try' : 'nobody is measured yet';
    const time = `${Math.round(firstTokenMs)} ms to the first token`;
    return explores(cursor) ? `asked longest ago, so it is measured again; last ${time}` : time;
  },
};

const count = (requests: number): string => (requests === 1 ? '1 request' : `${requests} requests`);

/** The end of a fingerprint: their beginnings are alike. */
const shortId = (id: string): string => (id.length > 12 ? `…${id.slice(-8)}` : id);

/** The sentence for an attempt after a failed one: `reason` chose its backend. */
export function reasonAfter(
  { failure, broken, progress }: Pick<Run, 'failure' | 'broken' | 'progress'>,
  reason: string,
): string {
  if (failure === null) return reason;
  if (broken === null) return `After ${failure.code} elsewhere. ${reason}`;
  const { tokens, chunks } = progress.emitted;
  const where = tokens > 0 ? `token ${tokens}` : `part ${chunks}`;
  return `Goes on after ${where} of ${shortId(broken.lastNode)}, which ended with ${broken.failure.code}. ${reason}`;
}
