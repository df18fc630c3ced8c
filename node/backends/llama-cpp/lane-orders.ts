/** A request as orders for its engine, one for each choice. Pure. */
import { createHash } from 'node:crypto';
import type { LaneOrder } from './ipc.ts';
import type { GenerationRequest } from './request/generation-request.ts';
import { choiceSeed } from './request/sampling.ts';

/** Every choice as an order, in ascending order of choices. */
export function laneOrders(request: GenerationRequest): LaneOrder[] {
  const { prompts, choices, sampling, requestId, resume } = request;
  const { maxTokens, stop, constraint, parseTools, parallelTools, logprobs, echo, isBatch } = request;
  const rank = isBatch === true ? { isBatch } : {};
  const what = { type: 'lane', maxTokens, stop, constraint, parseTools, parallelTools, logprobs, echo } as const;
  const common = { ...what, ...rank };
  return prompts.flatMap((prompt, index) =>
    Array.from({ length: choices }, (_, answer) => {
      const choice = index * choices + answer;
      const { tokens, finish } = resume?.choices[choice] ?? { tokens: [], finish: null };
      return {
        ...common,
        choice,
        prompt,
        sampling: { ...sampling, seed: choiceSeed(sampling.seed, answer) },
        callIdSeed: `${requestId}:${choice}`,
        resumed: tokens,
        finished: finish !== null,
      };
    }),
  );
}

/** The digest of all prompts: of the only one, its own; of several, sha256 of theirs as hex, one after the other. */
export function digestOfPrompts(digests: readonly string[]): string {
  const [only] = digests;
  if (only !== undefined && digests.length === 1) return only;
  return createHash('sha256').update(digests.join('')).digest('hex');
}

/**
 * An order that only renders, for a prompt whose own choices come late: the answer is accepted as a whole, and those
 * that run must not wait for it with their first tokens.
 */
export function sounding(order: LaneOrder): LaneOrder {
  return { ...order, resumed: [], finished: true };
}
