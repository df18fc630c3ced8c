/** Keeps control tokens that stand in user text from meaning anything: they travel through the template as placeholders. */

/** A stretch of the prompt: `special` text may contain control tokens that act, other text is text whatever it says. */
export interface Segment {
  readonly text: string;
  readonly special: boolean;
}

const OPEN = '\uE000';
const INDEX = '\uE001';
const CLOSE = '\uE002';

/** One rendering's placeholders. `userStrings` and `template` decide on a mark that none of them contains. */
export class ControlText {
  readonly #pattern: RegExp | null;
  readonly #controlTokens: readonly string[];
  readonly #mark: string;
  readonly #hidden: string[] = [];

  constructor(controlTokens: readonly string[], userStrings: readonly string[], template: string) {
    this.#controlTokens = controlTokens.filter((token) => token !== '');
    const longestFirst = this.#controlTokens.toSorted((a, b) => b.length - a.length).map(escapePattern);
    this.#pattern = longestFirst.length === 0 ? null : new RegExp(longestFirst.join('|'), 'g');
    let attempt = 0;
    const taken = (mark: string): boolean => template.includes(mark) || userStrings.some((text) => text.includes(mark));
    while (taken(`${OPEN}${attempt}${INDEX}`)) attempt += 1;
    this.#mark = `${OPEN}${attempt}${INDEX}`;
  }

  /** User text for the template: each control token's text, and a tail that could begin one, as a placeholder. */
  escape(text: string): string {
    if (this.#pattern === null) return text;
    const tail = this.#tailLength(text);
    const head = text.slice(0, text.length - tail).replace(this.#pattern, (control) => this.#hide(control));
    return tail === 0 ? head : head + this.#hide(text.slice(-tail));
  }

  /** What the template made of it, with the placeholders as text again. */
  segments(rendered: string): Segment[] {
    const segments: Segment[] = [];
    const add = (text: string, special: boolean): void => {
      if (text !== '') segments.push({ text, special });
    };
    let from = 0;
    for (let at = rendered.indexOf(this.#mark); at !== -1; at = rendered.indexOf(this.#mark, from)) {
      const close = rendered.indexOf(CLOSE, at);
      const hidden = this.#hidden[Number(rendered.slice(at + this.#mark.length, close))];
      add(rendered.slice(from, at), true);
      if (hidden !== undefined) add(hidden, false);
      from = close === -1 ? rendered.length : close + 1;
    }
    add(rendered.slice(from), true);
    return segments;
  }

  #hide(text: string): string {
    this.#hidden.push(text);
    return `${this.#mark}${this.#hidden.length - 1}${CLOSE}`;
  }

  /** Length of the longest end of `text` that begins a control token: the next text could complete it. */
  #tailLength(text: string): number {
    let longest = 0;
    for (const token of this.#controlTokens) {
      for (let length = Math.min(token.length - 1, text.length); length > longest; length -= 1) {
        if (text.endsWith(token.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}

function escapePattern(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/-]/g, '\\$&');
}
