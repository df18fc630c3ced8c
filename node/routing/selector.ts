/** Takes the best candidate that may be asked now. All of a choice happens at once, so that no two requests see the same load. */
import { BOUNDARIES, type Boundary } from '../../protocols/inference/events.ts';
import type { BackendHealth, BackendPermit } from './backend-health.ts';
import { busyness, type Candidate, orderCandidates } from './candidate.ts';
import type { CandidateRecord } from './request-record.ts';
import { reasonOf } from './selection-reason.ts';
import type { StrategyName } from './settings.ts';
import { type Cursor, FIRST_CURSOR, STRATEGIES } from './strategies.ts';

export interface Question {
  readonly model: string;
  /** A hard limit. */
  readonly boundary: Boundary;
  readonly strategy: StrategyName;
  /** Backends that failed this request already. */
  readonly tried: ReadonlySet<string>;
  /** Only these can do it at all. Default: all. */
  readonly suits?: (candidate: Candidate) => boolean;
}

export interface Selection {
  readonly candidate: Candidate;
  readonly permit: BackendPermit;
  /** One sentence. */
  readonly reason: string;
}

/** Nobody may be asked now, and why. */
export interface NoSelection {
  /** Candidates within the boundary that did not fail this request before. */
  readonly within: number;
  /** Some of those only asked us to wait. */
  readonly coolingOff: boolean;
  /** Milliseconds until the first of them may be asked; Infinity without any. */
  readonly retryInMs: number;
}

export interface Choice {
  readonly selection: Selection | null;
  readonly none: NoSelection;
  readonly records: readonly CandidateRecord[];
}

/** What of the health of backends is looked at. */
export type SelectorHealth = Pick<BackendHealth, 'obstacle' | 'acquire' | 'isUnauthorized'>;

/** Candidates whose figures are kept with a request. */
const RECORDED = 16;
/** Models whose cursor is kept; the one chosen for longest ago goes first. */
const KEPT_CURSORS = 1024;

const RANK: Readonly<Record<Boundary, number>> = {
  local: 0,
  mesh: 1,
  'private-cluster': 2,
  public: BOUNDARIES.length - 1,
};

/** May a request with this limit go there? */
export const isWithin = (limit: Boundary, where: Boundary): boolean => RANK[where] <= RANK[limit];

const everyone = (): boolean => true;

export class Selector {
  readonly #health: SelectorHealth;
  readonly #cursors = new Map<string, Cursor>();

  constructor(components: { readonly health: SelectorHealth }) {
    this.#health = components.health;
  }

  /** Chooses and takes the permit, to be given back by a verdict. */
  choose(candidates: readonly Candidate[], question: Question): Choice {
    const { model, boundary, tried, suits = everyone } = question;
    const cursor = this.#cursors.get(model) ?? FIRST_CURSOR;
    const free = candidates.filter(
      (candidate) => isWithin(boundary, candidate.boundary) && !tried.has(candidate.backend.id) && suits(candidate),
    );
    const strategy = STRATEGIES[question.strategy];
    const isUnauthorized = (id: string): boolean => this.#health.isUnauthorized(id);
    const ordered = orderCandidates(free, {
      strategy: (members) => strategy(members, { model, cursor }),
      isUnauthorized,
    });
    const { chosen, none } = this.#first(ordered, model);
    const records = this.#records(candidates, ordered, { chosen, question });
    if (chosen === null) return { selection: null, none, records };
    const permit = this.#health.acquire({ id: chosen.backend.id, kind: chosen.backend.kind, model });
    if (permit === null) return { selection: null, none, records };
    this.#remember(model, { choices: cursor.choices + 1, last: chosen.backend.id });
    const reason = reasonOf({ chosen, eligible: ordered.length, strategy: question.strategy, cursor });
    return { selection: { candidate: chosen, permit, reason }, none, records };
  }

  #first(ordered: readonly Candidate[], model: string): { chosen: Candidate | null; none: NoSelection } {
    let retryInMs = Number.POSITIVE_INFINITY;
    let coolingOff = false;
    let chosen: Candidate | null = null;
    for (const candidate of ordered) {
      const obstacle = this.#health.obstacle(candidate.backend.id, model);
      if (obstacle === null) {
        chosen = candidate;
        break;
      }
      retryInMs = Math.min(retryInMs, obstacle.retryInMs);
      if (obstacle.kind === 'cooling_off') coolingOff = true;
    }
    return { chosen, none: { within: ordered.length, coolingOff, retryInMs } };
  }

  /** What the request's record shows: the preferred ones first, then those that were out of the question. */
  #records(
    candidates: readonly Candidate[],
    ordered: readonly Candidate[],
    { chosen, question }: { chosen: Candidate | null; question: Question },
  ): readonly CandidateRecord[] {
    const skippedOf = (candidate: Candidate): CandidateRecord['skipped'] => {
      const { id } = candidate.backend;
      if (!isWithin(question.boundary, candidate.boundary)) return 'boundary';
      if (question.tried.has(id)) return 'already_failed';
      if (question.suits?.(candidate) === false) return 'no_twin';
      if (candidate === chosen) return null;
      return (
        this.#health.obstacle(id, question.model)?.kind ?? (this.#health.isUnauthorized(id) ? 'unauthorized' : null)
      );
    };
    const shown = ordered.slice(0, RECORDED);
    if (chosen !== null && !shown.includes(chosen)) shown.push(chosen);
    if (ordered.length < candidates.length && shown.length < RECORDED) {
      const rest = candidates.filter((candidate) => !ordered.includes(candidate));
      shown.push(...rest.slice(0, RECORDED - shown.length));
    }
    return shown.map((candidate) => recordOf(candidate, skippedOf(candidate)));
  }

  #remember(model: string, cursor: Cursor): void {
    this.#cursors.delete(model);
    this.#cursors.set(model, cursor);
    const oldest = this.#cursors.size > KEPT_CURSORS ? this.#cursors.keys().next().value : undefined;
    if (oldest !== undefined) this.#cursors.delete(oldest);
  }
}

function recordOf(candidate: Candidate, skipped: CandidateRecord['skipped']): CandidateRecord {
  const { backend, entry, suspect, load, priority, rank, activeRequests, firstTokenMs } = candidate;
  return {
    backend: backend.id,
    kind: backend.kind,
    state: suspect ? `${entry.state}, suspect` : entry.state,
    priority,
    ...(rank === undefined ? {} : { rank }),
    activeRequests,
    reportedLoad: load === null ? null : busyness({ ...candidate, activeRequests: 0 }),
    firstTokenMs,
    skipped,
  };
}
