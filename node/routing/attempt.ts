/** One attempt of a request on one backend. Nothing of it goes out before the commit, so that a failed one leaves no trace. */

import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import type { Backend } from '../backends/backend.ts';
import { type Clock, deadline } from '../common/clock.ts';
import { MeshError, toMeshError } from '../common/errors.ts';
import type { AttemptRecord } from './attempt-record.ts';
import type { Progress } from './progress.ts';

export interface AttemptComponents {
  readonly backend: Backend;
  readonly record: AttemptRecord;
  readonly progress: Progress;
  readonly clock: Clock;
}

export interface AttemptOptions {
  readonly signal: AbortSignal;
  readonly firstTokenTimeoutMs: number;
}

/** setTimeout's largest delay: about 24 days. */
const NEVER_MS = 2 ** 31 - 1;

/**
 * Events of the answer, from the commit on; progress at once.
 *
 * @throws MeshError, what broke it, after the record has its verdict.
 */
export async function* attempt(
  request: InferenceRequest,
  { backend, record, progress, clock }: AttemptComponents,
  { signal, firstTokenTimeoutMs }: AttemptOptions,
): AsyncGenerator<InferenceEvent> {
  const startedAt = clock.now();
  using firstToken = deadline(clock, firstTokenTimeoutMs, firstTokenTimeout, signal);
  progress.begin(backend.id);
  try {
    for await (const event of backend.infer(request, { signal: firstToken.signal })) {
      const goesOut = progress.take(event);
      if (record.saw(event, clock.now() - startedAt)) firstToken.refresh(NEVER_MS);
      if (goesOut) {
        for (const held of progress.release()) yield held;
        yield event;
      }
      if (progress.whole) return;
    }
    throw new MeshError('peer_unreachable', 'The answer ended without its end');
  } catch (thrown) {
    const cause = signal.aborted ? clientClosed(signal) : toMeshError(thrown);
    record.failed(cause);
    throw cause;
  } finally {
    record.abandoned();
  }
}

const firstTokenTimeout = (): MeshError =>
  new MeshError('first_token_timeout', 'No token came within the bound for a first token');

/** The client's own end of a request. */
export function clientClosed(signal: AbortSignal): MeshError {
  return signal.reason instanceof MeshError ? signal.reason : new MeshError('client_closed', 'The client went away');
}
