/** From rendered text to token ids, their digest, and whether they fit. */
import { createHash } from 'node:crypto';
import type { InferenceKind } from '../../../../protocols/inference/events.ts';
import { MeshError } from '../../../common/errors.ts';
import type { Segment } from './control-text.ts';

/** The model's tokenizer. */
export interface Tokenizer {
  /**
   * @param special whether control tokens in the text act.
   * @param continues whether text stands before it, so that a leading space is not the tokenizer's to add.
   */
  tokenize(text: string, special: boolean, continues: boolean): number[];
  /** The token that every sequence must begin with, where the model says so. */
  readonly leadingToken: number | null;
}

/** A part of a prompt: text, or a token that stands for itself. */
export type PromptPart = Segment | { readonly token: number };

/** A text this many times as long as the context is sized up by its beginning: tokenising 16 MiB takes seconds. */
const PROBE_CHARS_PER_TOKEN = 32;
const PROBE_FLOOR_CHARS = 64 * 1024;

/**
 * Token ids of the prompt, at most `contextTokens` - 1, so that an answer has room.
 *
 * @throws MeshError `context_length_exceeded` naming both numbers; `invalid_request` when there is no token at all.
 */
export function promptTokens(
  parts: readonly PromptPart[],
  tokenizer: Tokenizer,
  { contextTokens, kind }: { contextTokens: number; kind: InferenceKind },
): number[] {
  const tokens: number[] = [];
  for (const segment of parts) {
    if ('token' in segment) {
      tokens.push(segment.token);
      continue;
    }
    const continues = tokens.length > 0;
    const probe = Math.max(PROBE_FLOOR_CHARS, PROBE_CHARS_PER_TOKEN * contextTokens);
    if (segment.text.length > 2 * probe) {
      const start = tokenizer.tokenize(segment.text.slice(0, probe), segment.special, continues).length;
      if (tokens.length + start >= contextTokens) {
        const estimate = tokens.length + Math.round((start * segment.text.length) / probe);
        throw tooLong(contextTokens, `about ${estimate}`, kind);
      }
    }
    for (const token of tokenizer.tokenize(segment.text, segment.special, continues)) tokens.push(token);
  }
  const { leadingToken } = tokenizer;
  if (leadingToken !== null && tokens[0] !== leadingToken) tokens.unshift(leadingToken);
  if (tokens.length === 0) {
    throw new MeshError('invalid_request', 'The prompt is empty: this model needs at least one token to continue.', {
      param: fieldOf(kind),
    });
  }
  return fitting(tokens, contextTokens, kind);
}

/**
 * Token ids that came as they are: checked, since native code does not.
 *
 * @throws MeshError `invalid_request` for an id that is not in the vocabulary or no id at all; `context_length_exceeded`.
 */
export function givenTokens(
  tokens: readonly number[],
  { contextTokens, vocabularySize }: { contextTokens: number; vocabularySize: number },
): readonly number[] {
  const strange = tokens.find((token) => !Number.isInteger(token) || token < 0 || token >= vocabularySize);
  if (strange !== undefined || tokens.length === 0) {
    const what = strange === undefined ? 'it is empty' : `${strange} is no token of this model`;
    throw new MeshError(
      'invalid_request',
      `Invalid value for 'prompt': ${what}. Its token ids are 0 to ${vocabularySize - 1}.`,
      { param: 'prompt' },
    );
  }
  return fitting(tokens, contextTokens, 'completion');
}

function fitting<T extends readonly number[]>(tokens: T, contextTokens: number, kind: InferenceKind): T {
  if (tokens.length >= contextTokens) throw tooLong(contextTokens, String(tokens.length), kind);
  return tokens;
}

/** sha256 (hex) of the ids as little-endian uint32. */
export function promptDigest(tokens: readonly number[]): string {
  const bytes = Buffer.alloc(tokens.length * 4);
  tokens.forEach((token, index) => {
    bytes.writeUInt32LE(token, index * 4);
  });
  return createHash('sha256').update(bytes).digest('hex');
}

function tooLong(contextTokens: number, count: string, kind: InferenceKind): MeshError {
  const [what, action] =
    kind === 'chat'
      ? ['messages', 'Please reduce the length of the messages.']
      : ['prompt', 'Please reduce your prompt.'];
  return new MeshError(
    'context_length_exceeded',
    `This model's maximum context length is ${contextTokens} tokens. However, your ${what} resulted in ${count} tokens. ${action}`,
    { param: fieldOf(kind) },
  );
}

function fieldOf(kind: InferenceKind): string {
  return kind === 'chat' ? 'messages' : 'prompt';
}
