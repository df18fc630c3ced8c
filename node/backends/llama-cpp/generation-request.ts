/** A request as the engine runs it: no trace of the API that it came through. */

import type { InferenceRequest } from '../../../protocols/inference/events.ts';
import { parseBody } from '../../../protocols/inference/openai-body.ts';
import { chatRequest } from './chat-request.ts';
import { completionRequest } from './completion-request.ts';

export interface PromptMessage {
  readonly role: 'system' | 'user' | 'assistant' | 'tool';
  readonly content: string;
  readonly name?: string;
  readonly toolCallId?: string;
}

/** Messages for the model's chat template, or text that is continued as it stands. */
export type Prompt = { readonly messages: readonly PromptMessage[] } | { readonly text: string };

export interface Sampling {
  /** 0 is greedy. */
  readonly temperature: number;
  /** 1 is off. */
  readonly topP: number;
  /** 0 is off, and slow: the whole vocabulary is sorted for every token. */
  readonly topK: number;
  /** 0 is off. */
  readonly minP: number;
  /** 1 is off. */
  readonly repeatPenalty: number;
  /** 0 is off. */
  readonly frequencyPenalty: number;
  /** 0 is off. */
  readonly presencePenalty: number;
  /** 0 to 2^32-1. Each position samples with its own seed derived from it. */
  readonly seed: number;
}

export interface GenerationRequest {
  readonly prompt: Prompt;
  /** null for what fits the context. */
  readonly maxTokens: number | null;
  readonly stop: readonly string[];
  readonly sampling: Sampling;
}

/** @throws MeshError `invalid_request` that names the field. */
export function generationRequest(request: InferenceRequest): GenerationRequest {
  return request.kind === 'chat'
    ? chatRequest(parseBody('chat', request.body), request.seed)
    : completionRequest(parseBody('completion', request.body), request.seed);
}
