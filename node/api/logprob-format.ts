/** Log probabilities in OpenAI's two shapes. */
import type { Logprob, TokenLogprob } from '../../protocols/inference/events.ts';

/** JSON has no minus infinity; OpenAI's API says this for "next to impossible". */
const LEAST = -9999;
/** A choice's first chunk has hardly more. */
const MAX_FIRST_TOKENS = 64;

/** As chats have them, in whole answers and in chunks. */
export function chatLogprobs(entries: readonly TokenLogprob[]): object {
  return {
    content: entries.map((entry) => ({ ...chatLogprob(entry), top_logprobs: entry.top.map(chatLogprob) })),
    refusal: null,
  };
}

/** What is said of the tokens of an echoed prompt; the first has no probability. */
export interface EchoLogprobs {
  readonly entries: readonly (TokenLogprob | null)[];
  /** Text that begins with the prompt's. */
  readonly text: string;
}

/**
 * As completions have them. `offset`: characters of the choice before these tokens.
 *
 * @returns the shape, and the offset of what follows.
 */
export function completionLogprobs(
  entries: readonly TokenLogprob[],
  offset: number,
  echo: EchoLogprobs | null = null,
): { readonly shape: object; readonly offset: number } {
  const tokens: string[] = [];
  const offsets: number[] = [];
  const logprobs: (number | null)[] = [];
  const tops: (Record<string, number> | null)[] = [];
  let at = offset;
  const add = (token: string, entry: TokenLogprob | null): void => {
    tokens.push(token);
    offsets.push(at);
    logprobs.push(entry === null ? null : finite(entry.logprob));
    tops.push(entry === null ? null : topOf(entry));
    at += token.length;
  };
  for (const entry of echo?.entries ?? []) add(entry?.token ?? firstToken(echo, entries), entry);
  for (const entry of entries) add(entry.token, entry);
  return { shape: { tokens, token_logprobs: logprobs, top_logprobs: tops, text_offset: offsets }, offset: at };
}

/**
 * Nobody says what a prompt's first token reads like: it is what the text has before all others. The text may lag behind
 * the last tokens of the answer.
 */
function firstToken(echo: EchoLogprobs | null, answer: readonly TokenLogprob[]): string {
  if (echo === null) return '';
  const rest = echo.entries.map((entry) => entry?.token ?? '').join('');
  for (let count = Math.min(answer.length, MAX_FIRST_TOKENS); count >= 0; count -= 1) {
    const after =
      rest +
      answer
        .slice(0, count)
        .map(({ token }) => token)
        .join('');
    if (echo.text.endsWith(after)) return echo.text.slice(0, echo.text.length - after.length);
  }
  return '';
}

const chatLogprob = ({ token, bytes, logprob }: Logprob): object => ({ token, bytes, logprob: finite(logprob) });

/** Tokens that read alike are told once, with the better of their probabilities. */
function topOf({ top }: TokenLogprob): Record<string, number> {
  return Object.fromEntries(top.toReversed().map(({ token, logprob }) => [token, finite(logprob)]));
}

const finite = (logprob: number): number => (Number.isFinite(logprob) ? logprob : LEAST);
