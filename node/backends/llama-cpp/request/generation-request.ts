/** A request as the engine runs it: no trace of the API that it came through. */

import { parseBody } from '../../../../protocols/inference/bodies/openai-body.ts';
import type { GenerationKind, InferenceRequest, Resume } from '../../../../protocols/inference/events.ts';
import { chatRequest } from './chat-request.ts';
import { completionRequest } from './completion-request.ts';

export interface PromptMessage {
  readonly role: 'system' | 'user' | 'assistant' | 'tool';
  readonly content: string;
  readonly name?: string;
  readonly toolCallId?: string;
  /** What the assistant asked for in an earlier turn. */
  readonly toolCalls?: readonly PromptToolCall[];
  /** What the assistant thought in an earlier turn. */
  readonly reasoning?: string;
}

export interface PromptToolCall {
  readonly id: string;
  readonly name: string;
  /** A JSON object as text. */
  readonly arguments: string;
}

export interface ToolDefinition {
  readonly name: string;
  readonly description?: string;
  /** JSON schema of the arguments; absent: an object of anything. */
  readonly parameters?: JsonSchema;
}

export type JsonSchema = boolean | { readonly [keyword: string]: unknown };

/** What is continued: messages by the model's template, text or tokens as they stand, or the middle between two texts. */
export type Prompt =
  | { readonly kind: 'chat'; readonly messages: readonly PromptMessage[]; readonly tools: readonly ToolDefinition[] }
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'tokens'; readonly tokens: readonly number[] }
  | { readonly kind: 'fill'; readonly prefix: string; readonly suffix: string };

/** What the answer must be, enforced while it is sampled. */
export type Constraint =
  | { readonly type: 'none' }
  /** Any JSON object. */
  | { readonly type: 'json' }
  | { readonly type: 'json-schema'; readonly schema: JsonSchema }
  /** At least one tool call and nothing else; of the named tool where one is named. */
  | { readonly type: 'tool-call'; readonly name: string | null };

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
  /** Added to a token's logit before sampling: -100 to 100, which ban and all but demand it. */
  readonly logitBias: readonly (readonly [token: number, bias: number])[];
}

export interface GenerationRequest {
  /** One for a chat. Choice `p * choices + i` is the i-th answer to prompt p; its seed is `choiceSeed(sampling.seed, i)`. */
  readonly prompts: readonly Prompt[];
  /** Answers to each prompt: OpenAI's `n`. */
  readonly choices: number;
  /** null for what fits the context; 0 only echoes. */
  readonly maxTokens: number | null;
  readonly stop: readonly string[];
  readonly sampling: Sampling;
  readonly constraint: Constraint;
  /** Tool calls in the answer are parsed out of its text. False: text is text, whatever it looks like. */
  readonly parseTools: boolean;
  /** False: one tool call at most, at which the answer ends. */
  readonly parallelTools: boolean;
  /** Alternatives to report for each token, 0 to 20; null for no log probabilities. */
  readonly logprobs: number | null;
  /** The answer begins with the prompt's own text. */
  readonly echo: boolean;
  /** Unique per client request: ids of tool calls derive from it, so that a twin gives the same. */
  readonly requestId: string;
  readonly resume: Resume | null;
  /** Nobody waits for it. Absent: somebody does. */
  readonly isBatch?: boolean;
}

/** @throws MeshError `invalid_request` that names the field. */
export function generationRequest(request: InferenceRequest & { readonly kind: GenerationKind }): GenerationRequest {
  const generation =
    request.kind === 'chat'
      ? chatRequest(parseBody('chat', request.body), request)
      : completionRequest(parseBody('completion', request.body), request);
  return request.priority === 'batch' ? { ...generation, isBatch: true } : generation;
}
