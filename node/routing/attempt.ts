/** One attempt of a request on one backend. Nothing of it goes out before its commit, so that a failed one leaves no trace. */

import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import type { Backend } from '../backends/backend.ts';
import { type Clock, deadline } from '../common/clock.ts';
import { ERROR_TABLE, MeshError, toMeshError } from '../common/errors.ts';
import type { AttemptRecord } from './attempt-record.ts';

/** How far a dispatch has come. */
export interface Progress {
  servedBy: string | null;
  attempts: number;
  /** Content has gone to the client. */
  committed: boolean;
  /** The answer has come to its end. */
  whole: boolean;
}

export interface AttemptComponents {
  readonly backend: Backend;
  readonly record: AttemptRecord;
  readonly progress: Progress;
  readonly clock: Clock;
}

export interface AttemptOptions {
  readonly signal: AbortSignal;
  /** Commit with the first text; else with the end. */
  readonly stream: boolean;
  readonly firstTokenTimeoutMs: number;
}

/** setTimeout's largest delay: about 24 days. */
const NEVER_MS = 2 ** 31 - 1;

/**
 * Events of the answer, from the commit on; progress at once.
 *
 * @throws MeshError, after the record has its verdict. `peer_lost` when it failed after commit.
 */
export async function* attempt(
  request: InferenceRequest,
  { backend, record, progress, clock }: AttemptComponents,
  { signal, stream, firstTokenTimeoutMs }: AttemptOptions,
): AsyncGenerator<InferenceEvent> {
  const startedAt = clock.now();
  using firstToken = deadline(clock, firstTokenTimeoutMs, firstTokenTimeout, signal);
  let held: InferenceEvent[] | null = [];
  try {
    for await (const event of backend.infer(request, { signal: firstToken.signal })) {
      if (record.saw(event, clock.now() - startedAt)) firstToken.refresh(NEVER_MS);
      if (event.type === 'progress') {
        yield event;
        continue;
      }
      if (event.type === 'accepted') progress.servedBy = event.node;
      progress.whole = event.type === 'end';
      held?.push(event);
      if (held === null) yield event;
      else if (commits(event, stream)) {
        progress.committed = true;
        yield* held;
        held = null;
      }
      if (progress.whole) return;
    }
    throw new MeshError('peer_unreachable', 'The answer ended without its end');
  } catch (thrown) {
    const cause = signal.aborted ? clientClosed(signal) : toMeshError(thrown);
    const error = progress.committed ? lost(cause) : cause;
    record.failed(cause, error);
    throw error;
  } finally {
    record.abandoned();
  }
}

/** With this event the answer goes out: at the first text of a stream, else when it is whole. */
function commits(event: InferenceEvent, stream: boolean): boolean {
  return event.type === 'end' || (stream && event.type === 'chunk' && event.text !== '');
}

const firstTokenTimeout = (): MeshError =>
  new MeshError('first_token_timeout', 'No token came within the bound for a first token');

/** The client's own end of a request. */
export function clientClosed(signal: AbortSignal): MeshError {
  return signal.reason instanceof MeshError ? signal.reason : new MeshError('client_closed', 'The client went away');
}

/** A failure after commit is a lost answer, whatever broke it. */
function lost(cause: MeshError): MeshError {
  if (ERROR_TABLE[cause.code].breaker !== 'failure' || cause.code === 'peer_lost') return cause;
  return new MeshError('peer_lost', `The node that was answering was lost: ${cause.message}`, { cause });
}
