/** The prompts of a completion body: one or several, each a text or token ids. */
import { invalidField } from './body-json.ts';
import { tokenIds } from './embedding-body.ts';
import type { ChatBody, CompletionBody } from './openai-body.ts';

/** A text, or token ids that are taken as they are. */
export type CompletionPrompt = string | readonly number[];

/**
 * Each prompt of the body.
 *
 * @throws MeshError `invalid_request` whose `param` names what is neither, for example `prompt[3]`.
 */
export function promptsOf({ prompt }: Pick<CompletionBody, 'prompt'>): readonly CompletionPrompt[] {
  if (typeof prompt === 'string') return [prompt];
  if (prompt.length === 0) throw invalidField('prompt', 'must not be empty');
  if (typeof prompt[0] === 'number') return [tokenIds(prompt, 'prompt')];
  return prompt.map((item, index) => {
    const param = `prompt[${index}]`;
    if (typeof item === 'string') return item;
    if (!Array.isArray(item)) throw invalidField(param, 'must be text or a list of token ids');
    if (item.length === 0) throw invalidField(param, 'must not be empty');
    return tokenIds(item, param);
  });
}

/** How many answers the body asks for. @throws As `promptsOf`. */
export function choicesOf(body: ChatBody | CompletionBody): number {
  return (body.n ?? 1) * ('prompt' in body ? promptsOf(body).length : 1);
}
