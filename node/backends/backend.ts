/** Anything that can answer a request: the engine here, a peer, later HTTP servers and clusters. */
import type { CatalogEntry, NodeLoad } from '../../protocols/catalog/catalog.ts';
import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import type { Startable } from '../common/lifecycle.ts';

/** `http`: a server that speaks OpenAI's API over HTTP, registered by hand; its id is `api:<slug>`. */
export type BackendKind = 'engine' | 'peer' | 'http';

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

/** What happens to the models of an engine. `fraction`: 0 to 1. */
export type EngineEvent =
  | { readonly type: 'loading'; readonly model: string; readonly fraction: number }
  | { readonly type: 'resident'; readonly model: string; readonly loadMs: number }
  | { readonly type: 'failed'; readonly model: string; readonly message: string };

/** The backend that runs models on this machine. */
export interface Engine extends LocalBackend, Startable {
  /** Build of the inference library: part of what makes two nodes answer alike. */
  readonly build: string;
  load(): Omit<NodeLoad, 'draining'>;
  /** Returns the unsubscribe. */
  onEvent(listener: (event: EngineEvent) => void): () => void;
}
