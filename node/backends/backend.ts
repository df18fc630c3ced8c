/** Anything that can answer a request: the engine here, a peer, later HTTP servers and clusters. */
import type { CatalogEntry } from '../../protocols/catalog/catalog.ts';
import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';

export type BackendKind = 'engine' | 'peer';

export interface Backend {
  /** Fingerprint of the node that answers: ours for the engine. */
  readonly id: string;
  readonly kind: BackendKind;
  /**
   * Answers one request. Leaving the iteration early, or aborting `signal`, cancels the generation within one token.
   *
   * @throws MeshError from the iteration; nothing else.
   */
  infer(request: InferenceRequest, options: { signal: AbortSignal }): AsyncIterable<InferenceEvent>;
}

/** A backend of this node's own, which therefore says what it serves. */
export interface LocalBackend extends Backend {
  /** What can be asked of it now. A fresh array at each call; cheap. */
  catalog(): readonly CatalogEntry[];
  /** Calls `listener` after each change of `catalog()`; returns the unsubscribe. */
  onCatalogChange(listener: () => void): () => void;
}
