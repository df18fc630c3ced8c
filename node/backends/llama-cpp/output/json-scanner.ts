/** Follows one JSON value character by character: strict, but for raw control characters in strings, which models print. */

type Expects =
  | 'value'
  | 'value-or-end'
  | 'key'
  | 'key-or-end'
  | 'colon'
  | 'comma-or-end'
  | 'string'
  | 'escape'
  | 'word'
  | 'nothing';

/** `past`: the value (a number or a word) was whole before this character, which does not belong to it. */
export type Scanned = 'more' | 'whole' | 'past' | 'bad';

const MAX_DEPTH = 128;
const MAX_WORD = 64;
const WORD = /^(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)$/;
const WORD_CHARACTER = /[-+.0-9a-zE]/;
const BLANK = /[ \t\r\n]/;

export class JsonScanner {
  #expects: Expects = 'value';
  /** Open brackets, innermost last. */
  #open: ('{' | '[')[] = [];
  #inKey = false;
  #word = '';
  /** Hex digits that a `\u` still needs. */
  #hex = 0;

  /** Would the next character stand within a string? */
  get inString(): boolean {
    return this.#expects === 'string';
  }

  take(char: string): Scanned {
    switch (this.#expects) {
      case 'string':
        return this.#string(char);
      case 'escape':
        return this.#escape(char);
      case 'word':
        return this.#wordCharacter(char);
      case 'nothing':
        return 'past';
      default:
        return BLANK.test(char) ? 'more' : this.#structure(this.#expects, char);
    }
  }

  #structure(expects: Expects, char: string): Scanned {
    if (expects === 'colon') return char === ':' ? this.#expect('value') : 'bad';
    if (expects === 'comma-or-end')
      return char === ',' ? this.#expect(this.#inObject ? 'key' : 'value') : this.#close(char);
    if (expects === 'key' || expects === 'key-or-end') {
      if (char !== '"') return expects === 'key-or-end' ? this.#close(char) : 'bad';
      this.#inKey = true;
      return this.#expect('string');
    }
    return expects === 'value-or-end' && char === ']' ? this.#close(char) : this.#value(char);
  }

  #value(char: string): Scanned {
    if (char === '{' || char === '[') {
      if (this.#open.length >= MAX_DEPTH) return 'bad';
      this.#open.push(char);
      return this.#expect(char === '{' ? 'key-or-end' : 'value-or-end');
    }
    if (char === '"') return this.#expect('string');
    if (!/[-0-9tfn]/.test(char)) return 'bad';
    this.#word = char;
    return this.#expect('word');
  }

  #close(char: string): Scanned {
    if (char !== (this.#inObject ? '}' : ']')) return 'bad';
    this.#open.pop();
    return this.#valueEnded();
  }

  #string(char: string): Scanned {
    if (char === '\\') return this.#expect('escape');
    if (char !== '"') return 'more';
    if (!this.#inKey) return this.#valueEnded();
    this.#inKey = false;
    return this.#expect('colon');
  }

  #escape(char: string): Scanned {
    if (this.#hex > 0) {
      if (!/[0-9a-fA-F]/.test(char)) return 'bad';
      this.#hex -= 1;
      return this.#hex === 0 ? this.#expect('string') : 'more';
    }
    if (char === 'u') {
      this.#hex = 4;
      return 'more';
    }
    return /["\\/bfnrt]/.test(char) ? this.#expect('string') : 'bad';
  }

  #wordCharacter(char: string): Scanned {
    if (WORD_CHARACTER.test(char)) {
      this.#word += char;
      return this.#word.length > MAX_WORD ? 'bad' : 'more';
    }
    if (!WORD.test(this.#word)) return 'bad';
    const ended = this.#valueEnded();
    return ended === 'whole' ? 'past' : this.take(char);
  }

  #valueEnded(): Scanned {
    if (this.#open.length > 0) return this.#expect('comma-or-end');
    this.#expects = 'nothing';
    return 'whole';
  }

  #expect(expects: Expects): 'more' {
    this.#expects = expects;
    return 'more';
  }

  get #inObject(): boolean {
    return this.#open.at(-1) === '{';
  }
}

/** A raw control character as it must stand in a JSON string; anything else as it is. */
export function inJsonString(char: string): string {
  return char < ' ' ? JSON.stringify(char).slice(1, -1) : char;
}
