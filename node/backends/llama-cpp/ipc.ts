/** Messages between the node and an engine child, JSON over the fork's channel. Both ends are the same release. */

import type { FinishReason, Timings, TokenLogprob, ToolCallDelta } from '../../../protocols/inference/events.ts';
import type { ErrorCode } from '../../common/errors.ts';
import type { GenerationRequest, Prompt } from './request/generation-request.ts';
import type { EngineTask, EngineTaskResult } from './tasks/engine-task.ts';

export type GpuChoice = 'auto' | 'off' | 'cuda' | 'vulkan' | 'metal';

/** What a child is started for; sent once, first. Nothing of it stands in argv. */
export interface LoadOrder {
  readonly type: 'load';
  readonly modelPath: string;
  readonly gpu: GpuChoice;
  /** Tokens per sequence; null for as many as fit the memory, up to the trained context and `DEFAULT_CONTEXT_TOKENS`. */
  readonly contextTokens: number | null;
  /** Sequences, and so requests at once. */
  readonly parallel: number;
}

/** One choice of a request: what runs on one sequence. Its sampling has the choice's own seed. */
export interface LaneOrder
  extends Pick<
    GenerationRequest,
    'maxTokens' | 'stop' | 'sampling' | 'constraint' | 'parseTools' | 'parallelTools' | 'logprobs' | 'echo'
  > {
  readonly type: 'lane';
  /** Its number in the answer. */
  readonly choice: number;
  readonly prompt: Prompt;
  /** Ids of tool calls derive from it: the same for the same choice of a request on every machine. */
  readonly callIdSeed: string;
  /** The answer's tokens that have gone out already: it goes on behind them, and releases nothing of theirs. */
  readonly resumed: readonly number[];
  /** These were all: nothing is generated, and the end only counts them. */
  readonly finished: boolean;
  /** Nobody waits for it: it yields to all others. */
  readonly isBatch?: boolean;
}

export type ToChild =
  | LoadOrder
  /** Starts a generation; generations and tasks together are never more than `parallel`. `id` is unique within the child's life. */
  | { readonly type: 'generate'; readonly id: number; readonly order: LaneOrder }
  /** Starts a task; answered by `result` or `refused`, or by `released` when it was cancelled before. */
  | { readonly type: 'task'; readonly id: number; readonly task: EngineTask }
  /** Ends one early; answered by `released`. Unknown ids are ignored: their end is on its way. */
  | { readonly type: 'cancel'; readonly id: number };

/** What one step gave one choice: tokens, or the end, and all that they released. */
export interface StepOutput {
  readonly id: number;
  readonly tokens: readonly number[];
  readonly text: string;
  readonly reasoning?: string;
  readonly toolCalls?: readonly ToolCallDelta[];
  /** One for each of `tokens`. */
  readonly logprobs?: readonly TokenLogprob[];
  /** With the first output of a choice whose prompt is echoed: one for each of its tokens. */
  readonly promptLogprobs?: readonly (TokenLogprob | null)[];
  /** With the last output of a choice; its slot is then free. */
  readonly end?: StepEnd;
}

export interface StepEnd {
  readonly finish: FinishReason;
  readonly promptTokens: number;
  /** Generated here: without the resumed ones. */
  readonly completionTokens: number;
  /** Of all tokens, the resumed ones too, those of thinking. */
  readonly reasoningTokens: number;
  /** Prompt tokens that an earlier request had left on the sequence. */
  readonly cachedTokens: number;
  readonly timings: Timings;
}

export interface ChildFailure {
  readonly code: ErrorCode;
  readonly message: string;
  readonly param?: string;
}

export type FromChild =
  | { readonly type: 'loading' /** 0 to 1. */; readonly fraction: number }
  | { readonly type: 'ready'; readonly contextTokens: number }
  /** The model cannot be loaded; the child exits after it. */
  | ({ readonly type: 'failed' } & ChildFailure)
  | { readonly type: 'accepted'; readonly id: number; readonly promptTokens: number; readonly promptDigest: string }
  /** This request cannot be answered; its slot is free. */
  | ({ readonly type: 'refused'; readonly id: number } & ChildFailure)
  /** A cancelled request's slot is free. `completionTokens` were generated until then. */
  | { readonly type: 'released'; readonly id: number; readonly completionTokens: number }
  /** One per step, for all requests that it gave something. */
  | { readonly type: 'step'; readonly outputs: readonly StepOutput[] }
  /** A task is done; its slot is free. */
  | { readonly type: 'result'; readonly id: number; readonly result: EngineTaskResult }
  /** Every `BEAT_PERIOD_MS`. `ageMs`: since the last finished step while there is work, else 0. */
  | { readonly type: 'beat'; readonly ageMs: number };

export const BEAT_PERIOD_MS = 250;

/** Largest context that is taken without being asked for: more costs memory that most chats never use. */
export const DEFAULT_CONTEXT_TOKENS = 8192;
