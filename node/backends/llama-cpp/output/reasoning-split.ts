/** Tells the model's thoughts from its answer by the tags around them. */
import type { ThinkingTags } from '../prompt/dialect.ts';
import { beginningAtEnd, trailingBlanks } from './partial-tag.ts';

/** Text that comes in pieces, told apart. */
export interface Split {
  readonly reasoning: string;
  readonly content: string;
}

/** Blanks around a tag that are formatting; more than these are text. */
export const MAX_BLANKS = 64;

/**
 * Thoughts stand at the very beginning of an answer; a tag that comes later is text. Blanks around them are dropped. A
 * thought that is never closed is released as it grows.
 */
export class ReasoningSplit {
  readonly #tags: ThinkingTags;
  #state: 'start' | 'opening' | 'thinking' | 'gap' | 'content';
  #pending = '';

  constructor(tags: ThinkingTags, startsInside: boolean) {
    this.#tags = tags;
    this.#state = startsInside ? 'opening' : 'start';
  }

  /** Is the next text a thought, as far as one can tell? */
  get thinking(): boolean {
    return this.#state === 'opening' || this.#state === 'thinking';
  }

  push(text: string): Split {
    if (this.#answering()) return { reasoning: '', content: text };
    this.#pending += text;
    let reasoning = '';
    if (this.#state === 'start') this.#start();
    if (this.#state === 'opening') this.#skipBlanks('thinking');
    if (this.#state === 'thinking') reasoning = this.#think();
    if (this.#state === 'gap') this.#skipBlanks('content');
    return { reasoning, content: this.#answering() ? this.#take(this.#pending.length) : '' };
  }

  /** Nothing follows: what was held back is what it looked like so far. */
  end(): Split {
    const rest = this.#take(this.#pending.length);
    const inside = this.thinking;
    this.#state = 'content';
    return inside ? { reasoning: rest, content: '' } : { reasoning: '', content: rest };
  }

  #answering(): boolean {
    return this.#state === 'content';
  }

  #start(): void {
    const { open } = this.#tags;
    const said = this.#pending.trimStart();
    const blanks = this.#pending.length - said.length;
    if (blanks <= MAX_BLANKS && said.startsWith(open)) {
      this.#pending = said.slice(open.length);
      this.#state = 'opening';
    } else if (blanks > MAX_BLANKS || !open.startsWith(said)) {
      this.#state = 'content';
    }
  }

  #skipBlanks(next: 'thinking' | 'content'): void {
    this.#pending = this.#pending.trimStart();
    if (this.#pending !== '') this.#state = next;
  }

  #think(): string {
    const { close } = this.#tags;
    const end = this.#pending.indexOf(close);
    const said = end === -1 ? this.#pending.length - beginningAtEnd(this.#pending, [close]) : end;
    const blanks = Math.min(trailingBlanks(this.#pending, said), MAX_BLANKS);
    const thought = this.#take(said - blanks);
    if (end !== -1) {
      this.#take(blanks + close.length);
      this.#state = 'gap';
    }
    return thought;
  }

  #take(length: number): string {
    const taken = this.#pending.slice(0, length);
    this.#pending = this.#pending.slice(length);
    return taken;
  }
}
