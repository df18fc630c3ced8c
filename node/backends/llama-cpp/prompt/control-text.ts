/** Keeps control tokens that stand in user text from meaning anything: they travel through the template as placeholders. */

/** A stretch of the prompt: `special` text may contain control tokens that act, other text is text whatever it says. */
export interface Segment {
  readonly text: string;
  readonly special: boolean;
}

const OPEN = '\uE000';
const INDEX = '\uE001';
const CLOSE = '\uE002';

/** One rendering's placeholders. No user text can forge one, alone or beside another: their characters are hidden too. */
export class ControlText {
  readonly #pattern: RegExp;
  readonly #hiddenTokens: readonly string[];
  readonly #mark: string;
  readonly #hidden: string[] = [];

  constructor(controlTokens: readonly string[], template: string) {
    this.#hiddenTokens = [...controlTokens.filter((token) => token !== ''), OPEN, INDEX, CLOSE];
    const longestFirst = this.#hiddenTokens.toSorted((a, b) => b.length - a.length).map(escapePattern);
    this.#pattern = new RegExp(longestFirst.join('|'), 'g');
    let attempt = 0;
    while (template.includes(`${OPEN}${attempt}${INDEX}`)) attempt += 1;
    this.#mark = `${OPEN}${attempt}${INDEX}`;
  }

  /** User text for the template: each control token's text, and a tail that could begin one, as a placeholder. */
  escape(text: string): string {
    const tail = this.#tailLength(text);
    const head = text.slice(0, text.length - tail).replace(this.#pattern, (control) => this.#hide(control));
    return tail === 0 ? head : head + this.#hide(text.slice(-tail));
  }

  /** The same for every text in a JSON value, names of members included. */
  escapeAll(value: unknown): unknown {
    if (typeof value === 'string') return this.escape(value);
    if (Array.isArray(value)) return value.map((one) => this.escapeAll(one));
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([name, one]) => [this.escape(name), this.escapeAll(one)]));
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
    for (const token of this.#hiddenTokens) {
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
