/** Anything that can answer a request: the engine here, a peer, later HTTP servers and clusters. */
import type { CatalogEntry, ModelState, NodeLoad } from '../../protocols/catalog/catalog.ts';
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
  | { readonly type: 'failed'; readonly model: string; readonly message: string }
  | { readonly type: 'unloaded'; readonly model: string; readonly reason: UnloadReason };

/** idle: nobody used it for the keep-alive time; evicted: another model needed the memory; asked: somebody said so. */
export type UnloadReason = 'idle' | 'evicted' | 'asked';

/** One model file here and its place in memory. */
export interface ModelResidency {
  readonly model: string;
  readonly state: ModelState;
  /** Loaded at start, never evicted, never unloaded for idleness. */
  readonly pinned: boolean;
  /** Estimated from its file: what it takes, or would take if it were loaded now. */
  readonly need: MemoryNeed;
  /** Requests that it answers and that wait for it. */
  readonly inFlight: number;
  readonly queued: number;
  /** Milliseconds until it is unloaded unless it is used; null when it is not about to be. */
  readonly unloadInMs: number | null;
  /** Why it cannot be used now; null when nothing is wrong. */
  readonly problem: string | null;
}

/** Bytes, were everything in main memory. What a GPU takes of it only the inference library knows. */
export interface MemoryNeed {
  readonly weightsBytes: number;
  /** Keys and values of all sequences. */
  readonly contextBytes: number;
  /** Intermediate results of one decode. */
  readonly computeBytes: number;
  /** The process around them. */
  readonly processBytes: number;
  readonly totalBytes: number;
}

/** Which models are in memory, for people to see and to decide. Unknown models are `model_not_loaded`. */
export interface ResidencyControl {
  /** For all models together, bytes. */
  readonly budgetBytes: number;
  list(): readonly ModelResidency[];
  /** Begins to load a model; `list` tells how it goes. @throws MeshError when it may not be tried now. */
  loadModel(model: string): void;
  /** Unloads a model once it has answered what it was asked. @throws MeshError `invalid_request` when it is pinned. */
  unloadModel(model: string): void;
  /** Until the node ends. A model that is pinned is loaded as well. @throws MeshError. */
  pinModel(model: string, pinned: boolean): void;
}

/** The backend that runs models on this machine. */
export interface Engine extends LocalBackend, Startable {
  /** Build of the inference library: part of what makes two nodes answer alike. */
  readonly build: string;
  load(): Omit<NodeLoad, 'draining'>;
  /** Absent: which models are loaded cannot be told or changed. */
  readonly residency?: ResidencyControl;
  /** Returns the unsubscribe. */
  onEvent(listener: (event: EngineEvent) => void): () => void;
}
