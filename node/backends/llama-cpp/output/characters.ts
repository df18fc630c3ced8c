/** Whole characters out of tokens that end anywhere within them. */

/** Text of `tokens` when they follow `previous` (which some tokenizers need to place spaces). */
export type Detokenize = (tokens: readonly number[], previous: readonly number[]) => string;

const REPLACEMENT = '\uFFFD';
/** No character takes more tokens than its bytes; past this the model really means U+FFFD. */
const MAX_HELD_TOKENS = 8;

export class Characters {
  readonly #detokenize: Detokenize;
  readonly #tagTokens: ReadonlyMap<number, string>;
  /** Tokens whose text ends within a character. */
  #held: number[] = [];
  #previous: readonly number[] = [];

  /** @param tagTokens text of control tokens that `detokenize` leaves out and that are wanted. */
  constructor(detokenize: Detokenize, tagTokens: ReadonlyMap<number, string>) {
    this.#detokenize = detokenize;
    this.#tagTokens = tagTokens;
  }

  /** What can be told of the text after one token more. */
  push(token: number): string {
    const tag = this.#tagTokens.get(token);
    if (tag !== undefined) {
      const cut = this.end();
      this.#previous = [token];
      return cut + tag;
    }
    this.#held.push(token);
    const text = this.#detokenize(this.#held, this.#previous);
    if (text.endsWith(REPLACEMENT) && this.#held.length < MAX_HELD_TOKENS) return '';
    this.#previous = this.#held;
    this.#held = [];
    return text;
  }

  /** No token completes what is held: a cut character is U+FFFD. */
  end(): string {
    const cut = this.#held.length === 0 ? '' : this.#detokenize(this.#held, this.#previous);
    this.#held = [];
    return cut;
  }
}
