/** Tokens of one input of a task, and the refusal of one that is too long. */
import { MeshError } from '../../../common/errors.ts';
import type { Tokenizer } from '../prompt/prompt-tokens.ts';

/** A text this many times as long as the context is refused by its beginning: tokenising 16 MiB takes seconds. */
const PROBE_CHARS_PER_TOKEN = 32;
const PROBE_FLOOR_CHARS = 64 * 1024;

export interface InputBounds {
  /** Most tokens that the model takes. */
  readonly contextTokens: number;
  /** The field that the input stands in. */
  readonly param: string;
}

/**
 * Token ids of a text, none of which is a control token, whatever it says.
 *
 * @throws MeshError `context_length_exceeded` naming both numbers when the text is far too long; whether the tokens
 *   fit with what the model adds to them is the caller's to see.
 */
export function inputTokens(text: string, { tokenizer, ...bounds }: InputBounds & { tokenizer: Tokenizer }): number[] {
  const probe = Math.max(PROBE_FLOOR_CHARS, PROBE_CHARS_PER_TOKEN * bounds.contextTokens);
  if (text.length > 2 * probe) {
    const start = tokenizer.tokenize(text.slice(0, probe), false, false).length;
    if (start > bounds.contextTokens) {
      throw tooLong(bounds, `about ${Math.round((start * text.length) / probe)}`);
    }
  }
  return tokenizer.tokenize(text, false, false);
}

/** `count` is what the input has, in words. */
export function tooLong({ contextTokens, param }: InputBounds, count: string): MeshError {
  return new MeshError(
    'context_length_exceeded',
    `This model's maximum context length is ${contextTokens} tokens. However, '${param}' resulted in ${count} tokens. Please shorten it, or cut it into several.`,
    { param },
  );
}
