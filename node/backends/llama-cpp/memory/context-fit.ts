/** How large a context fits the memory: decided from estimates, before llama.cpp allocates and takes the process down. */
import { MeshError } from '../../../common/errors.ts';
import { DEFAULT_CONTEXT_TOKENS } from '../ipc.ts';

/** Bytes, of the machine and of its GPUs. */
export interface Memory {
  readonly ramBytes: number;
  readonly vramBytes: number;
}

export interface ContextQuestion {
  /** What the user asked for, null for as much as is sensible. */
  readonly requestedTokens: number | null;
  readonly trainedTokens: number;
  readonly parallel: number;
  readonly free: Memory;
  /** What all sequences of that context need. */
  readonly need: (contextTokens: number) => Promise<Memory>;
}

/** A context smaller than this is of no use to a chat. */
const LEAST_TOKENS = 512;
const FIRST_PART_TOKENS = 32_768;
/** The rest is left to everything else on the machine. */
export const USABLE_SHARE = 0.9;

/**
 * Tokens per sequence.
 *
 * @throws MeshError `out_of_memory` when what was asked for, or else the least useful context, does not fit.
 */
export async function fittingContext(question: ContextQuestion): Promise<number> {
  const { requestedTokens, trainedTokens, need, free } = question;
  if (requestedTokens !== null) return await exactContext(requestedTokens, question);
  const sizes = contextSizes(trainedTokens);
  for (const [index, tokens] of sizes.entries()) {
    const needed = await need(tokens);
    if (fits(needed, free)) return tokens;
    if (index === sizes.length - 1) throw doesNotFit(tokens, question, needed);
  }
  throw new MeshError('internal_error', 'There is no size to try.');
}

/** What is tried when nobody asked for a size, in this order: from the sensible most down by halves to the useful least. */
export function contextSizes(trainedTokens: number): readonly number[] {
  const most = Math.min(trainedTokens || DEFAULT_CONTEXT_TOKENS, DEFAULT_CONTEXT_TOKENS);
  const least = Math.min(most, LEAST_TOKENS);
  const sizes = [most];
  for (let tokens = most; tokens > least; ) {
    tokens = Math.max(least, Math.floor(tokens / 2));
    sizes.push(tokens);
  }
  return sizes;
}

/** Asks for growing parts of it: estimates of absurd sizes take minutes, and the first part that does not fit decides. */
async function exactContext(tokens: number, question: ContextQuestion): Promise<number> {
  for (let part = Math.min(tokens, FIRST_PART_TOKENS); ; part = Math.min(tokens, part * 2)) {
    const needed = await question.need(part);
    if (!fits(needed, question.free)) throw doesNotFit(tokens, question, needed);
    if (part === tokens) return tokens;
  }
}

/**
 * Checks the weights alone.
 *
 * @throws MeshError `out_of_memory`.
 */
export function weightsFit(need: Memory, free: Memory): void {
  if (fits(need, free)) return;
  throw new MeshError(
    'out_of_memory',
    `The model's weights need ${mebibytes(need)} of memory and ${mebibytes(free)} are free. Use a smaller model or a stronger quantisation.`,
  );
}

function fits(need: Memory, free: Memory): boolean {
  return need.ramBytes <= free.ramBytes * USABLE_SHARE && need.vramBytes <= free.vramBytes;
}

function doesNotFit(tokens: number, { parallel, free }: ContextQuestion, need: Memory): MeshError {
  return new MeshError(
    'out_of_memory',
    `A context of ${tokens} tokens for ${parallel} requests at once needs at least ${mebibytes(need)} of memory and ${mebibytes(free)} are free. Start with a smaller --context or --parallel.`,
  );
}

function mebibytes({ ramBytes, vramBytes }: Memory): string {
  const mib = (bytes: number): string => `${Math.ceil(bytes / 2 ** 20)} MiB`;
  return vramBytes === 0 ? mib(ramBytes) : `${mib(ramBytes)} (+ ${mib(vramBytes)} on the GPU)`;
}
