/** Which of a fixed number of sequences are free, and which of them a prompt is best begun on. */

/**
 * The shortest prefix that is worth keeping. A request that is not beside the others leaves a gap that costs all streams
 * one more decode with every token; these few tokens are evaluated in about the time of one such decode.
 */
export const LEAST_REUSED_TOKENS = 32;

export interface SlotState {
  readonly busy: boolean;
  /** The tokens whose state it holds, from the first on. */
  readonly tokens: readonly number[];
  /** Grows with each use. */
  readonly lastUsed: number;
}

export interface SlotChoice {
  readonly index: number;
  /** How many of the prompt's first tokens need no evaluation: 0, or at least `LEAST_REUSED_TOKENS`. */
  readonly reusedTokens: number;
}

/**
 * The free slot that holds most of the prompt's beginning, the lowest of equals. Without a useful beginning one beside
 * the busy ones, because llama.cpp decodes only consecutive ids together: of these one that holds nothing worth keeping,
 * or else what was not used for longest, so that conversations by turns find theirs again. null when all are taken.
 */
export function chooseSlot(slots: readonly SlotState[], prompt: readonly number[]): SlotChoice | null {
  let best: SlotChoice | null = null;
  for (const [index, { busy, tokens }] of slots.entries()) {
    if (busy) continue;
    const reusedTokens = usefulPrefix(tokens, prompt);
    if (best === null || reusedTokens > best.reusedTokens) best = { index, reusedTokens };
  }
  if (best === null || best.reusedTokens > 0) return best;
  const [index = best.index] = besideBusy(slots).toSorted((a, b) => loss(slots[a]) - loss(slots[b]) || a - b);
  return { index, reusedTokens: 0 };
}

/** Free ids that leave no gap: between the busy ones if there is one, or next to them; all when none is busy. */
function besideBusy(slots: readonly SlotState[]): number[] {
  const ids = [...slots.keys()];
  const isBusy = (id: number): boolean => slots[id]?.busy === true;
  const [first, last] = [ids.findIndex(isBusy), ids.findLastIndex(isBusy)];
  const free = ids.filter((id) => !isBusy(id));
  if (first === -1) return free;
  const between = free.filter((id) => id > first && id < last);
  return between.length > 0 ? between : free.filter((id) => id === first - 1 || id === last + 1);
}

/** How much is lost when the slot is given to another conversation. */
function loss(slot: SlotState | undefined): number {
  return slot === undefined || slot.tokens.length < LEAST_REUSED_TOKENS ? 0 : slot.lastUsed;
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
  /** By slot: the count of all uses until its last one ended. */
  readonly #lastUsed: number[];
  #uses = 0;

  /** The sequences say what they hold at the time they are asked. */
  constructor(sequences: readonly { readonly tokens: readonly number[] }[]) {
    this.#sequences = sequences;
    this.#busy = sequences.map(() => false);
    this.#lastUsed = sequences.map(() => 0);
  }

  /** Takes the slot that `chooseSlot` picks. */
  acquire(prompt: readonly number[]): SlotChoice | null {
    const states = this.#sequences.map((sequence, index) => {
      const busy = this.#busy[index] === true;
      return { busy, tokens: busy ? [] : sequence.tokens, lastUsed: this.#lastUsed[index] ?? 0 };
    });
    const choice = chooseSlot(states, prompt);
    if (choice !== null) this.#busy[choice.index] = true;
    return choice;
  }

  /** `isBatch`: what it leaves is given up before anything that somebody may come back to. */
  release(index: number, isBatch: boolean = false): void {
    this.#busy[index] = false;
    this.#uses += 1;
    this.#lastUsed[index] = isBatch ? 0 : this.#uses;
  }
}
