/** How an OpenAI body says to sample, and the seeds that make sampled answers repeatable and resumable. */
import type { ChatBody, CompletionBody } from '../../../../protocols/inference/bodies/openai-body.ts';
import type { Sampling } from './generation-request.ts';

/** Keeps the sampler from sorting a whole vocabulary; what it cuts off has next to no probability. */
const DEFAULT_TOP_K = 40;

/** `seed` is used when the body names none. */
export function samplingOf(body: ChatBody | CompletionBody, seed: number): Sampling {
  return {
    temperature: body.temperature ?? 1,
    topP: body.top_p ?? 1,
    topK: body.top_k ?? DEFAULT_TOP_K,
    minP: body.min_p ?? 0,
    repeatPenalty: body.repeat_penalty ?? 1,
    frequencyPenalty: body.frequency_penalty ?? 0,
    presencePenalty: body.presence_penalty ?? 0,
    seed: toUint32(body.seed ?? seed),
    logitBias: Object.entries(body.logit_bias ?? {}).map(([token, bias]) => [Number(token), bias]),
  };
}

/** The body's stop strings as a list. */
export function stopStrings(body: ChatBody | CompletionBody): readonly string[] {
  if (body.stop === undefined) return [];
  return typeof body.stop === 'string' ? [body.stop] : body.stop;
}

/**
 * The seed of one position of the answer, so that an answer continued elsewhere from its tokens samples as the unbroken
 * one would have. Never 2^32-1, by which llama.cpp means "pick one".
 */
export function positionSeed(seed: number, position: number): number {
  let mixed = (seed ^ Math.imul(position + 1, 0x9e3779b1)) >>> 0;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  mixed = (mixed ^ (mixed >>> 16)) >>> 0;
  return mixed === 0xffff_ffff ? 0 : mixed;
}

/** The seed of one of several answers to the same prompt: the first has the request's own. */
export function choiceSeed(seed: number, choice: number): number {
  return choice === 0 ? seed : positionSeed(seed ^ 0x5bd1_e995, choice);
}

function toUint32(seed: number): number {
  return Number(BigInt.asUintN(32, BigInt(seed)));
}
