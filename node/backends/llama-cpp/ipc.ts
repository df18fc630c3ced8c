/** Messages between the node and an engine child, JSON over the fork's channel. Both ends are the same release. */

import type { FinishReason, Timings } from '../../../protocols/inference/events.ts';
import type { ErrorCode } from '../../common/errors.ts';
import type { GenerationRequest } from './generation-request.ts';

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

export type ToChild =
  | LoadOrder
  /** Starts a generation; never more at once than `parallel`. `id` is unique within the child's life. */
  | { readonly type: 'generate'; readonly id: number; readonly request: GenerationRequest }
  /** Ends one early; answered by `released`. Unknown ids are ignored: their end is on its way. */
  | { readonly type: 'cancel'; readonly id: number };

/** What one step gave one request. */
export interface StepOutput {
  readonly id: number;
  readonly tokens: readonly number[];
  readonly text: string;
  /** With the last output of a request; its slot is then free. */
  readonly end?: StepEnd;
}

export interface StepEnd {
  readonly finish: FinishReason;
  readonly promptTokens: number;
  readonly completionTokens: number;
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
  /** Every `BEAT_PERIOD_MS`. `ageMs`: since the last finished step while there is work, else 0. */
  | { readonly type: 'beat'; readonly ageMs: number };

export const BEAT_PERIOD_MS = 250;

/** Largest context that is taken without being asked for: more costs memory that most chats never use. */
export const DEFAULT_CONTEXT_TOKENS = 8192;
