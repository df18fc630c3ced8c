/** Reads one tool call, `{"name": …, "arguments": {…}}`, as it grows: its name first, then its arguments in pieces. */
import { inJsonString, JsonScanner } from './json-scanner.ts';

/** What is known of the call after one character more. */
export interface CallProgress {
  /** `bad`: this is no call, or no longer one. */
  readonly state: 'more' | 'whole' | 'bad';
  /** With the first piece of the arguments: until they begin it may still be no call. */
  readonly name?: string;
  /** The next piece of the arguments' JSON text. */
  readonly arguments?: string;
}

const MORE: CallProgress = { state: 'more' };
const BAD: CallProgress = { state: 'bad' };
const ARGUMENT_KEYS = new Set(['arguments', 'parameters']);
const BLANK = /[ \t\r\n]/;

export class CallReader {
  readonly #knows: (name: string) => boolean;
  #expects: 'open' | 'key' | 'key-or-end' | 'colon' | 'value' | 'comma-or-end' = 'open';
  #scanner = new JsonScanner();
  /** Raw text of the key or the value that is being read, as valid JSON. */
  #raw = '';
  #key = '';
  #name: string | null = null;
  /** Arguments that came before the name. */
  #early: string | null = null;
  #argued = false;
  #announced = false;

  /** @param knows is there such a tool? */
  constructor(knows: (name: string) => boolean) {
    this.#knows = knows;
  }

  take(char: string): CallProgress {
    if (this.#raw === '' && BLANK.test(char)) return MORE;
    switch (this.#expects) {
      case 'open':
        return char === '{' ? this.#expect('key-or-end') : BAD;
      case 'key-or-end':
        return char === '}' ? this.#close() : this.#keyCharacter(char);
      case 'key':
        return this.#keyCharacter(char);
      case 'colon':
        return char === ':' ? this.#expect('value') : BAD;
      case 'value':
        return this.#valueCharacter(char);
      case 'comma-or-end':
        if (char === '}') return this.#close();
        return char === ',' ? this.#expect('key') : BAD;
    }
  }

  #expect(expects: 'key' | 'key-or-end' | 'colon' | 'value' | 'comma-or-end'): CallProgress {
    this.#expects = expects;
    this.#raw = '';
    this.#scanner = new JsonScanner();
    return MORE;
  }

  #keyCharacter(char: string): CallProgress {
    if (this.#raw === '' && char !== '"') return BAD;
    const scanned = this.#scan(char);
    if (scanned !== 'whole') return scanned === 'more' ? MORE : BAD;
    this.#key = String(JSON.parse(this.#raw));
    return this.#expect('colon');
  }

  #valueCharacter(char: string): CallProgress {
    const first = this.#raw === '';
    const before = this.#raw.length;
    const scanned = this.#scan(char);
    if (scanned === 'bad') return BAD;
    const isArguments = ARGUMENT_KEYS.has(this.#key);
    if (isArguments && first && this.#argued) return BAD;
    const streams = isArguments && this.#name !== null && this.#raw.startsWith('{');
    if (streams) {
      const piece = this.#raw.slice(before);
      // What went out need not be kept.
      this.#raw = '{';
      this.#argued = true;
      if (scanned === 'whole') this.#expect('comma-or-end');
      return this.#release('more', piece);
    }
    if (scanned === 'more') return MORE;
    const ended = this.#valueEnded();
    if (ended.state === 'bad' || scanned === 'whole') return ended;
    const after = this.take(char);
    return { ...ended, ...after };
  }

  /** Appends what `char` means to `#raw`, unless it stands behind the value. */
  #scan(char: string): 'more' | 'whole' | 'past' | 'bad' {
    const text = this.#scanner.inString ? inJsonString(char) : char;
    const scanned = this.#scanner.take(char);
    if (scanned === 'more' || scanned === 'whole') this.#raw += text;
    return scanned;
  }

  #valueEnded(): CallProgress {
    const value: unknown = JSON.parse(this.#raw);
    const raw = this.#raw;
    this.#expect('comma-or-end');
    if (this.#key === 'name') return this.#named(value);
    if (!ARGUMENT_KEYS.has(this.#key)) return MORE;
    const text = argumentsText(value, raw);
    if (text === null) return BAD;
    this.#argued = true;
    if (this.#name !== null) return this.#release('more', text);
    this.#early = text;
    return MORE;
  }

  #named(name: unknown): CallProgress {
    if (typeof name !== 'string' || name === '' || this.#name !== null || !this.#knows(name)) return BAD;
    this.#name = name;
    const early = this.#early;
    this.#early = null;
    return early === null ? MORE : this.#release('more', early);
  }

  #close(): CallProgress {
    if (this.#name === null) return BAD;
    return this.#argued ? { state: 'whole' } : this.#release('whole', '{}');
  }

  #release(state: 'more' | 'whole', text: string): CallProgress {
    if (this.#name === null || this.#announced) return { state, arguments: text };
    this.#announced = true;
    return { state, name: this.#name, arguments: text };
  }
}

/** The JSON object that stands for the arguments: some models print it as a string, or null for none. */
function argumentsText(value: unknown, raw: string): string | null {
  if (value === null) return '{}';
  if (typeof value === 'object') return Array.isArray(value) ? null : raw;
  if (typeof value !== 'string') return null;
  if (value.trim() === '') return '{}';
  try {
    const parsed: unknown = JSON.parse(value);
    return typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed) ? value : null;
  } catch {
    return null;
  }
}
