/** The order that an answer must keep: pure, fed with decoded frames, says what the caller may see. */
import { violation } from '../frame-decoder.ts';
import type { Frame } from '../framing.ts';
import type { ChunkEvent, InferenceEvent } from './events.ts';
import { decodeAccept, decodeChunk, decodeEnd, decodeError, decodeProgress, FRAME, unexpected } from './messages.ts';

export interface AnswerBounds {
  /** Choices are numbered below this. */
  readonly maxChoices: number;
  /** Tokens of all choices together. */
  readonly maxTokens: number;
  /** UTF-8 bytes of all text together. */
  readonly maxTextBytes: number;
}

/** Checks one answer, frame by frame. */
export class AnswerCheck {
  readonly #bounds: AnswerBounds;
  readonly #nextIndex: number[];
  #accepted = false;
  #over = false;
  #tokens = 0;
  #textBytes = 0;

  constructor(bounds: AnswerBounds) {
    this.#bounds = bounds;
    this.#nextIndex = new Array<number>(bounds.maxChoices).fill(0);
  }

  /** END or ERROR came, and was a good one. */
  get over(): boolean {
    return this.#over;
  }

  /**
   * The event that a frame carries, or null for one that only says that the peer lives.
   *
   * @throws MeshError what ERROR reports, or `protocol_violation`.
   */
  next(frame: Frame): InferenceEvent | null {
    switch (frame.type) {
      case FRAME.chunk:
        return this.#chunk(frame);
      case FRAME.progress: {
        const { state, fraction } = decodeProgress(frame);
        return this.#accepted || state === 'running' ? null : { type: 'progress', state, fraction };
      }
      case FRAME.accept: {
        if (this.#accepted) throw unexpected(frame, 'CHUNK or END');
        this.#accepted = true;
        return decodeAccept(frame);
      }
      case FRAME.end: {
        if (!this.#accepted) throw unexpected(frame, 'ACCEPT');
        const end = decodeEnd(frame);
        if (end.finishReasons.length > this.#bounds.maxChoices) throw violation('an END of too many choices');
        this.#over = true;
        return end;
      }
      case FRAME.error: {
        const error = decodeError(frame);
        this.#over = true;
        throw error;
      }
      default:
        throw unexpected(frame, this.#accepted ? 'CHUNK or END' : 'ACCEPT');
    }
  }

  #chunk(frame: Frame): ChunkEvent {
    if (!this.#accepted) throw unexpected(frame, 'ACCEPT');
    const chunk = decodeChunk(frame);
    const due = this.#nextIndex[chunk.choice];
    if (due === undefined) throw violation('a CHUNK of a choice that was not asked for');
    if (chunk.index !== due) throw violation(`a CHUNK at index ${chunk.index} where ${due} was due`);
    this.#nextIndex[chunk.choice] = due + chunk.tokens.length;
    this.#tokens += chunk.tokens.length;
    this.#textBytes += frame.body.byteLength;
    if (this.#tokens > this.#bounds.maxTokens || this.#textBytes > this.#bounds.maxTextBytes) {
      throw violation('an answer without bound');
    }
    return chunk;
  }
}
