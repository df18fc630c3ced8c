/** Neighbouring chunks of a choice as one. */
import type { ChunkEvent, ToolCallDelta } from './events.ts';

/** Does `next` go on where `chunk` ended, so that both may be one chunk? */
export function continues(chunk: ChunkEvent, next: ChunkEvent): boolean {
  if (next.choice !== chunk.choice || next.index !== chunk.index + chunk.tokens.length) return false;
  if (chunk.finish !== undefined || next.promptLogprobs !== undefined) return false;
  return (chunk.logprobs === undefined) === (next.logprobs === undefined) || hasNoTokens(chunk) || hasNoTokens(next);
}

/** Both as one chunk; only for what `continues`, or for the parts of one chunk. */
export function join(chunk: ChunkEvent, next: ChunkEvent): ChunkEvent {
  const plain = { ...chunk, tokens: [...chunk.tokens, ...next.tokens], text: chunk.text + next.text };
  if (isPlain(next)) return plain;
  const { reasoning, toolCalls, logprobs, promptLogprobs, finish } = next;
  return {
    ...plain,
    ...(reasoning === undefined ? {} : { reasoning: (chunk.reasoning ?? '') + reasoning }),
    ...(toolCalls === undefined ? {} : { toolCalls: joinCalls(chunk.toolCalls ?? [], toolCalls) }),
    ...(logprobs === undefined ? {} : { logprobs: [...(chunk.logprobs ?? []), ...logprobs] }),
    ...(promptLogprobs === undefined ? {} : { promptLogprobs: [...(chunk.promptLogprobs ?? []), ...promptLogprobs] }),
    ...(finish === undefined ? {} : { finish }),
  };
}

/** Has the chunk tokens and text only, as nearly all have? */
export function isPlain({ reasoning, toolCalls, logprobs, promptLogprobs, finish }: ChunkEvent): boolean {
  const hasNoParts = reasoning === undefined && toolCalls === undefined && finish === undefined;
  return hasNoParts && logprobs === undefined && promptLogprobs === undefined;
}

/** A delta that only adds to the call before it is added to that one's. */
function joinCalls(calls: readonly ToolCallDelta[], next: readonly ToolCallDelta[]): ToolCallDelta[] {
  const joined = [...calls];
  for (const delta of next) {
    const last = joined.at(-1);
    const adds = last !== undefined && last.index === delta.index && delta.id === undefined && delta.name === undefined;
    if (adds) joined[joined.length - 1] = { ...last, arguments: last.arguments + delta.arguments };
    else joined.push(delta);
  }
  return joined;
}

const hasNoTokens = (chunk: ChunkEvent): boolean => chunk.tokens.length === 0;
