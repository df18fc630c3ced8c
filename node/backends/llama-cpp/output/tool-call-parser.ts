/** Finds tool calls in the answer's text, in the format of the model's dialect. Nothing that is no call gets lost. */
import type { ToolFormat } from '../prompt/dialect.ts';
import { type CallProgress, CallReader } from './call-reader.ts';
import { NamedCallReader } from './named-call.ts';
import { beginningAtEnd, trailingBlanks } from './partial-tag.ts';
import { MAX_BLANKS } from './reasoning-split.ts';

export type ToolPart =
  | { readonly type: 'text'; readonly text: string }
  /** A piece of call `index`; `name` with its first. */
  | { readonly type: 'call'; readonly index: number; readonly name?: string; readonly arguments: string }
  /** Call `index` is complete. */
  | { readonly type: 'whole'; readonly index: number };

/** How a format looks to the parser. */
interface Shape {
  /** What a call, or a list of calls, begins with. */
  readonly opens: readonly string[];
  /** What may stand behind each call. */
  readonly close: string | null;
  /** A call may begin the answer without a tag, by these characters. */
  readonly bare: string;
  /** What may separate calls that follow one another without a tag. */
  readonly separator: string | null;
  readonly lists: boolean;
  readonly named: boolean;
}

const HERMES: Shape = {
  opens: ['<tool_call>'],
  close: '</tool_call>',
  bare: '',
  separator: null,
  lists: false,
  named: false,
};
const LLAMA: Shape = { ...HERMES, opens: ['<|python_tag|>'], close: null, bare: '{', separator: ';' };
const MISTRAL: Shape = { ...HERMES, opens: ['[TOOL_CALLS]'], close: null, lists: true, named: true };
const GENERIC: Shape = { ...HERMES, bare: '{[', lists: true };
const SHAPES: Readonly<Record<ToolFormat, Shape>> = {
  hermes: HERMES,
  llama3: LLAMA,
  mistral: MISTRAL,
  'mistral-named': MISTRAL,
  generic: GENERIC,
};

/** What has been read of a call before it is certainly one; past this it is text. */
const MAX_HELD_CHARS = 16 * 1024;
const BLANK = /[ \t\r\n]/;

export class ToolCallParser {
  readonly #shape: Shape;
  readonly #knows: (name: string) => boolean;
  /** `intro`: a call must begin. `after`: one is complete, more of the same may follow. */
  #state: 'text' | 'intro' | 'call' | 'after' = 'text';
  #reader: CallReader | NamedCallReader | null = null;
  /** What came since something that may be a call began and has not been released. */
  #held = '';
  /** The first so many of `#held` are text if it turns out to be no call; the rest is read again. */
  #mark = 0;
  #inList = false;
  /** Is what began without a tag? Such calls are told by the tool's name. */
  #bare = false;
  #spoke = false;
  /** Nothing but blanks was released since the last complete call. */
  #behindCall = false;
  #committed = false;
  #index = 0;

  /** @param toolNames the tools there are; null where any name will do. */
  constructor(format: ToolFormat, toolNames: readonly string[] | null) {
    this.#shape = SHAPES[format];
    this.#knows = (name) => !this.#bare || toolNames === null || toolNames.includes(name);
  }

  push(text: string): ToolPart[] {
    const parts: ToolPart[] = [];
    let rest = text;
    while (rest !== '') rest = this.#state === 'text' ? this.#text(rest, parts) : this.#structure(rest, parts);
    return parts;
  }

  /** Nothing follows: what was no call yet is text, except for what only separates calls. */
  end(): ToolPart[] {
    const held = this.#held;
    const separates = this.#behindCall && this.#state !== 'call' && /^[\s,;\]]*$/.test(held);
    const closes = this.#state === 'after' && this.#shape.close?.startsWith(held.trimStart()) === true;
    this.#state = 'text';
    this.#held = '';
    return held === '' || separates || closes ? [] : [{ type: 'text', text: held }];
  }

  /** Looks for the next call; resolves what it can of `more` and returns what is left to be read. */
  #text(more: string, parts: ToolPart[]): string {
    const all = this.#held + more;
    this.#held = '';
    const bare = this.#bareStart(all);
    if (bare !== -1) {
      this.#begin(all.slice(0, bare), bare + 1, true);
      return all.slice(bare);
    }
    const { at, tag } = this.#firstOpen(all);
    const said = at === -1 ? all.length - beginningAtEnd(all, this.#shape.opens) : at;
    const blanks = Math.min(trailingBlanks(all, said), MAX_BLANKS);
    this.#release(all.slice(0, said - blanks), parts);
    if (at === -1) {
      this.#held = all.slice(said - blanks);
      return '';
    }
    this.#begin(all.slice(at - blanks, at + tag.length), blanks + tag.length, false);
    return all.slice(at + tag.length);
  }

  #begin(held: string, mark: number, bare: boolean): void {
    this.#held = held;
    this.#mark = mark;
    this.#bare = bare;
    this.#inList = false;
    this.#state = 'intro';
  }

  /** Where `text` begins with a call that has no tag, -1 if it does not. */
  #bareStart(text: string): number {
    if (this.#spoke || this.#shape.bare === '') return -1;
    const at = text.length - text.trimStart().length;
    const first = text[at];
    return first !== undefined && at <= MAX_BLANKS && this.#shape.bare.includes(first) ? at : -1;
  }

  #firstOpen(text: string): { at: number; tag: string } {
    let first = { at: -1, tag: '' };
    for (const tag of this.#shape.opens) {
      const at = text.indexOf(tag);
      if (at !== -1 && (first.at === -1 || at < first.at)) first = { at, tag };
    }
    return first;
  }

  /** Reads characters of a call until it is complete or none. Returns what is left to be read. */
  #structure(text: string, parts: ToolPart[]): string {
    for (let at = 0; at < text.length; at += 1) {
      const char = text.charAt(at);
      const outcome = this.#state === 'after' ? this.#after(char) : this.#character(char, parts);
      if (outcome === 'more') continue;
      const rest = text.slice(at + 1);
      return outcome === 'text' ? this.#giveUp(parts) + rest : rest;
    }
    return '';
  }

  #character(char: string, parts: ToolPart[]): 'more' | 'text' {
    if (!this.#committed) this.#held += char;
    if (this.#state === 'intro') {
      if (BLANK.test(char)) return this.#bounded();
      if (char === '[' && this.#shape.lists && !this.#inList) {
        this.#inList = true;
        return 'more';
      }
      if (char === '{') this.#reader = new CallReader(this.#knows);
      else if (this.#shape.named && !this.#inList && /[A-Za-z0-9_]/.test(char))
        this.#reader = new NamedCallReader(this.#knows);
      else return 'text';
      this.#state = 'call';
    }
    const progress = this.#reader?.take(char) ?? { state: 'bad' };
    if (progress.state === 'bad') {
      if (this.#committed) this.#held = char;
      return 'text';
    }
    this.#progress(progress, parts);
    return this.#bounded();
  }

  #bounded(): 'more' | 'text' {
    return this.#held.length > MAX_HELD_CHARS ? 'text' : 'more';
  }

  #progress({ state, name, arguments: text }: CallProgress, parts: ToolPart[]): void {
    if (name !== undefined) this.#commit();
    if (text !== undefined) {
      parts.push({ type: 'call', index: this.#index, ...(name === undefined ? {} : { name }), arguments: text });
    }
    if (state !== 'whole') return;
    parts.push({ type: 'whole', index: this.#index });
    this.#index += 1;
    this.#committed = false;
    this.#behindCall = true;
    this.#state = 'after';
    this.#mark = 0;
  }

  #commit(): void {
    this.#committed = true;
    this.#held = '';
    this.#mark = 0;
  }

  /** One character behind a complete call. */
  #after(char: string): 'more' | 'text' | 'done' {
    const { close, separator } = this.#shape;
    this.#held += char;
    const said = this.#held.trimStart();
    if (said === '') return this.#held.length > MAX_BLANKS ? 'text' : 'more';
    if (this.#inList) {
      if (said === ']') return this.#done();
      if (said !== ',') return 'text';
      this.#state = 'intro';
      return 'more';
    }
    if (said === separator || (this.#bare && separator !== null && said === '{')) return this.#another(said);
    if (close === null || !close.startsWith(said)) return 'text';
    return said === close ? this.#done() : 'more';
  }

  /** A further call without a tag. */
  #another(said: string): 'more' {
    this.#state = 'intro';
    if (said !== '{') return 'more';
    this.#state = 'call';
    this.#reader = new CallReader(this.#knows);
    this.#reader.take('{');
    return 'more';
  }

  #done(): 'done' {
    this.#state = 'text';
    this.#held = '';
    return 'done';
  }

  /** It is no call, or no longer one. Returns what must be read again as text. */
  #giveUp(parts: ToolPart[]): string {
    const held = this.#held;
    const mark = this.#committed ? 0 : this.#mark;
    if (this.#committed) this.#index += 1;
    this.#held = '';
    this.#committed = false;
    this.#state = 'text';
    this.#reader = null;
    this.#release(held.slice(0, mark), parts);
    return held.slice(mark);
  }

  #release(text: string, parts: ToolPart[]): void {
    if (text === '') return;
    this.#spoke = true;
    if (/\S/.test(text)) this.#behindCall = false;
    parts.push({ type: 'text', text });
  }
}
