/** One answer in OpenAI's shapes turned into events: pure, fed with parsed chunks or the whole body. */
import type { ChunkEvent, EndEvent, FinishReason, Timings, Usage } from '../../../protocols/inference/events.ts';
import { MeshError } from '../../common/errors.ts';
import { errorInBand } from './upstream-errors.ts';

/** Parts of an answer that events cannot carry; to drop them in silence would falsify it. */
const UNCARRIED = ['tool_calls', 'function_call', 'audio', 'refusal'] as const;
const REASONING = ['reasoning_content', 'reasoning'] as const;
const MAX_TEXT_LENGTH = 256 * 1024 * 1024;

/**
 * Servers send text without its token ids: `tokens` is empty in every chunk, so `index` stays 0, as the contract of
 * `ChunkEvent` has it, and such an answer cannot be continued elsewhere. Reasoning that a server sends apart from the
 * content comes between `<think>` and `</think>`, as a model writes it itself.
 */
export class OpenAiAnswer {
  readonly #name: string;
  #finishReason: FinishReason | null = null;
  #usage: Usage | null = null;
  #chunks = 0;
  #textLength = 0;
  #isThinking = false;

  /** `name`: what errors call the server. */
  constructor(name: string) {
    this.#name = name;
  }

  /** Was a finish reason given? What comes after it is only counts. */
  get isWhole(): boolean {
    return this.#finishReason !== null;
  }

  /**
   * Takes one chunk of a stream, or a whole answer.
   *
   * @throws MeshError `upstream_error` for what is no such thing or cannot be carried, or the error that it reports.
   */
  take(text: string): ChunkEvent | null {
    const json = parse(text);
    if (!isRecord(json)) throw this.#broken('sent something that is no JSON object');
    if (isPresent(json['error'])) throw errorInBand(this.#name, json['error']);
    this.#usage = readUsage(json['usage']) ?? this.#usage;
    const choices = json['choices'] ?? [];
    if (!Array.isArray(choices)) throw this.#broken('sent an answer without choices');
    let added = '';
    for (const choice of choices as unknown[]) added += this.#choice(choice);
    if (added === '') return null;
    this.#chunks += 1;
    this.#textLength += added.length;
    if (this.#textLength > MAX_TEXT_LENGTH) throw this.#broken('sent an answer without bound');
    return { type: 'chunk', choice: 0, index: 0, tokens: [], text: added };
  }

  /** @throws MeshError `upstream_error` when no finish reason was given: the answer was cut. */
  end(timings: Timings): EndEvent {
    if (this.#finishReason === null) throw this.#broken('ended its answer without a finish_reason');
    const usage = this.#usage ?? { promptTokens: 0, completionTokens: this.#chunks, cachedTokens: 0 };
    return { type: 'end', finishReasons: [this.#finishReason], usage, timings };
  }

  #choice(choice: unknown): string {
    if (!isRecord(choice) || (choice['index'] ?? 0) !== 0) throw this.#broken('sent a choice that was not asked for');
    const part = choice['delta'] ?? choice['message'] ?? choice;
    if (!isRecord(part)) throw this.#broken('sent a choice without content');
    for (const field of UNCARRIED) {
      if (isPresent(part[field])) throw this.#broken(`answered with ${field}, which cannot be passed on yet`);
    }
    const text = this.#content(part);
    const reason = choice['finish_reason'];
    if (!isPresent(reason)) return text;
    if (reason !== 'stop' && reason !== 'length') {
      throw this.#broken(`finished for the reason ${quote(reason)}, which cannot be passed on yet`);
    }
    this.#finishReason = reason;
    return text + this.#endThinking();
  }

  #content(part: Record<string, unknown>): string {
    const reasoning = this.#string(REASONING.map((field) => part[field]).find(isPresent), 'reasoning');
    const content = this.#string(part['content'] ?? part['text'], 'content');
    let text = '';
    if (reasoning !== '') {
      text = this.#isThinking ? reasoning : `<think>${reasoning}`;
      this.#isThinking = true;
    }
    return content === '' ? text : text + this.#endThinking() + content;
  }

  #endThinking(): string {
    if (!this.#isThinking) return '';
    this.#isThinking = false;
    return '</think>';
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

/** The counts that the server states; null when it states none. */
function readUsage(usage: unknown): Usage | null {
  if (!isRecord(usage)) return null;
  const details = usage['prompt_tokens_details'];
  return {
    promptTokens: count(usage['prompt_tokens']),
    completionTokens: count(usage['completion_tokens']),
    cachedTokens: isRecord(details) ? count(details['cached_tokens']) : 0,
  };
}

const count = (value: unknown): number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : 0;

/** Servers fill unused fields with null, empty lists and empty strings. */
function isPresent(value: unknown): boolean {
  if (value === undefined || value === null || value === '') return false;
  return !(Array.isArray(value) && value.length === 0);
}

const quote = (value: unknown): string => JSON.stringify(String(value).slice(0, 50));

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
