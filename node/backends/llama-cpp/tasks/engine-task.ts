/**
 * Work of the engine that generates nothing: embeddings, ranking, tokens of a text and text of tokens. Beside this file:
 * `engine-task-answer.ts` (node side), `engine-task-runner.ts` and `native-tasks.ts` (in the child).
 */

import {
  type EmbeddingBody,
  type EmbeddingInput,
  parseEmbeddingBody,
} from '../../../../protocols/inference/bodies/embedding-body.ts';
import { parseBody } from '../../../../protocols/inference/bodies/openai-body.ts';
import { parseRerankBody, type RerankBody } from '../../../../protocols/inference/bodies/rerank-body.ts';
import {
  type DetokenizeBody,
  parseDetokenizeBody,
  parseTokenizeBody,
  type TokenizeBody,
} from '../../../../protocols/inference/bodies/tokenize-body.ts';
import type { InferenceRequest } from '../../../../protocols/inference/events.ts';
import { MeshError } from '../../../common/errors.ts';
import { chatRequest } from '../request/chat-request.ts';
import type { Prompt } from '../request/generation-request.ts';

/** What the child is told to do. Plain JSON. */
export type EngineTask = { /** Nobody waits for it. */ readonly isBatch?: boolean } & (
  | {
      readonly type: 'embed';
      readonly inputs: readonly EmbeddingInput[];
      /** Number of the first input within the request: errors name inputs by it. */
      readonly firstInput: number;
      /** null for all. */
      readonly dimensions: number | null;
    }
  | {
      readonly type: 'rerank';
      readonly query: string;
      readonly documents: readonly string[];
      /** Number of the first document within the request. */
      readonly firstDocument: number;
    }
  | {
      readonly type: 'tokenize';
      readonly prompt: Prompt;
      /** The token that begins every sequence is put before a text. */
      readonly addSpecial: boolean;
      readonly tokenStrings: boolean;
    }
  | { readonly type: 'detokenize'; readonly tokens: readonly number[] }
);

/** What the child answers to the task of the same type. Plain JSON. */
export type EngineTaskResult = TaskFacts &
  (
    | {
        readonly type: 'embed';
        /** One for each input, of length 1: little-endian float32 in base64. */
        readonly vectors: readonly string[];
      }
    /** One for each document: 0 to 1, higher fits the query better. */
    | { readonly type: 'rerank'; readonly scores: readonly number[] }
    | {
        readonly type: 'tokenize';
        readonly tokens: readonly number[];
        /** Text of each token, when asked for. */
        readonly strings: readonly string[] | null;
        /** What the model takes at most. */
        readonly contextTokens: number;
      }
    | { readonly type: 'detokenize'; readonly text: string }
  );

export interface TaskFacts {
  /** Tokens that were evaluated, or counted. */
  readonly promptTokens: number;
  /** sha256 (hex) of all of them as little-endian uint32. */
  readonly promptDigest: string;
  readonly durationMs: number;
}

/** A request's body, read once. */
export type TaskBody =
  | { readonly kind: 'embedding'; readonly body: EmbeddingBody }
  | { readonly kind: 'rerank'; readonly body: RerankBody }
  | { readonly kind: 'tokenize'; readonly body: TokenizeBody; readonly prompt: Prompt }
  | { readonly kind: 'detokenize'; readonly body: DetokenizeBody };

/** @throws MeshError `invalid_request` that names the field. */
export function taskBody(request: InferenceRequest): TaskBody {
  switch (request.kind) {
    case 'embedding':
      return { kind: 'embedding', body: parseEmbeddingBody(request.body) };
    case 'rerank':
      return { kind: 'rerank', body: parseRerankBody(request.body) };
    case 'tokenize': {
      const body = parseTokenizeBody(request.body);
      return { kind: 'tokenize', body, prompt: promptOf(body, request) };
    }
    case 'detokenize':
      return { kind: 'detokenize', body: parseDetokenizeBody(request.body) };
    case 'chat':
    case 'completion':
      throw new MeshError('internal_error', `A ${request.kind} is no task.`);
  }
}

/** The whole request as one task. */
export function engineTask(request: TaskBody): EngineTask {
  switch (request.kind) {
    case 'embedding': {
      const { input, dimensions } = request.body;
      return { type: 'embed', inputs: input, firstInput: 0, dimensions: dimensions ?? null };
    }
    case 'rerank': {
      const { query, documents } = request.body;
      return { type: 'rerank', query, documents, firstDocument: 0 };
    }
    case 'tokenize': {
      const { addSpecial, tokenStrings } = request.body;
      return { type: 'tokenize', prompt: request.prompt, addSpecial, tokenStrings };
    }
    case 'detokenize':
      return { type: 'detokenize', tokens: request.body.tokens };
  }
}

/** Messages are read as those of a chat: the same checks, the same prompt. */
function promptOf({ text }: TokenizeBody, request: InferenceRequest): Prompt {
  if (text !== null) return { kind: 'text', text };
  const [prompt] = chatRequest(parseBody('chat', request.body), request).prompts;
  if (prompt === undefined) throw new MeshError('internal_error', 'A chat without a prompt.');
  return prompt;
}
