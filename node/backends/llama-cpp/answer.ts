/** One order's answer on the node's side: what the engine child says of it, handed to whoever iterates. */

import type { ChunkEvent, ProgressEvent } from '../../../protocols/inference/events.ts';
import type { Clock } from '../../common/clock.ts';
import type { MeshError } from '../../common/errors.ts';
import type { LaneOrder, StepEnd, StepOutput } from './ipc.ts';
import type { EngineTask, EngineTaskResult } from './tasks/engine-task.ts';

const PROGRESS_PERIOD_MS = 500;
/** A chunk of more than these is not added to: a frame of the wire has a limit, and copying has a price. */
const MAX_JOINED_TOKENS = 256;

export type AnswerState = 'waiting' | 'accepted' | 'ended' | 'failed';

/** The order was rendered and has a slot. */
export interface AcceptedOrder {
  readonly type: 'accepted';
  readonly promptTokens: number;
  readonly promptDigest: string;
}

/** Of a lane: progress* accepted chunk* end. Of a task: progress* result. */
export type AnswerEvent =
  | ProgressEvent
  | AcceptedOrder
  | ChunkEvent
  | ({ readonly type: 'end' } & StepEnd)
  | { readonly type: 'result'; readonly result: EngineTaskResult };

export class Answer {
  /** What runs on the slot that the answer holds. */
  readonly order: LaneOrder | EngineTask;
  readonly #clock: Clock;
  readonly #progress: () => ProgressEvent;
  readonly #choice: number;
  #state: AnswerState = 'waiting';
  readonly #events: AnswerEvent[] = [];
  #failure: MeshError | null = null;
  #wake: (() => void) | null = null;
  #nextIndex: number;

  /** `progress` says what the order waits for. */
  constructor(components: { clock: Clock; progress: () => ProgressEvent }, order: LaneOrder | EngineTask) {
    this.#clock = components.clock;
    this.#progress = components.progress;
    this.order = order;
    const lane = order.type === 'lane' ? order : null;
    this.#choice = lane?.choice ?? 0;
    this.#nextIndex = lane?.resumed.length ?? 0;
  }

  get state(): AnswerState {
    return this.#state;
  }

  get over(): boolean {
    return this.#state === 'ended' || this.#state === 'failed';
  }

  accept({ promptTokens, promptDigest }: Omit<AcceptedOrder, 'type'>): void {
    if (this.over) return;
    this.#state = 'accepted';
    this.#push({ type: 'accepted', promptTokens, promptDigest });
  }

  /** Takes a step's output. Steps that nobody has read yet become one chunk. */
  step(output: StepOutput): void {
    if (this.over) return;
    const { id: _, end, ...released } = output;
    const finish = end === undefined ? {} : { finish: end.finish };
    this.#chunk({ type: 'chunk', choice: this.#choice, index: this.#nextIndex, ...released, ...finish });
    if (end === undefined) return;
    this.#state = 'ended';
    this.#push({ type: 'end', ...end });
  }

  /** Ends a task's answer. */
  result(result: EngineTaskResult): void {
    if (this.over) return;
    this.#state = 'ended';
    this.#push({ type: 'result', result });
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
  async *events(): AsyncGenerator<AnswerEvent> {
    const stopTicking = this.#clock.every(PROGRESS_PERIOD_MS, () => this.#tick());
    try {
      for (;;) {
        const event = this.#events.shift();
        if (event !== undefined) {
          if (event.type === 'accepted') stopTicking();
          yield event;
          if (event.type === 'end' || event.type === 'result') return;
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

  #chunk(chunk: ChunkEvent): void {
    this.#nextIndex += chunk.tokens.length;
    const last = this.#events.at(-1);
    if (last?.type !== 'chunk' || last.tokens.length >= MAX_JOINED_TOKENS) {
      this.#push(chunk);
      return;
    }
    this.#events.pop();
    this.#push(joined(last, chunk));
  }

  #push(event: AnswerEvent): void {
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

/** Both of one choice, the second right after the first. */
function joined(first: ChunkEvent, second: ChunkEvent): ChunkEvent {
  const reasoning = `${first.reasoning ?? ''}${second.reasoning ?? ''}`;
  const { promptLogprobs } = first;
  return {
    ...second,
    index: first.index,
    tokens: [...first.tokens, ...second.tokens],
    text: first.text + second.text,
    ...(reasoning === '' ? {} : { reasoning }),
    ...listed('toolCalls', first.toolCalls, second.toolCalls),
    ...listed('logprobs', first.logprobs, second.logprobs),
    ...(promptLogprobs === undefined ? {} : { promptLogprobs }),
  };
}

function listed<K extends 'toolCalls' | 'logprobs'>(key: K, first: ChunkEvent[K], second: ChunkEvent[K]) {
  return first === undefined && second === undefined ? {} : { [key]: [...(first ?? []), ...(second ?? [])] };
}
