/** Log probabilities of an answer in OpenAI's two shapes, read leniently: what is no such thing is left out. */
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import type { Logprob, TokenLogprob } from '../../../protocols/inference/events.ts';

const MAX_ALTERNATIVES = 128;

type Fields = Readonly<Record<string, unknown>>;

/** Those of the tokens, and of a prompt's first token, which has none. */
export interface ReadLogprobs {
  readonly logprobs?: readonly TokenLogprob[];
  readonly promptLogprobs?: readonly null[];
}

/** Of a choice's `logprobs`; nothing for null and for shapes of nobody. */
export function readLogprobs(value: unknown): ReadLogprobs {
  if (!isRecord(value)) return {};
  if (Array.isArray(value['content'])) return some(value['content'].flatMap(chatEntry));
  return Array.isArray(value['tokens']) ? completionEntries(value, value['tokens']) : {};
}

function chatEntry(value: unknown): TokenLogprob[] {
  const own = logprob(value);
  if (own === null || !isRecord(value)) return [];
  const top = Array.isArray(value['top_logprobs']) ? value['top_logprobs'].slice(0, MAX_ALTERNATIVES) : [];
  return [{ ...own, top: top.flatMap((entry) => logprob(entry) ?? []) }];
}

function logprob(value: unknown): Logprob | null {
  if (!isRecord(value) || typeof value['token'] !== 'string' || typeof value['logprob'] !== 'number') return null;
  const { token, bytes } = value;
  return { token, logprob: value['logprob'], bytes: isBytes(bytes) ? bytes : utf8(token) };
}

function completionEntries(value: Fields, tokens: readonly unknown[]): ReadLogprobs {
  const logprobs = listOf(value['token_logprobs']);
  const tops = listOf(value['top_logprobs']);
  const entries = tokens.flatMap((token, index): TokenLogprob[] => {
    const own = logprobs[index];
    if (typeof token !== 'string' || typeof own !== 'number') return [];
    return [{ token, bytes: utf8(token), logprob: own, top: topOf(tops[index]) }];
  });
  const echoesPrompt = tokens.length > 0 && logprobs[0] === null;
  return { ...some(entries), ...(echoesPrompt ? { promptLogprobs: [null] } : {}) };
}

function topOf(value: unknown): Logprob[] {
  if (!isRecord(value)) return [];
  const entries = Object.entries(value).slice(0, MAX_ALTERNATIVES);
  const top = entries.flatMap(([token, own]) =>
    typeof own === 'number' ? [{ token, bytes: utf8(token), logprob: own }] : [],
  );
  return top.toSorted((a, b) => b.logprob - a.logprob);
}

const some = (logprobs: readonly TokenLogprob[]): ReadLogprobs => (logprobs.length === 0 ? {} : { logprobs });
const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
const utf8 = (text: string): number[] => [...Buffer.from(text)];
const isBytes = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((it) => Number.isInteger(it));
