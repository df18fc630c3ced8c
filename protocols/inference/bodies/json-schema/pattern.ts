/** Reads the regular expressions that a grammar can express: no look-around, no references back, no properties of characters. */
import type { Pattern } from './shape.ts';

type Range = readonly [from: number, to: number];

const MAX_REPEAT = 2000;
const MAX_CHARS = 2000;
const MAX_DEPTH = 32;
const LAST_CODE = 0x10ffff;
const DIGITS: readonly Range[] = [[0x30, 0x39]];
const WORD: readonly Range[] = [
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
];
const BLANKS: readonly Range[] = [
  [0x09, 0x0d],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff],
];
const LINE_ENDS: readonly Range[] = [
  [0x0a, 0x0a],
  [0x0d, 0x0d],
  [0x2028, 0x2029],
];
const CONTROLS: Readonly<Record<string, number>> = { n: 0x0a, r: 0x0d, t: 0x09, f: 0x0c, v: 0x0b, 0: 0 };
const ANYTHING: Pattern = { kind: 'repeat', part: { kind: 'set', not: true, ranges: [] }, least: 0, most: null };

/** What whole texts look like that the expression finds something in; null when it is more than a grammar can say. */
export function readPattern(expression: string): Pattern | null {
  if (expression.length > MAX_CHARS) return null;
  try {
    RegExp(expression, 'u');
    return new PatternReader(expression).whole();
  } catch {
    return null;
  }
}

class PatternReader {
  readonly #chars: readonly string[];
  #at = 0;
  #depth = 0;

  constructor(expression: string) {
    this.#chars = [...expression];
  }

  whole(): Pattern {
    const options = [this.#searched()];
    while (this.#skip('|')) options.push(this.#searched());
    if (this.#at < this.#chars.length) throw new SyntaxError('not read to its end');
    return { kind: 'choice', options };
  }

  /** One alternative of the whole; it may stand anywhere in the text unless it is anchored. */
  #searched(): Pattern {
    const before = this.#skip('^') ? [] : [ANYTHING];
    const inner = this.#sequence();
    const after = this.#skip('$') ? [] : [ANYTHING];
    return { kind: 'sequence', parts: [...before, inner, ...after] };
  }

  #choice(): Pattern {
    const options = [this.#sequence()];
    while (this.#skip('|')) options.push(this.#sequence());
    return { kind: 'choice', options };
  }

  #sequence(): Pattern {
    const parts: Pattern[] = [];
    for (let next = this.#peek(); next !== undefined && !'|)$'.includes(next); next = this.#peek()) {
      parts.push(this.#repeated(this.#atom()));
    }
    return { kind: 'sequence', parts };
  }

  #atom(): Pattern {
    const char = this.#next();
    if (char === '(') return this.#group();
    if (char === '[') return this.#set();
    if (char === '.') return { kind: 'set', not: true, ranges: LINE_ENDS };
    if (char === '\\') return this.#escape(this.#next());
    if (char === undefined || '^*+?{}]'.includes(char)) throw new SyntaxError('not expressible');
    return single(char.codePointAt(0) ?? 0);
  }

  #group(): Pattern {
    if (this.#skip('?') && !this.#skip(':')) throw new SyntaxError('not expressible');
    this.#depth += 1;
    if (this.#depth > MAX_DEPTH) throw new SyntaxError('too deep');
    const inner = this.#choice();
    this.#depth -= 1;
    if (!this.#skip(')')) throw new SyntaxError('not expressible');
    return inner;
  }

  #set(): Pattern {
    const not = this.#skip('^');
    const ranges: Range[] = [];
    while (!this.#skip(']')) {
      const from = this.#member();
      const isRange = this.#peek() === '-' && this.#chars[this.#at + 1] !== ']';
      if (!isRange) {
        ranges.push(...from);
        continue;
      }
      this.#at += 1;
      const to = this.#member();
      ranges.push([from[0]?.[0] ?? 0, to[0]?.[1] ?? 0]);
    }
    if (!not && !ranges.some(isWritable)) throw new SyntaxError('nothing that JSON can hold');
    return { kind: 'set', not, ranges };
  }

  #member(): readonly Range[] {
    const char = this.#next();
    if (char === undefined) throw new SyntaxError('not closed');
    if (char !== '\\') return [[char.codePointAt(0) ?? 0, char.codePointAt(0) ?? 0]];
    const escaped = this.#escape(this.#next());
    if (escaped.kind !== 'set' || escaped.not) throw new SyntaxError('not expressible');
    return escaped.ranges;
  }

  #escape(char: string | undefined): Pattern {
    if (char === undefined) throw new SyntaxError('not closed');
    const named = { d: DIGITS, w: WORD, s: BLANKS }[char.toLowerCase()];
    if (named !== undefined)
      return { kind: 'set', not: false, ranges: char === char.toLowerCase() ? named : others(named) };
    const control = CONTROLS[char];
    if (control !== undefined) return single(control);
    if (char === 'x') return single(this.#hex(2));
    if (char === 'u') return single(this.#skip('{') ? this.#braced() : this.#hex(4));
    if (/[A-Za-z0-9]/.test(char)) throw new SyntaxError('not expressible');
    return single(char.codePointAt(0) ?? 0);
  }

  #hex(digits: number): number {
    const text = this.#chars.slice(this.#at, this.#at + digits).join('');
    this.#at += digits;
    return Number.parseInt(text, 16);
  }

  #braced(): number {
    const code = this.#hex(this.#chars.indexOf('}', this.#at) - this.#at);
    this.#at += 1;
    return Math.min(code, LAST_CODE);
  }

  #repeated(part: Pattern): Pattern {
    const [all, least, comma, most] =
      /^(?:[?*+]|\{(\d+)(,?)(\d*)\})/.exec(this.#chars.slice(this.#at, this.#at + 16).join('')) ?? [];
    if (all === undefined) return part;
    this.#at += all.length;
    // Whether it prefers few or many does not change what it matches.
    this.#skip('?');
    if (isEmptyPossible(part)) throw new SyntaxError('repeats nothing');
    const [from, to] = counts(all, least, comma, most);
    if (from > MAX_REPEAT) throw new SyntaxError('too often');
    return { kind: 'repeat', part, least: from, most: to === null ? null : Math.min(to, MAX_REPEAT) };
  }

  #peek(): string | undefined {
    return this.#chars[this.#at];
  }

  #next(): string | undefined {
    this.#at += 1;
    return this.#chars[this.#at - 1];
  }

  #skip(char: string): boolean {
    if (this.#peek() !== char) return false;
    this.#at += 1;
    return true;
  }
}

function counts(all: string, least = '0', comma = '', most = ''): [number, number | null] {
  if (all === '?') return [0, 1];
  if (all === '*' || all === '+') return [all === '*' ? 0 : 1, null];
  if (comma === '') return [Number(least), Number(least)];
  return [Number(least), most === '' ? null : Number(most)];
}

/** All other characters; `ranges` ascend. */
function others(ranges: readonly Range[]): Range[] {
  const starts = [0, ...ranges.map(([, to]) => to + 1)];
  const ends = [...ranges.map(([from]) => from - 1), LAST_CODE];
  return starts.map((from, index): Range => [from, ends[index] ?? LAST_CODE]).filter(([from, to]) => from <= to);
}

/** Is there a character in it that is easily written in JSON? */
function isWritable([from, to]: Range): boolean {
  if ([0x09, 0x0a, 0x0d].some((code) => from <= code && code <= to)) return true;
  return to >= 0x20 && !(from >= 0x7f && to <= 0x7f) && !(from >= 0xd800 && to <= 0xdfff);
}

function single(code: number): Pattern {
  if (!isWritable([code, code])) throw new SyntaxError('nothing that JSON can hold');
  return { kind: 'set', not: false, ranges: [[code, code]] };
}

function isEmptyPossible(pattern: Pattern): boolean {
  switch (pattern.kind) {
    case 'set':
      return false;
    case 'repeat':
      return pattern.least === 0 || isEmptyPossible(pattern.part);
    case 'sequence':
      return pattern.parts.every(isEmptyPossible);
    case 'choice':
      return pattern.options.some(isEmptyPossible);
  }
}
