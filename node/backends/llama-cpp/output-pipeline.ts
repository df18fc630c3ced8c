/** From generated tokens to the text that may be shown: whole characters only, nothing of a stop string. Pure: replayed
 * from the same tokens it arrives at the same state and the same text. */

/** Text of `tokens` when they follow `previous` (which some tokenizers need to place spaces). */
export type Detokenize = (tokens: readonly number[], previous: readonly number[]) => string;

export interface Output {
  readonly text: string;
  /** `stop` once a stop string was found: nothing after it is shown, and no token more is wanted. */
  readonly finish: 'stop' | null;
}

const REPLACEMENT = '\uFFFD';
/** No character takes more tokens than its bytes; past this the model really means U+FFFD. */
const MAX_HELD_TOKENS = 8;

export class OutputPipeline {
  readonly #detokenize: Detokenize;
  readonly #stops: readonly string[];
  /** Tokens whose text ends within a character. */
  #held: number[] = [];
  #previous: readonly number[] = [];
  /** Text that may turn out to begin a stop string. */
  #pending = '';
  #finished = false;

  constructor(detokenize: Detokenize, stops: readonly string[]) {
    this.#detokenize = detokenize;
    this.#stops = stops;
  }

  /** Takes the next token. After `finish` nothing more comes out. */
  push(token: number): Output {
    if (this.#finished) return { text: '', finish: 'stop' };
    this.#held.push(token);
    const text = this.#detokenize(this.#held, this.#previous);
    if (text.endsWith(REPLACEMENT) && this.#held.length < MAX_HELD_TOKENS) return { text: '', finish: null };
    this.#previous = this.#held;
    this.#held = [];
    return this.#release(text);
  }

  /** The answer is over: what was held back, a stop string's beginning and a cut character included. */
  flush(): string {
    if (this.#finished) return '';
    const cut = this.#held.length === 0 ? '' : this.#detokenize(this.#held, this.#previous);
    this.#held = [];
    const { text, finish } = this.#release(cut);
    if (finish === 'stop') return text;
    const rest = text + this.#pending;
    this.#pending = '';
    this.#finished = true;
    return rest;
  }

  #release(text: string): Output {
    const all = this.#pending + text;
    const end = this.#firstStop(all);
    if (end !== -1) {
      this.#finished = true;
      this.#pending = '';
      return { text: all.slice(0, end), finish: 'stop' };
    }
    const keep = this.#possibleStop(all);
    this.#pending = all.slice(all.length - keep);
    return { text: all.slice(0, all.length - keep), finish: null };
  }

  /** Where the earliest stop string begins, -1 where there is none. */
  #firstStop(text: string): number {
    let first = -1;
    for (const stop of this.#stops) {
      const at = text.indexOf(stop);
      if (at !== -1 && (first === -1 || at < first)) first = at;
    }
    return first;
  }

  /** Length of the longest end of `text` that begins a stop string. */
  #possibleStop(text: string): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > longest; length -= 1) {
        if (text.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
