/** Tool calls as servers send them, as deltas that keep the contract: each call numbered once, named in its first part. */
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import type { ToolCallDelta } from '../../../protocols/inference/events.ts';

const MAX_CALLS = 1024;

/** One call as far as it came. */
interface Call {
  readonly index: number;
  readonly id: string;
}

/** The calls of one choice. Some servers number every call 0, leave ids out, or repeat them in every part. */
export class OpenAiCalls {
  readonly #idSeed: string;
  /** By the server's own number. */
  readonly #calls = new Map<number, Call>();
  #count = 0;

  /** Ids of calls that come without one derive from `idSeed`. */
  constructor(idSeed: string) {
    this.#idSeed = idSeed;
  }

  get count(): number {
    return this.#count;
  }

  /** The part as a delta; a sentence's end that says what is wrong with it where it is none. */
  take(part: unknown, position: number): ToolCallDelta | string {
    if (!isRecord(part)) return 'sent a tool call that is no object';
    if ((part['type'] ?? 'function') !== 'function') return 'called a tool that is no function';
    const called = isRecord(part['function']) ? part['function'] : {};
    const text = argumentsOf(called['arguments']);
    if (text === null) return 'sent arguments of a tool call that are no text';
    const number = typeof part['index'] === 'number' ? part['index'] : position;
    const id = nonEmpty(part['id']);
    const known = this.#calls.get(number);
    if (known !== undefined && (id === null || id === known.id)) return { index: known.index, arguments: text };
    const name = nonEmpty(called['name']);
    if (name === null) return 'called a tool without naming it';
    if (this.#count === MAX_CALLS) return 'called tools without bound';
    const call = { index: this.#count, id: id ?? `call_${this.#idSeed}_${this.#count}` };
    this.#count += 1;
    this.#calls.set(number, call);
    return { ...call, name, arguments: text };
  }
}

/** Text; some servers send the object that it should be the text of. */
function argumentsOf(value: unknown): string | null {
  if (value === undefined || value === null) return '';
  if (typeof value === 'string') return value;
  return isRecord(value) ? JSON.stringify(value) : null;
}

const nonEmpty = (value: unknown): string | null => (typeof value === 'string' && value !== '' ? value : null);
