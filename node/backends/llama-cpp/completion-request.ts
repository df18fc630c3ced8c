/** A legacy completion body as a generation request. */
import type { CompletionBody } from '../../../protocols/inference/openai-body.ts';
import type { GenerationRequest } from './generation-request.ts';
import { samplingOf, stopStrings } from './sampling.ts';

/** What OpenAI's API generates at most when the body does not say. */
const DEFAULT_MAX_TOKENS = 16;

/** `seed` is used when the body names none. */
export function completionRequest(body: CompletionBody, seed: number): GenerationRequest {
  const prompt = typeof body.prompt === 'string' ? body.prompt : String(body.prompt[0] ?? '');
  return {
    prompt: { text: prompt },
    maxTokens: body.max_tokens ?? DEFAULT_MAX_TOKENS,
    stop: stopStrings(body),
    sampling: samplingOf(body, seed),
  };
}
