/** The order that an answer must keep: pure, fed with decoded frames, says what the caller may see. */
import { violation } from '../frame-decoder.ts';
import type { Frame } from '../framing.ts';
import { isPlain, join } from './chunk-join.ts';
import { decodeChunk } from './chunk-message.ts';
import type { ChunkEvent, EndEvent, InferenceEvent, InferenceRequest, ResultEvent } from './events.ts';
import {
  decodeAccept,
  decodeEnd,
  decodeError,
  decodeProgress,
  decodeResult,
  FRAME,
  MAX_CHOICES,
  unexpected,
} from './messages.ts';

export interface AnswerBounds {
  /** Choices are numbered below this where the request does not say how many it asks for. */
  readonly maxChoices: number;
  /** Tokens of all choices together. */
  readonly maxTokens: number;
  /** Bytes of everything that is said, together. */
  readonly maxTextBytes: number;
}

/** One answer of several. */
interface ChoiceState {
  /** Index of the next token. */
  next: number;
  finish: EndEvent['finishReasons'][number] | null;
  /** Tool calls begun; null when it went on elsewhere, so that nobody here knows. */
  calls: number | null;
}

/** Checks one answer, frame by frame. */
export class AnswerCheck {
  readonly #bounds: AnswerBounds;
  readonly #choices: readonly ChoiceState[];
  /** How many choices were asked for, where that is known. */
  readonly #asked: number | null;
  readonly #hasTokens: boolean;
  /** Of a chunk that goes on. */
  #part: ChunkEvent | null = null;
  #accepted = false;
  #over = false;
  #tokens = 0;
  #textBytes = 0;

  constructor(request: Pick<InferenceRequest, 'kind' | 'choices' | 'resume'>, bounds: AnswerBounds) {
    const { kind, resume } = request;
    this.#bounds = bounds;
    this.#hasTokens = kind === 'chat' || kind === 'completion';
    this.#asked = request.choices ?? resume?.choices.length ?? null;
    const count = this.#hasTokens ? Math.min(this.#asked ?? bounds.maxChoices, MAX_CHOICES) : 0;
    this.#choices = Array.from({ length: count }, (_, choice) => {
      const { tokens = [], finish = null } = resume?.choices[choice] ?? {};
      return { next: tokens.length, finish, calls: tokens.length === 0 ? 0 : null };
    });
  }

  /** END or ERROR came, and was a good one. */
  get over(): boolean {
    return this.#over;
  }

  /**
   * The event that a frame carries, or null for one that only says that the peer lives, or is a part of a chunk.
   *
   * @throws MeshError what ERROR reports, or `protocol_violation`.
   */
  next(frame: Frame): InferenceEvent | null {
    switch (frame.type) {
      case FRAME.chunk:
        return this.#chunk(frame);
      case FRAME.result:
        return this.#result(frame);
      case FRAME.progress: {
        const { state, fraction } = decodeProgress(frame);
        return this.#accepted || state === 'running' ? null : { type: 'progress', state, fraction };
      }
      case FRAME.accept: {
        if (this.#accepted) throw unexpected(frame, 'CHUNK or END');
        this.#accepted = true;
        return decodeAccept(frame);
      }
      case FRAME.end:
        return this.#end(frame);
      case FRAME.error: {
        const error = decodeError(frame);
        this.#over = true;
        throw error;
      }
      default:
        throw unexpected(frame, this.#accepted ? 'CHUNK or END' : 'ACCEPT');
    }
  }

  #chunk(frame: Frame): ChunkEvent | null {
    if (!this.#accepted) throw unexpected(frame, 'ACCEPT');
    if (!this.#hasTokens) throw unexpected(frame, 'RESULT or END');
    const { chunk, goesOn } = decodeChunk(frame);
    const state = this.#choices[chunk.choice];
    if (state === undefined) throw violation('a CHUNK of a choice that was not asked for');
    if (chunk.index !== state.next) throw violation(`a CHUNK at index ${chunk.index} where ${state.next} was due`);
    if (state.finish !== null) throw violation('a CHUNK of a choice that is whole');
    if (!isPlain(chunk)) checkExtras(chunk, state);
    state.next += chunk.tokens.length;
    this.#tokens += chunk.tokens.length;
    this.#count(frame.body.byteLength + extraBytes(chunk));
    if (this.#tokens > this.#bounds.maxTokens) throw violation('an answer without bound');
    const whole = this.#joined(chunk);
    this.#part = goesOn ? whole : null;
    return goesOn ? null : whole;
  }

  #joined(chunk: ChunkEvent): ChunkEvent {
    if (this.#part === null) return chunk;
    if (this.#part.choice !== chunk.choice) throw violation('a CHUNK within one of another choice');
    return join(this.#part, chunk);
  }

  #result(frame: Frame): ResultEvent {
    if (!this.#accepted) throw unexpected(frame, 'ACCEPT');
    if (this.#hasTokens) throw unexpected(frame, 'CHUNK or END');
    this.#count(frame.body.byteLength);
    return decodeResult(frame);
  }

  #end(frame: Frame): EndEvent {
    if (!this.#accepted) throw unexpected(frame, 'ACCEPT');
    if (this.#part !== null) throw unexpected(frame, 'the rest of a CHUNK');
    const end = decodeEnd(frame);
    this.#checkFinishes(end.finishReasons);
    this.#over = true;
    return end;
  }

  #checkFinishes(reasons: EndEvent['finishReasons']): void {
    const { length } = reasons;
    const most = this.#choices.length;
    const least = !this.#hasTokens ? 0 : Math.min(this.#asked ?? 1, most);
    if (length < least || length > most) throw violation(`an END of ${length} choices`);
    for (const [choice, { next, finish }] of this.#choices.entries()) {
      const reason = reasons[choice];
      if (reason === undefined && next > 0) throw violation('an END without a choice that was begun');
      if (finish !== null && reason !== finish) throw violation('an END that finishes a choice in another way');
    }
  }

  #count(bytes: number): void {
    this.#textBytes += bytes;
    if (this.#textBytes > this.#bounds.maxTextBytes) throw violation('an answer without bound');
  }
}

function checkExtras({ index, toolCalls = [], promptLogprobs, finish }: ChunkEvent, state: ChoiceState): void {
  if (promptLogprobs !== undefined && index > 0) {
    throw violation('a CHUNK with log probabilities of the prompt that is not the first');
  }
  for (const call of toolCalls) {
    if (state.calls === null || call.index < state.calls) continue;
    if (call.index > state.calls) throw violation('a tool call out of turn');
    if (call.id === undefined || call.name === undefined) throw violation('a tool call without id or name');
    state.calls += 1;
  }
  if (finish !== undefined) state.finish = finish;
}

/** What a chunk holds in memory beside its text and tokens, roughly. */
function extraBytes(chunk: ChunkEvent): number {
  if (isPlain(chunk)) return 0;
  const { reasoning = '', toolCalls = [], logprobs = [], promptLogprobs = [] } = chunk;
  let bytes = reasoning.length;
  for (const call of toolCalls) bytes += 64 + call.arguments.length;
  for (const entry of [...logprobs, ...promptLogprobs]) bytes += 64 * (1 + (entry?.top.length ?? 0));
  return bytes;
}
