/** One request's answer on the node's side: the events of the engine, handed to whoever iterates. */

import type { ChunkEvent, InferenceEvent, ProgressEvent } from '../../../protocols/inference/events.ts';
import type { Clock } from '../../common/clock.ts';
import type { MeshError } from '../../common/errors.ts';
import type { GenerationRequest } from './generation-request.ts';
import type { StepOutput } from './ipc.ts';

const PROGRESS_PERIOD_MS = 500;
/** A chunk of more than these is not added to: a frame of the wire has a limit, and copying has a price. */
const MAX_JOINED_TOKENS = 256;

export type AnswerState = 'waiting' | 'accepted' | 'ended' | 'failed';

export class Answer {
  readonly request: GenerationRequest;
  readonly #clock: Clock;
  readonly #progress: () => ProgressEvent;
  #state: AnswerState = 'waiting';
  #events: InferenceEvent[] = [];
  #failure: MeshError | null = null;
  #wake: (() => void) | null = null;
  #tokens = 0;

  /** `progress` says what the request waits for. */
  constructor(components: { clock: Clock; progress: () => ProgressEvent }, request: GenerationRequest) {
    this.#clock = components.clock;
    this.#progress = components.progress;
    this.request = request;
  }

  get state(): AnswerState {
    return this.#state;
  }

  get over(): boolean {
    return this.#state === 'ended' || this.#state === 'failed';
  }

  accept(event: InferenceEvent & { type: 'accepted' }): void {
    if (this.over) return;
    this.#state = 'accepted';
    this.#push(event);
  }

  /** Takes a step's output. Steps that nobody has read yet become one chunk. */
  step(output: StepOutput): void {
    if (this.over) return;
    const { tokens, text, end } = output;
    if (tokens.length > 0 || text !== '') this.#chunk(tokens, text);
    if (end === undefined) return;
    this.#state = 'ended';
    const { finish, promptTokens, completionTokens, cachedTokens, timings } = end;
    const usage = { promptTokens, completionTokens, cachedTokens };
    this.#push({ type: 'end', finishReasons: [finish], usage, timings });
  }

  /** Ends the answer. What was generated before it is still handed out first. */
  fail(error: MeshError): void {
    if (this.over) return;
    this.#state = 'failed';
    this.#failure = error;
    this.#wake?.();
  }

  /**
   * The events, once.
   *
   * @throws MeshError as passed to `fail`.
   */
  async *events(): AsyncGenerator<InferenceEvent> {
    const stopTicking = this.#clock.every(PROGRESS_PERIOD_MS, () => this.#tick());
    try {
      for (;;) {
        const event = this.#events.shift();
        if (event !== undefined) {
          if (event.type === 'accepted') stopTicking();
          yield event;
          if (event.type === 'end') return;
        } else if (this.#failure !== null) {
          throw this.#failure;
        } else {
          await this.#arrival();
        }
      }
    } finally {
      stopTicking();
    }
  }

  #tick(): void {
    if (this.#state === 'waiting' && this.#events.length === 0) this.#push(this.#progress());
  }

  #chunk(tokens: readonly number[], text: string): void {
    const last = this.#events.at(-1);
    let chunk: ChunkEvent = { type: 'chunk', choice: 0, index: this.#tokens, tokens, text };
    if (last?.type === 'chunk' && last.tokens.length < MAX_JOINED_TOKENS) {
      this.#events.pop();
      chunk = { ...last, tokens: [...last.tokens, ...tokens], text: last.text + text };
    }
    this.#tokens += tokens.length;
    this.#push(chunk);
  }

  #push(event: InferenceEvent): void {
    this.#events.push(event);
    this.#wake?.();
  }

  #arrival(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = null;
        resolve();
      };
    });
  }
}
