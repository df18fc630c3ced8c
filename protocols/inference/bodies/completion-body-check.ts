/** What a completion body may not say, beyond its schema. */
import { invalidField } from './body-json.ts';
import { promptsOf } from './completion-prompts.ts';
import type { CompletionBody } from './openai-body.ts';
import { checkShared, unserved } from './shared-body-check.ts';

const MAX_CHOICES = 2048;

/** @throws MeshError `invalid_request` that names the field. */
export function checkCompletionBody(body: CompletionBody): void {
  checkShared(body);
  const { n = 1, best_of, echo = false, suffix = '', max_tokens } = body;
  const prompts = promptsOf(body);
  const choices = prompts.length * n;
  if (choices > MAX_CHOICES) {
    throw invalidField('prompt', `prompts times 'n' are ${choices} answers, and at most ${MAX_CHOICES} are given`);
  }
  if (best_of !== undefined && best_of !== n) {
    throw unserved('best_of', `choosing the best of several; it may only be what 'n' is, which is ${n}`);
  }
  if (max_tokens === 0 && !echo) throw invalidField('max_tokens', "it may be 0 only when 'echo' is true");
  if (suffix === '') return;
  if (echo) throw unserved('suffix', "text between a prompt and a suffix is not given together with 'echo'");
  if (prompts.some((prompt) => typeof prompt !== 'string')) {
    throw unserved('suffix', 'text between token ids and a suffix is not given; send the prompt as text');
  }
}
