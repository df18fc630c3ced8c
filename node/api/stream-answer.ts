/** One streamed answer, from the first event of its dispatch to the end of its response. */
import type { ServerResponse } from 'node:http';
import type { InferenceEvent, ProgressEvent } from '../../protocols/inference/events.ts';
import { abortable, type Clock } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';
import type { Dispatch } from '../routing/dispatch.ts';
import { type ChunkFormat, DONE_EVENT, errorEvent } from './chunk-format.ts';
import type { ResolvedFacadeOptions } from './components.ts';
import { toApiError } from './errors.ts';
import { SseStream } from './sse.ts';

export type StreamTimes = Pick<ResolvedFacadeOptions, 'headerWaitMs' | 'waitingCommentMs' | 'gapCommentMs' | 'drainMs'>;

/** An answer that ends without its `end` event was cut, whatever the dispatcher thinks. */
export function cutShort(): MeshError {
  return new MeshError('protocol_violation', 'The answer ended before it was complete.');
}

/** Headers that are true once the answer is committed. */
export function commitHeaders(dispatch: Dispatch): Record<string, string> {
  const attempts = { 'x-meshnode-attempts': String(dispatch.attempts) };
  return dispatch.servedBy === null ? attempts : { 'x-meshnode-node': dispatch.servedBy, ...attempts };
}

/** Writes one dispatch to one response. The caller hands the response over in `takeOver`, when headers must go. */
export class StreamAnswer {
  readonly #dispatch: Dispatch;
  readonly #format: ChunkFormat;
  readonly #signal: AbortSignal;
  readonly #clock: Clock;
  readonly #times: StreamTimes;
  readonly #sse: SseStream;
  readonly #takeOver: () => Record<string, string | number | string[]>;
  #committed = false;
  /** What was said last about why nothing comes. */
  #waitingFor: ProgressEvent | null = null;

  /** `takeOver` is called once, before the first byte; it returns the headers that every answer carries. */
  constructor(
    components: {
      readonly response: ServerResponse;
      readonly dispatch: Dispatch;
      readonly format: ChunkFormat;
      readonly signal: AbortSignal;
      readonly clock: Clock;
      readonly takeOver: () => Record<string, string | number | string[]>;
    },
    times: StreamTimes,
  ) {
    this.#dispatch = components.dispatch;
    this.#format = components.format;
    this.#signal = components.signal;
    this.#clock = components.clock;
    this.#takeOver = components.takeOver;
    this.#times = times;
    this.#sse = new SseStream(components.response, { clock: components.clock, drainMs: times.drainMs });
  }

  /**
   * Runs to the end of the response.
   *
   * @throws MeshError when it failed before the headers went: the response is still the caller's then.
   */
  async run(): Promise<void> {
    const { headerWaitMs, waitingCommentMs, gapCommentMs } = this.#times;
    const cancelHeaderWait = this.#clock.after(headerWaitMs, () => this.#open({}));
    const cancelComments = this.#clock.every(Math.min(waitingCommentMs, gapCommentMs) / 2, () => this.#breakSilence());
    try {
      await abortable(this.#pump(), this.#signal);
      this.#sse.end(DONE_EVENT);
    } catch (thrown) {
      this.#fail(toApiError(thrown));
    } finally {
      cancelHeaderWait();
      cancelComments();
    }
  }

  async #pump(): Promise<void> {
    let ended = false;
    for await (const event of this.#dispatch.events) {
      if (this.#signal.aborted) return;
      ended = this.#take(event) || ended;
      if (this.#sse.full) await this.#sse.room(this.#signal);
    }
    if (!ended) throw cutShort();
  }

  /** Returns true for the event that makes the answer whole. */
  #take(event: InferenceEvent): boolean {
    if (event.type === 'progress') this.#waitingFor = event;
    else if (event.type === 'chunk') {
      const printed = this.#format.chunk(event);
      if (printed === '') return false;
      this.#commit();
      this.#sse.send(printed);
    } else if (event.type === 'end') {
      this.#commit();
      this.#sse.send(this.#format.end(event));
      return true;
    }
    return false;
  }

  #commit(): void {
    if (this.#committed) return;
    this.#committed = true;
    this.#open(commitHeaders(this.#dispatch));
  }

  #open(headers: Record<string, string>): void {
    if (this.#sse.opened || this.#signal.aborted) return;
    this.#sse.open({ ...this.#takeOver(), ...headers });
    if (!this.#committed) this.#sse.comment(this.#waiting());
  }

  #breakSilence(): void {
    const boundMs = this.#committed ? this.#times.gapCommentMs : this.#times.waitingCommentMs;
    if (this.#sse.opened && this.#sse.silentMs >= boundMs) this.#sse.comment(this.#waiting());
  }

  /** For people who look at the stream; clients skip it. */
  #waiting(): string {
    if (this.#committed || this.#waitingFor === null) return 'waiting';
    const { state, fraction } = this.#waitingFor;
    return fraction === null ? state : `${state} ${Math.floor(fraction * 100)} %`;
  }

  #fail(error: MeshError): void {
    if (!this.#sse.opened) throw error;
    if (error.code === 'client_closed') this.#sse.destroy();
    else this.#sse.end(errorEvent(error));
  }
}
