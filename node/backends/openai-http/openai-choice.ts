/** One choice of an answer in OpenAI's shapes, turned into chunks. */
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import type { ChunkEvent, FinishReason, ToolCallDelta } from '../../../protocols/inference/events.ts';
import { MeshError } from '../../common/errors.ts';
import { OpenAiCalls } from './openai-calls.ts';
import { readLogprobs } from './openai-logprobs.ts';

/** Parts of an answer that events cannot carry; to drop them in silence would falsify it. */
const UNCARRIED = ['function_call', 'audio'] as const;
const REASONING = ['reasoning_content', 'reasoning'] as const;
/** The names that servers have for what happened. */
const FINISHES: ReadonlyMap<unknown, FinishReason> = new Map<unknown, FinishReason>([
  ['stop', 'stop'],
  ['eos_token', 'stop'],
  ['stop_sequence', 'stop'],
  ['end_turn', 'stop'],
  ['length', 'length'],
  ['max_tokens', 'length'],
  ['tool_calls', 'tool_calls'],
  ['content_filter', 'content_filter'],
]);

type Fields = Readonly<Record<string, unknown>>;

export class OpenAiChoice {
  readonly #name: string;
  readonly #choice: number;
  readonly #calls: OpenAiCalls;
  #finish: FinishReason | null = null;

  /** `name`: what errors call the server. `requestId`: ids of calls that come without one derive from it. */
  constructor(name: string, choice: number, requestId: string) {
    this.#name = name;
    this.#choice = choice;
    this.#calls = new OpenAiCalls(`${requestId.slice(0, 16)}_${choice}`);
  }

  /** Null until the server gave a reason. */
  get finish(): FinishReason | null {
    return this.#finish;
  }

  /**
   * What a chunk or a whole answer says of this choice; null for nothing.
   *
   * @throws MeshError `upstream_error` for what cannot be carried.
   */
  take(choice: Fields): ChunkEvent | null {
    const part = choice['delta'] ?? choice['message'] ?? choice;
    if (!isRecord(part)) throw this.#broken('sent a choice without content');
    for (const field of UNCARRIED) {
      if (isPresent(part[field])) throw this.#broken(`answered with ${field}, which cannot be passed on`);
    }
    const reasoning = this.#string(REASONING.map((field) => part[field]).find(isPresent), 'reasoning');
    // A model that declines says so in words, which are the answer.
    const text =
      this.#string(part['content'] ?? part['text'], 'content') + this.#string(part['refusal'] ?? null, 'a refusal');
    const toolCalls = this.#toolCalls(part['tool_calls']);
    const said = reasoning !== '' || text !== '' || toolCalls.length > 0;
    if (said && this.#finish !== null) throw this.#broken('went on after its finish_reason');
    const finish = this.#finished(choice['finish_reason']);
    const logprobs = readLogprobs(choice['logprobs']);
    if (!said && finish === null && logprobs.logprobs === undefined) return null;
    return {
      type: 'chunk',
      choice: this.#choice,
      index: 0,
      tokens: [],
      text,
      ...(reasoning === '' ? {} : { reasoning }),
      ...(toolCalls.length === 0 ? {} : { toolCalls }),
      ...logprobs,
      ...(finish === null ? {} : { finish }),
    };
  }

  #toolCalls(parts: unknown): ToolCallDelta[] {
    if (!isPresent(parts)) return [];
    if (!Array.isArray(parts)) throw this.#broken('sent tool_calls that are no list');
    return parts.map((part, position) => {
      const delta = this.#calls.take(part, position);
      if (typeof delta === 'string') throw this.#broken(delta);
      return delta;
    });
  }

  /** The reason, once. */
  #finished(reason: unknown): FinishReason | null {
    if (!isPresent(reason) || this.#finish !== null) return null;
    const finish = FINISHES.get(reason);
    if (finish === undefined) throw this.#broken(`finished for the reason ${quote(reason)}, which nobody knows`);
    // Clients look for calls only where this says so; not every server does.
    this.#finish = finish === 'stop' && this.#calls.count > 0 ? 'tool_calls' : finish;
    return this.#finish;
  }

  #string(value: unknown, what: string): string {
    if (value === undefined || value === null) return '';
    if (typeof value !== 'string') throw this.#broken(`sent ${what} that is no text`);
    return value;
  }

  #broken(what: string): MeshError {
    return new MeshError('upstream_error', `${this.#name} ${what}`);
  }
}

/** Servers fill unused fields with null, empty lists and empty strings. */
function isPresent(value: unknown): boolean {
  if (value === undefined || value === null || value === '') return false;
  return !(Array.isArray(value) && value.length === 0);
}

const quote = (value: unknown): string => JSON.stringify(String(value).slice(0, 50));
