/** One answer in OpenAI's shapes turned into events: pure, fed with parsed chunks or the whole body. */

import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import type { ChunkEvent, EndEvent, Timings, Usage } from '../../../protocols/inference/events.ts';
import { MeshError } from '../../common/errors.ts';
import { OpenAiChoice } from './openai-choice.ts';
import { parseJson } from './parse-json.ts';
import { errorInBand } from './upstream-errors.ts';

const MAX_TEXT_LENGTH = 256 * 1024 * 1024;

export interface OpenAiAnswerOptions {
  /** What errors call the server. */
  readonly name: string;
  readonly requestId: string;
  /** How many were asked for. Default 1. */
  readonly choices?: number;
}

/**
 * Servers send text without its token ids: `tokens` is empty in every chunk, so `index` stays 0, as the contract of
 * `ChunkEvent` has it, and log probabilities are of tokens that only the server knows.
 */
export class OpenAiAnswer {
  readonly #name: string;
  readonly #choices: readonly OpenAiChoice[];
  #usage: Usage | null = null;
  #chunks = 0;
  #length = 0;
  #isCounted = false;

  constructor({ name, requestId, choices = 1 }: OpenAiAnswerOptions) {
    this.#name = name;
    this.#choices = Array.from({ length: choices }, (_, index) => new OpenAiChoice(name, index, requestId));
  }

  /** Whole, and its counts came in a chunk of their own, which is always the last. */
  get isOver(): boolean {
    return this.#isCounted && this.isWhole;
  }

  /** Was every choice given a finish reason? What comes after it is only counts. */
  get isWhole(): boolean {
    return this.#choices.every((choice) => choice.finish !== null);
  }

  /**
   * Takes one chunk of a stream, or a whole answer: what it says, by choice.
   *
   * @throws MeshError `upstream_error` for what is no such thing or cannot be carried, or the error that it reports.
   */
  take(text: string): ChunkEvent[] {
    const json = parseJson(text);
    if (!isRecord(json)) throw this.#broken('sent something that is no JSON object');
    const { error } = json;
    if (error !== undefined && error !== null && error !== '') throw errorInBand(this.#name, error);
    const usage = readUsage(json['usage']);
    this.#usage = usage ?? this.#usage;
    const choices = json['choices'] ?? [];
    if (!Array.isArray(choices)) throw this.#broken('sent an answer without choices');
    this.#isCounted = usage !== null && choices.length === 0;
    this.#length += text.length;
    if (this.#length > MAX_TEXT_LENGTH) throw this.#broken('sent an answer without bound');
    return (choices as unknown[]).flatMap((choice) => this.#choice(choice) ?? []);
  }

  /** @throws MeshError `upstream_error` when a finish reason is missing: the answer was cut. */
  end(timings: Timings): EndEvent {
    const finishReasons = this.#choices.map(({ finish }) => {
      if (finish === null) throw this.#broken('ended its answer without a finish_reason');
      return finish;
    });
    const usage = this.#usage ?? { promptTokens: 0, completionTokens: this.#chunks, cachedTokens: 0 };
    return { type: 'end', finishReasons, usage, timings };
  }

  #choice(value: unknown): ChunkEvent | null {
    if (!isRecord(value)) throw this.#broken('sent a choice that is no object');
    const index = value['index'] ?? 0;
    const choice = typeof index === 'number' ? this.#choices[index] : undefined;
    if (choice === undefined) throw this.#broken('sent a choice that was not asked for');
    const chunk = choice.take(value);
    if (chunk !== null && (chunk.text !== '' || chunk.reasoning !== undefined || chunk.toolCalls !== undefined)) {
      this.#chunks += 1;
    }
    return chunk;
  }

  #broken(what: string): MeshError {
    return new MeshError('upstream_error', `${this.#name} ${what}`);
  }
}

/**
 * A whole result that generates nothing, checked for being one.
 *
 * @throws MeshError `upstream_error` for what is no JSON, or the error that it reports.
 */
export function readResult(text: string, name: string): { readonly body: Uint8Array; readonly usage: Usage } {
  const json = parseJson(text);
  if (json === undefined) throw new MeshError('upstream_error', `${name} sent something that is no JSON`);
  if (isRecord(json) && json['error'] !== undefined && json['error'] !== null) throw errorInBand(name, json['error']);
  const usage = readUsage(isRecord(json) ? json['usage'] : null);
  return { body: Buffer.from(text), usage: usage ?? { promptTokens: 0, completionTokens: 0, cachedTokens: 0 } };
}

/** The counts that the server states; null when it states none. */
function readUsage(usage: unknown): Usage | null {
  if (!isRecord(usage)) return null;
  const ofPrompt = usage['prompt_tokens_details'];
  const ofAnswer = usage['completion_tokens_details'];
  const reasoningTokens = isRecord(ofAnswer) ? count(ofAnswer['reasoning_tokens']) : 0;
  return {
    promptTokens: count(usage['prompt_tokens']),
    completionTokens: count(usage['completion_tokens']),
    cachedTokens: isRecord(ofPrompt) ? count(ofPrompt['cached_tokens']) : 0,
    ...(reasoningTokens === 0 ? {} : { reasoningTokens }),
  };
}

const count = (value: unknown): number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : 0;
