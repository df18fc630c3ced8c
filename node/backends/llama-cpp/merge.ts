/** Several producers of values, one reader: each producer waits until its value was taken. */
export class Merge<T> {
  readonly #queue: { readonly value: T; readonly taken: () => void }[] = [];
  #failure: Error | null = null;
  #ended = false;
  #wake: () => void = () => {};

  /** Resolves when the reader has taken the value, or will take none any more. */
  put(value: T): Promise<void> {
    if (this.#failure !== null || this.#ended) return Promise.resolve();
    return new Promise((taken) => {
      this.#queue.push({ value, taken });
      this.#wake();
    });
  }

  /** No value comes after those that were put. */
  end(): void {
    this.#ended = true;
    this.#wake();
  }

  /** The reader gets what was put before, then the error. */
  fail(error: Error): void {
    if (this.#failure !== null || this.#ended) return;
    this.#failure = error;
    for (const { taken } of this.#queue) taken();
    this.#wake();
  }

  /**
   * The values, once.
   *
   * @throws as passed to `fail`.
   */
  async *values(): AsyncGenerator<T> {
    for (;;) {
      const next = this.#queue.shift();
      if (next !== undefined) {
        next.taken();
        yield next.value;
      } else if (this.#failure !== null) {
        throw this.#failure;
      } else if (this.#ended) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
    }
  }
}
