/** Server-sent events out of bytes, with bounds. */
import { MeshError } from '../../common/errors.ts';

export interface SseMessage {
  /** The `event` field; empty when there is none. */
  readonly event: string;
  readonly data: string;
}

/** Characters of one line, and of all lines of one event. */
const MAX_EVENT_LENGTH = 4 * 1024 * 1024;

/** Comments and unknown fields are skipped; lines end in LF or CRLF. */
export class SseParser {
  readonly #decoder = new TextDecoder();
  #rest = '';
  #event = '';
  #data: string[] = [];
  #length = 0;

  /**
   * The messages that these bytes complete.
   *
   * @throws MeshError `upstream_error` for a line or event without bound.
   */
  push(bytes: Uint8Array): SseMessage[] {
    const text = this.#rest + this.#decoder.decode(bytes, { stream: true });
    const messages: SseMessage[] = [];
    let from = 0;
    for (let at = text.indexOf('\n', from); at !== -1; at = text.indexOf('\n', from)) {
      const line = text.slice(from, text[at - 1] === '\r' && at > from ? at - 1 : at);
      from = at + 1;
      if (line !== '') this.#take(line);
      else if (this.#data.length > 0) messages.push(this.#message());
      else this.#event = '';
    }
    this.#rest = text.slice(from);
    this.#bound(this.#length + this.#rest.length);
    return messages;
  }

  #message(): SseMessage {
    const message = { event: this.#event, data: this.#data.join('\n') };
    this.#event = '';
    this.#data = [];
    this.#length = 0;
    return message;
  }

  #take(line: string): void {
    const colon = line.indexOf(':');
    const field = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    if (field === 'event') this.#event = value;
    if (field !== 'data') return;
    this.#length += value.length;
    this.#bound(this.#length);
    this.#data.push(value);
  }

  #bound(length: number): void {
    if (length <= MAX_EVENT_LENGTH) return;
    throw new MeshError('upstream_error', `An event of the answer is longer than ${MAX_EVENT_LENGTH} characters`);
  }
}
