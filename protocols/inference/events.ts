/** An inference request and the events of its answer: what backends, dispatcher and wire all speak. Source: docs/ARCHITECTURE.md. */

/** Which OpenAI request the body is. `rerank`, `tokenize` and `detokenize` are not OpenAI's but common beside it. */
export const INFERENCE_KINDS = ['chat', 'completion', 'embedding', 'rerank', 'tokenize', 'detokenize'] as const;
export type InferenceKind = (typeof INFERENCE_KINDS)[number];

/** The kinds whose answer grows token by token; the others give one result. */
export type GenerationKind = 'chat' | 'completion';

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
  /** How many answers the body asks for, prompts × `n`: 1 to 2,048. Absent: not known here, a peer may give up to 16. */
  readonly choices?: number;
  /** A hard limit, on failover too, and for what a peer hands the request on to. Absent: `public`, no limit. */
  readonly boundary?: Boundary;
  /** Go on with an answer that was begun elsewhere instead of beginning it. */
  readonly resume?: Resume;
  /** `batch`: nobody waits for it. It yields to every other request: at admission, and in the engine. Absent: somebody waits. */
  readonly priority?: 'batch';
}

/** `tool_calls`: the model stopped to have tools called. `content_filter`: a server on the internet cut the answer. */
export const FINISH_REASONS = ['stop', 'length', 'tool_calls', 'content_filter'] as const;
export type FinishReason = (typeof FINISH_REASONS)[number];

/** What has gone out of an answer: all that a twin (same artifact, same engine build) needs to go on with it. */
export interface Resume {
  /** Of the first ACCEPT. Who renders the prompt to anything else must refuse with `cannot_resume`. */
  readonly promptDigest: string;
  /** sha256 (hex) of the GGUF that began it. */
  readonly artifact: string;
  /** Every choice of the answer, in order. */
  readonly choices: readonly ResumedChoice[];
}

export interface ResumedChoice {
  /** All of the choice's tokens so far. Their text is not released again, and they count in `usage` once. */
  readonly tokens: readonly number[];
  /** Null while it was still growing. */
  readonly finish: FinishReason | null;
  /** Content text so far, for backends that continue from text. Does not travel to peers. */
  readonly text: string;
  /** Pieces in which that text came, for who must guess how many tokens it is. Does not travel either. */
  readonly chunks?: number;
}

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

/**
 * Tokens of one choice and what they released: text lags behind tokens (UTF-8, stop strings, tags), so any part may be
 * empty. An engine's chunk always has tokens or `finish`, and holds everything that they released, so that an answer can be
 * continued after any chunk. HTTP backends know no tokens.
 */
export interface ChunkEvent {
  readonly type: 'chunk';
  /** Which of the answers: 0-based; with several prompts, prompt × `n` + answer. */
  readonly choice: number;
  /** Index of `tokens[0]` among the choice's tokens; each chunk continues where the last ended. */
  readonly index: number;
  readonly tokens: readonly number[];
  /** Of the answer itself. */
  readonly text: string;
  /** Of the model's thinking before the answer. */
  readonly reasoning?: string;
  readonly toolCalls?: readonly ToolCallDelta[];
  /** One for each of `tokens`; only when they were asked for. */
  readonly logprobs?: readonly TokenLogprob[];
  /** One for each token of an echoed prompt, null for the first; only with the choice's first chunk. */
  readonly promptLogprobs?: readonly (TokenLogprob | null)[];
  /** The choice is whole with this chunk. */
  readonly finish?: FinishReason;
}

/** A part of one tool call. The first of a call has `id` and `name`; `arguments` of all parts together are one JSON text. */
export interface ToolCallDelta {
  /** Which call of the choice: 0-based. */
  readonly index: number;
  /** The same whoever replays the tokens. */
  readonly id?: string;
  readonly name?: string;
  readonly arguments: string;
}

/** Natural logarithms of the model's probabilities before temperature and truncation. */
export interface TokenLogprob extends Logprob {
  /** The most probable ones, best first; as many as were asked for. */
  readonly top: readonly Logprob[];
}

export interface Logprob {
  /** What the token adds to the text; U+FFFD stands for parts of characters. */
  readonly token: string;
  readonly bytes: readonly number[];
  readonly logprob: number;
}

/** A part of the result of a kind that generates nothing: JSON in UTF-8 when all parts are joined, in the route's shape. */
export interface ResultEvent {
  readonly type: 'result';
  readonly body: Uint8Array;
}

export interface Usage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Prompt tokens that came from a cache. */
  readonly cachedTokens: number;
  /** Of the completion tokens, those of thinking. Absent: none were told apart. */
  readonly reasoningTokens?: number;
}

/** Durations on the serving node, milliseconds. */
export interface Timings {
  readonly promptMs: number;
  readonly predictedMs: number;
}

/** The whole answer was given. Always last; an answer that ends without it was cut. */
export interface EndEvent {
  readonly type: 'end';
  /** One for each choice, in order; none for a kind that generates nothing. */
  readonly finishReasons: readonly FinishReason[];
  readonly usage: Usage;
  readonly timings: Timings;
}

/** Order: progress* accepted (chunk* | result*) end. A failure is thrown as a `MeshError` instead. */
export type InferenceEvent = ProgressEvent | AcceptedEvent | ChunkEvent | ResultEvent | EndEvent;
