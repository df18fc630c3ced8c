/** Does another model of the chain answer, or go on with what the one before it began? */
import { ERROR_TABLE, type ErrorCode, type MeshError } from '../common/errors.ts';
import { BrokenAnswer } from './broken-answer.ts';
import type { Candidate } from './candidate.ts';
import { isContinuable, twinFacts } from './continuation.ts';
import type { Run } from './run.ts';

/** `unauthorized`: this node's key for that backend, never the client's. */
const OF_ONE_MODEL: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'context_length_exceeded',
  'model_not_available',
  'all_circuits_open',
  'unauthorized',
]);

/**
 * The next model is asked from now on: from the beginning, or, once something has gone out, for the rest of its text.
 *
 * @throws MeshError when there is none, or when it would share what went wrong: what is wrong with the request itself.
 */
export function nextModel(run: Run, failure: MeshError, now: number): void {
  const { chain, options, progress, last, loadBalancing } = run;
  const isCommitted = progress.committed;
  const helps =
    loadBalancing.failoverEnabled &&
    (isCommitted
      ? last !== null && progress.emitted.hasText && loadBalancing.midStream && isContinuable(failure.code)
      : ERROR_TABLE[failure.code].elsewhere || OF_ONE_MODEL.has(failure.code));
  if (!helps || !chain.hasNext || options.signal.aborted) throw realFailure(run, failure);
  if (failure.code !== 'model_not_available') run.refusal ??= failure;
  chain.next({ isCommitted });
  run.tried.clear();
  run.costly = 0;
  run.hasGoneOn = false;
  if (isCommitted && last !== null) {
    progress.emitted.otherModel();
    run.broken = new BrokenAnswer(chain.request, last.candidate, { failure, now });
    run.broken.otherModel();
    run.last = { ...last, startedAt: now };
  } else {
    run.broken = null;
    progress.restart();
  }
}

/** Is there something to go on with, for others than the `origin` that failed? */
export function mayContinue(
  { progress: { emitted }, loadBalancing, chain }: Run,
  origin: Candidate,
  code: ErrorCode,
): boolean {
  if (!loadBalancing.failoverEnabled || !loadBalancing.midStream || !isContinuable(code)) return false;
  return (emitted.isWhole && emitted.hasTokens) || twinFacts(emitted, origin, chain.request) !== null;
}

/** That the last model is nowhere is not what a client wants to know when an earlier one failed. */
function realFailure({ refusal }: Run, failure: MeshError): MeshError {
  return failure.code === 'model_not_available' ? (refusal ?? failure) : failure;
}
