/** Finds the first stop string in text that comes in pieces, and shows nothing of it. */
import { beginningAtEnd } from './partial-tag.ts';

export class StopStrings {
  readonly #stops: readonly string[];
  /** Text that may turn out to begin a stop string. */
  #pending = '';

  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop !== '');
  }

  /** Text that is certainly before any stop string; `stopped`: one was found, and nothing after it counts. */
  push(text: string): { readonly text: string; readonly stopped: boolean } {
    if (this.#stops.length === 0) return { text, stopped: false };
    const all = this.#pending + text;
    const end = this.#firstStop(all);
    if (end !== -1) {
      this.#pending = '';
      return { text: all.slice(0, end), stopped: true };
    }
    const keep = beginningAtEnd(all, this.#stops);
    this.#pending = all.slice(all.length - keep);
    return { text: all.slice(0, all.length - keep), stopped: false };
  }

  /** Nothing follows: what was held back was no stop string. */
  end(): string {
    const rest = this.#pending;
    this.#pending = '';
    return rest;
  }

  #firstStop(text: string): number {
    let first = -1;
    for (const stop of this.#stops) {
      const at = text.indexOf(stop);
      if (at !== -1 && (first === -1 || at < first)) first = at;
    }
    return first;
  }
}
