/** A legacy completion body as a generation request. */

import { type CompletionPrompt, promptsOf } from '../../../../protocols/inference/bodies/completion-prompts.ts';
import type { CompletionBody } from '../../../../protocols/inference/bodies/openai-body.ts';
import type { InferenceRequest } from '../../../../protocols/inference/events.ts';
import type { GenerationRequest, Prompt } from './generation-request.ts';
import { samplingOf, stopStrings } from './sampling.ts';

/** What OpenAI's API generates at most when the body does not say. */
const DEFAULT_MAX_TOKENS = 16;

/** The request's seed is used when the body names none. */
export function completionRequest(
  body: CompletionBody,
  { requestId, seed, resume }: InferenceRequest,
): GenerationRequest {
  return {
    prompts: promptsOf(body).map((prompt) => promptOf(prompt, body.suffix ?? '')),
    choices: body.n ?? 1,
    maxTokens: body.max_tokens ?? DEFAULT_MAX_TOKENS,
    stop: stopStrings(body),
    sampling: samplingOf(body, seed),
    constraint: { type: 'none' },
    parseTools: false,
    parallelTools: true,
    logprobs: body.logprobs ?? null,
    echo: body.echo ?? false,
    requestId,
    resume: resume ?? null,
  };
}

function promptOf(prompt: CompletionPrompt, suffix: string): Prompt {
  if (typeof prompt !== 'string') return { kind: 'tokens', tokens: prompt };
  return suffix === '' ? { kind: 'text', text: prompt } : { kind: 'fill', prefix: prompt, suffix };
}
