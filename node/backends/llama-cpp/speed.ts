/** Generation speed of one stream, as an average that follows recent answers. Pure. */

const WEIGHT_OF_NEWEST = 0.25;
/** Shorter answers measure the start, not the speed. */
const LEAST_TOKENS = 8;

export class Speed {
  #tokensPerSecond: number | null = null;

  get tokensPerSecond(): number | null {
    return this.#tokensPerSecond === null ? null : Math.round(this.#tokensPerSecond * 10) / 10;
  }

  /** `predictedMs`: from the first token to the end. */
  measured(completionTokens: number, predictedMs: number): void {
    if (completionTokens < LEAST_TOKENS || predictedMs <= 0) return;
    const rate = ((completionTokens - 1) / predictedMs) * 1_000;
    const before = this.#tokensPerSecond ?? rate;
    this.#tokensPerSecond = before + WEIGHT_OF_NEWEST * (rate - before);
  }
}
