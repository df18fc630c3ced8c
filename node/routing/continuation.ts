/** May a broken answer go on elsewhere, and where? Pure. */
import type { InferenceRequest } from '../../protocols/inference/events.ts';
import { ERROR_TABLE, type ErrorCode } from '../common/errors.ts';
import type { Candidate } from './candidate.ts';
import type { EmittedAnswer } from './emitted-answer.ts';

/** What must be the same, and enough, where an answer is to go on. */
export interface TwinFacts {
  /** Artifact digest; null for an answer whose tokens nobody told: it goes on from its text. */
  readonly artifact: string | null;
  readonly engineBuild: string | null;
  /** Tokens of a sequence without which it could not take even one token more. */
  readonly leastContext: number;
  /** Tokens of a sequence with which it comes as far as where it began. */
  readonly fullContext: number;
  readonly request: InferenceRequest;
}

/**
 * What a twin of `origin` must have. Null when the answer cannot be continued: it has no tokens, or nobody knows what file
 * it comes from.
 */
export function twinFacts(
  emitted: EmittedAnswer,
  origin: Pick<Candidate, 'entry' | 'engineBuild' | 'backend'>,
  request: InferenceRequest,
): TwinFacts | null {
  const { accepted } = emitted;
  const { backend, engineBuild, entry } = origin;
  if (accepted === null) return null;
  if (backend.kind === 'http' || emitted.isText) {
    if (!emitted.isText) return null;
    return { artifact: null, engineBuild: null, leastContext: 0, fullContext: 0, request };
  }
  const { artifact, promptTokens } = accepted;
  if (!emitted.hasTokens || artifact === null) return null;
  const asked = maxTokensOf(request);
  return {
    artifact,
    engineBuild,
    leastContext: promptTokens + emitted.longest + 1,
    fullContext: Math.min(entry.contextLength, asked === null ? entry.contextLength : promptTokens + asked),
    request,
  };
}

/** Can the candidate go on with it exactly where it stands? `full`: as far as where it began. */
export function twinOf(candidate: Candidate, facts: TwinFacts): 'full' | 'short' | null {
  const { backend, entry, engineBuild } = candidate;
  if (facts.artifact === null) {
    const continues = backend.kind === 'http' && candidate.continuesText?.(facts.request) === true;
    return continues ? 'full' : null;
  }
  if (entry.digest !== facts.artifact || engineBuild === null || engineBuild !== facts.engineBuild) return null;
  if (entry.contextLength >= facts.fullContext) return 'full';
  return entry.contextLength >= facts.leastContext ? 'short' : null;
}

/** Is it the kind of failure that another backend need not share? */
export function isContinuable(code: ErrorCode): boolean {
  return ERROR_TABLE[code].elsewhere || ERROR_TABLE[code].breaker === 'failure';
}

/**
 * May the backend that failed so go on itself when nobody else can? A child that crashed or hung starts again, and a
 * connection that broke need not mean that the peer is gone.
 */
export function mayComeBack(code: ErrorCode): boolean {
  return code === 'engine_failed' || code === 'wedged' || code === 'peer_unreachable' || code === 'upstream_error';
}

/** Was it gone, maybe for a moment only? */
export function isAway(code: ErrorCode): boolean {
  return code === 'peer_unreachable';
}

/** Will it be able to, a little later? */
export function isBusy(code: ErrorCode): boolean {
  return code === 'overloaded' || code === 'rate_limited';
}

/** `max_tokens` of a body, by either name; null where it sets none or is no such body. */
function maxTokensOf({ body }: Pick<InferenceRequest, 'body'>): number | null {
  try {
    const said = JSON.parse(new TextDecoder().decode(body)) as Record<string, unknown> | null;
    const figure = said?.['max_completion_tokens'] ?? said?.['max_tokens'];
    return typeof figure === 'number' ? figure : null;
  } catch {
    return null;
  }
}
