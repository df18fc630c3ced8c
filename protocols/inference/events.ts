/** An inference request and the events of its answer: what backends, dispatcher and wire all speak. Source: docs/ARCHITECTURE.md. */

/** Which OpenAI request the body is. */
export type InferenceKind = 'chat' | 'completion';

/** How far a request may travel, nearest first; a request may go to its boundary and everything nearer. */
export const BOUNDARIES = ['local', 'mesh', 'private-cluster', 'public'] as const;
export type Boundary = (typeof BOUNDARIES)[number];

/** One request, ready to be tried on any backend, any number of times. */
export interface InferenceRequest {
  /** 32 lower-case hex digits, unique per client request and the same for all its attempts. */
  readonly requestId: string;
  readonly kind: InferenceKind;
  /** Model id as the client named it. */
  readonly model: string;
  /** The OpenAI request body, JSON in UTF-8, byte for byte as the client sent it. */
  readonly body: Uint8Array;
  /** Used when the body names no seed: 0 to 2^32-1, picked once per request so that every attempt samples alike. */
  readonly seed: number;
  /** A hard limit, on failover too. Absent: `public`, no limit. Does not travel: a peer serves from its own engine only. */
  readonly boundary?: Boundary;
}

export type FinishReason = 'stop' | 'length';

/** The request waits; sent at most every 500 ms so that the asking side knows that it is alive. Not content. */
export interface ProgressEvent {
  readonly type: 'progress';
  readonly state: 'queued' | 'loading';
  /** 0 to 1 where known. */
  readonly fraction: number | null;
}

/** The request was rendered, fits and has a slot. Exactly one, before any chunk. */
export interface AcceptedEvent {
  readonly type: 'accepted';
  /** Fingerprint of the node whose engine runs it. */
  readonly node: string;
  readonly promptTokens: number;
  /** sha256 (hex) of the prompt's token ids as little-endian uint32. */
  readonly promptDigest: string;
  /** sha256 (hex) of the GGUF, or null while it is still being computed. */
  readonly artifact: string | null;
}

/** Tokens and the text that they released: text lags behind tokens (UTF-8, stop strings), so either may be empty. */
export interface ChunkEvent {
  readonly type: 'chunk';
  /** Which of the `n` answers: 0-based. */
  readonly choice: number;
  /** Index of `tokens[0]` among the choice's tokens; each chunk continues where the last ended. */
  readonly index: number;
  readonly tokens: readonly number[];
  readonly text: string;
}

export interface Usage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Prompt tokens that came from a cache. */
  readonly cachedTokens: number;
}

/** Durations on the serving node, milliseconds. */
export interface Timings {
  readonly promptMs: number;
  readonly predictedMs: number;
}

/** The whole answer was given. Always last; an answer that ends without it was cut. */
export interface EndEvent {
  readonly type: 'end';
  /** One for each choice, in order. */
  readonly finishReasons: readonly FinishReason[];
  readonly usage: Usage;
  readonly timings: Timings;
}

/** Order: progress* accepted (chunk)* end. A failure is thrown as a `MeshError` instead. */
export type InferenceEvent = ProgressEvent | AcceptedEvent | ChunkEvent | EndEvent;
