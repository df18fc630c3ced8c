/** Reads one tool call in Mistral's newer form, `name[ARGS]{…}`, perhaps with `[CALL_ID]id` after the name. */
import type { CallProgress } from './call-reader.ts';
import { inJsonString, JsonScanner } from './json-scanner.ts';

const MORE: CallProgress = { state: 'more' };
const BAD: CallProgress = { state: 'bad' };
const HEAD = /^\s*([A-Za-z0-9_.-]{1,128})(?:\[CALL_ID\][A-Za-z0-9_-]*)?(?:\[ARGS\])?\s*$/;
/** Name, id and tags. */
const MAX_HEAD = 256;

export class NamedCallReader {
  readonly #knows: (name: string) => boolean;
  readonly #scanner = new JsonScanner();
  #head = '';
  #started = false;

  /** @param knows is there such a tool? */
  constructor(knows: (name: string) => boolean) {
    this.#knows = knows;
  }

  take(char: string): CallProgress {
    if (this.#started) return this.#argument(char);
    if (char !== '{') {
      this.#head += char;
      return this.#head.length > MAX_HEAD ? BAD : MORE;
    }
    const name = HEAD.exec(this.#head)?.[1];
    if (name === undefined || !this.#knows(name)) return BAD;
    this.#started = true;
    return { name, ...this.#argument(char) };
  }

  #argument(char: string): CallProgress {
    const text = this.#scanner.inString ? inJsonString(char) : char;
    const scanned = this.#scanner.take(char);
    if (scanned === 'more' || scanned === 'whole') return { state: scanned, arguments: text };
    return BAD;
  }
}
