/** A server-sent event stream on a Node response: one write per turn, bounded memory, bounded wait for a slow reader. */
import type { ServerResponse } from 'node:http';
import { abortable, type Clock, deadline } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';

/** Text that is flushed at once instead of at the end of the turn, characters. */
const FLUSH_CHARACTERS = 32 * 1024;

const SSE_HEADERS = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-transform',
  'x-accel-buffering': 'no',
};

/** Writes already printed events. After the response has closed, every call does nothing. */
export class SseStream {
  readonly #response: ServerResponse;
  readonly #clock: Clock;
  readonly #drainMs: number;
  #pending = '';
  #flushScheduled = false;
  /** Set while the socket takes no more: called when it does again. */
  #blocked = false;
  #onDrain: () => void = () => {};
  #opened = false;
  #ended = false;
  #lastWriteMs: number;

  /** `drainMs`: how long the client may read nothing. */
  constructor(response: ServerResponse, options: { readonly clock: Clock; readonly drainMs: number }) {
    this.#response = response;
    this.#clock = options.clock;
    this.#drainMs = options.drainMs;
    this.#lastWriteMs = options.clock.now();
    response.on('drain', () => {
      this.#blocked = false;
      this.#onDrain();
    });
  }

  /** Have the headers gone? From then on a failure is an event, not a status. */
  get opened(): boolean {
    return this.#opened;
  }

  /** Is it time to await `room()` before sending more? */
  get full(): boolean {
    return this.#blocked || this.#pending.length >= FLUSH_CHARACTERS;
  }

  /** Milliseconds since the last byte. */
  get silentMs(): number {
    return this.#clock.now() - this.#lastWriteMs;
  }

  /** Sends status 200 and the headers. */
  open(headers: Record<string, string | number | string[]>): void {
    if (this.#opened || this.#ended) return;
    this.#opened = true;
    this.#lastWriteMs = this.#clock.now();
    this.#response.writeHead(200, { ...headers, ...SSE_HEADERS });
  }

  /** Queues an event; what is queued in one turn of the event loop leaves in one write. */
  send(event: string): void {
    this.#pending += event;
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    process.nextTick(() => {
      this.#flushScheduled = false;
      this.#flush();
    });
  }

  /** Sends a line that every reader skips, to show that the connection lives. */
  comment(text: string): void {
    if (this.#blocked) return;
    this.#lastWriteMs = this.#clock.now();
    this.send(`: ${text}\n\n`);
  }

  /**
   * Resolves when more may be sent.
   *
   * @throws MeshError `client_closed` after `drainMs` without the client reading, or the signal's reason.
   */
  async room(signal: AbortSignal): Promise<void> {
    this.#flush();
    if (!this.#blocked) {
      // The source has more ready than a turn should take: let timers and other streams run.
      await new Promise<void>((resolve) => setImmediate(resolve));
      return;
    }
    const stalled = (): Error => new MeshError('client_closed', 'The client stopped reading its answer.');
    using bound = deadline(this.#clock, this.#drainMs, stalled, signal);
    const drained = new Promise<void>((resolve) => {
      this.#onDrain = resolve;
    });
    await abortable(drained, bound.signal);
  }

  /** Sends a last event and ends the response. */
  end(event: string): void {
    if (this.#ended) return;
    this.#pending += event;
    const last = this.#pending;
    this.#pending = '';
    this.#ended = true;
    this.#response.end(last);
  }

  /** Closes the connection under a client that does not read. */
  destroy(): void {
    this.#ended = true;
    this.#response.destroy();
  }

  #flush(): void {
    if (this.#ended || this.#pending === '' || !this.#opened) return;
    const text = this.#pending;
    this.#pending = '';
    this.#lastWriteMs = this.#clock.now();
    this.#blocked = !this.#response.write(text);
  }
}
