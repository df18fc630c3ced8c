/** One client request on its way through candidates and attempts: what the facade sees of it. */
import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';

export interface DispatchOptions {
  /** Aborts when the client has gone: cancels the attempt, counts for nobody. */
  readonly signal: AbortSignal;
  /**
   * A stream commits with its first content, after which nothing that went out is taken back: the answer can only go on
   * elsewhere. Without a stream nothing is yielded but progress until the whole answer is here.
   */
  readonly stream: boolean;
  /** The `x-request-id` that the client sees, by which the request can be explained later. */
  readonly label?: string;
}

export interface Dispatch {
  /** Iterate once. Throws `MeshError` only; the event `end` always comes last in a whole answer. */
  readonly events: AsyncIterable<InferenceEvent>;
  /** Fingerprint of the node that answers, as of the commit; null until an attempt was accepted. */
  readonly servedBy: string | null;
  /** The model that answers, as of the commit: the one that was asked for, or what stands in for it. Absent: as asked. */
  readonly model?: string;
  /** Attempts made so far. */
  readonly attempts: number;
  /** How often the answer went on from another attempt's tokens. */
  readonly resumed: number;
  /** Fingerprints of all that gave tokens of it, in order; one that gave some twice stands twice. */
  readonly nodes: readonly string[];
}

export interface Dispatcher {
  dispatch(request: InferenceRequest, options: DispatchOptions): Dispatch;
}
