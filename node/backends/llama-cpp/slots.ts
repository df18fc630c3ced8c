/** Which of a fixed number of sequences are free, and which of them a prompt is best begun on. */

/**
 * The shortest prefix that is worth keeping. A request off the lowest free id leaves a gap that costs all streams one
 * more decode with every token; these few tokens are evaluated in about the time of one such decode.
 */
export const LEAST_REUSED_TOKENS = 32;

export interface SlotState {
  readonly busy: boolean;
  /** The tokens whose state it holds, from the first on. */
  readonly tokens: readonly number[];
}

export interface SlotChoice {
  readonly index: number;
  /** How many of the prompt's first tokens need no evaluation: 0, or at least `LEAST_REUSED_TOKENS`. */
  readonly reusedTokens: number;
}

/**
 * The free slot that holds most of the prompt's beginning, the lowest of equals; without a useful beginning the lowest
 * free one, because llama.cpp decodes only consecutive ids together. null when all are taken.
 */
export function chooseSlot(slots: readonly SlotState[], prompt: readonly number[]): SlotChoice | null {
  let best: SlotChoice | null = null;
  for (const [index, { busy, tokens }] of slots.entries()) {
    if (busy) continue;
    const reusedTokens = usefulPrefix(tokens, prompt);
    if (best === null || reusedTokens > best.reusedTokens) best = { index, reusedTokens };
  }
  return best;
}

/** The prompt's last token is always evaluated: the first token of the answer is sampled from what it gives. */
function usefulPrefix(held: readonly number[], prompt: readonly number[]): number {
  const most = Math.min(held.length, prompt.length - 1);
  let length = 0;
  while (length < most && held[length] === prompt[length]) length += 1;
  return length < LEAST_REUSED_TOKENS ? 0 : length;
}

export class Slots {
  readonly #sequences: readonly { readonly tokens: readonly number[] }[];
  readonly #busy: boolean[];

  /** The sequences say what they hold at the time they are asked. */
  constructor(sequences: readonly { readonly tokens: readonly number[] }[]) {
    this.#sequences = sequences;
    this.#busy = sequences.map(() => false);
  }

  /** Takes the slot that `chooseSlot` picks. */
  acquire(prompt: readonly number[]): SlotChoice | null {
    const states = this.#sequences.map((sequence, index) => {
      const busy = this.#busy[index] === true;
      return { busy, tokens: busy ? [] : sequence.tokens };
    });
    const choice = chooseSlot(states, prompt);
    if (choice !== null) this.#busy[choice.index] = true;
    return choice;
  }

  release(index: number): void {
    this.#busy[index] = false;
  }
}
