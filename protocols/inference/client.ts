/** The asking half of the inference protocol: one request, on a stream that may have carried others before. */
import type { Stream } from '@libp2p/interface';
import { abortable, type Clock, deadline } from '../../node/common/clock.ts';
import { MeshError } from '../../node/common/errors.ts';
import { FrameChannel } from '../frame-channel.ts';
import { violation } from '../frame-decoder.ts';
import { unreachable } from '../frame-reader.ts';
import { Watchdog } from '../watchdog.ts';
import { type AnswerBounds, AnswerCheck } from './answer-check.ts';
import type { InferenceEvent, InferenceRequest } from './events.ts';
import { encodeRequest } from './open-message.ts';

/** A stream on which no request is under way. Whoever gets it owns it: hands it back, closes or resets it. */
export interface StreamLease {
  readonly stream: Stream;
  /** False: from the warm pool, so the other side may have closed it meanwhile. */
  readonly fresh: boolean;
  /** The frames of `stream`, from whoever keeps it for more than one request. Absent: made for this one. */
  readonly channel?: FrameChannel;
  /** Hands the stream back, the answer being over and all of the request sent. Absent: it ends with this request. */
  release?(): void;
}

/** All durations in milliseconds. */
export interface InferenceClientLimits extends AnswerBounds {
  /** To get a stream. Default 1,500. */
  readonly acquireMs: number;
  /** Pooled streams found dead that are replaced before the last one's failure counts. Default 8. */
  readonly replacements: number;
  /** From the last byte of the request to the first frame of the answer. Default 3,000. */
  readonly firstFrameMs: number;
  /** Between two frames. Default 10,000. */
  readonly silenceMs: number;
  /** A peer that takes none of the request for this long is given up. Default 10,000. */
  readonly drainMs: number;
}

export const DEFAULT_INFERENCE_CLIENT_LIMITS: InferenceClientLimits = {
  acquireMs: 1500,
  replacements: 8,
  firstFrameMs: 3000,
  silenceMs: 10_000,
  drainMs: 10_000,
  maxChoices: 16,
  maxTokens: 16_777_216,
  maxTextBytes: 268_435_456,
};

/** How long the peer may take to end its side after END before the stream is reset. */
const CLOSE_MS = 1000;

export interface InferOptions {
  readonly signal: AbortSignal;
  readonly clock: Clock;
  /** Opens a stream, or takes a warm one. May ignore its signal: a lease that comes too late is reset. */
  acquire(signal: AbortSignal): Promise<StreamLease>;
  /** The client's credential, passed on to the peer. */
  readonly authorization?: string;
  /** Hops between nodes that the request has made on arrival. Default 1. */
  readonly hops?: 0 | 1;
  readonly limits?: Partial<InferenceClientLimits>;
}

/**
 * Asks a peer. The events keep the order of `InferenceEvent` and end with `end`. Leaving the iteration, or aborting the
 * signal, resets the stream at once, which cancels the generation there.
 *
 * @throws MeshError `peer_unreachable` (no stream, reset, silence, cut), `protocol_violation`, whatever the peer
 *   reports, `client_closed` or the signal's own MeshError when it aborts; nothing else.
 */
export function infer(request: InferenceRequest, options: InferOptions): AsyncGenerator<InferenceEvent> {
  const watchdog = new Watchdog(options.clock, options.signal);
  const events = ask(request, options, watchdog);
  // A plain generator would heed return() only once its present wait is over.
  const leave = (): void => watchdog.abort(new MeshError('client_closed', 'the asking side left'));
  return {
    next: () => events.next(),
    return: (value) => {
      leave();
      return events.return(value);
    },
    throw: (error) => {
      leave();
      return events.throw(error);
    },
    [Symbol.asyncIterator]() {
      return this;
    },
    async [Symbol.asyncDispose]() {
      leave();
      await events.return(undefined);
    },
  };
}

async function* ask(
  request: InferenceRequest,
  options: InferOptions,
  watchdog: Watchdog,
): AsyncGenerator<InferenceEvent> {
  using _ = watchdog;
  const limits = { ...DEFAULT_INFERENCE_CLIENT_LIMITS, ...options.limits };
  try {
    for (let replaced = 0; ; replaced++) {
      const lease = await acquire(options, limits, watchdog.signal);
      const exchange = new Exchange(lease, request, options, limits, watchdog);
      try {
        yield* exchange.run();
        return;
      } catch (error) {
        // The other side closes idle streams: a pooled one that died before a word says nothing about the peer.
        const stale = !lease.fresh && !exchange.answered && isUnreachable(error) && !watchdog.signal.aborted;
        if (!stale || replaced >= limits.replacements) throw error;
      }
    }
  } catch (error) {
    throw ownError(error, options.signal);
  }
}

async function acquire(
  options: InferOptions,
  limits: InferenceClientLimits,
  parent: AbortSignal,
): Promise<StreamLease> {
  const late = (): MeshError =>
    new MeshError('peer_unreachable', `no stream to the peer within ${limits.acquireMs} ms`);
  using bound = deadline(options.clock, limits.acquireMs, late, parent);
  bound.signal.throwIfAborted();
  const leasing = options.acquire(bound.signal);
  try {
    return await abortable(leasing, bound.signal);
  } catch (error) {
    leasing.then(
      ({ stream }) => stream.abort(late()),
      () => {},
    );
    throw error;
  }
}

/** One try on one stream. */
class Exchange {
  readonly #lease: StreamLease;
  readonly #channel: FrameChannel;
  readonly #request: InferenceRequest;
  readonly #options: InferOptions;
  readonly #limits: InferenceClientLimits;
  readonly #watchdog: Watchdog;
  readonly #check: AnswerCheck;
  #sent = false;
  #answered = false;
  #left = false;

  constructor(
    lease: StreamLease,
    request: InferenceRequest,
    options: InferOptions,
    limits: InferenceClientLimits,
    watchdog: Watchdog,
  ) {
    this.#lease = lease;
    this.#channel = lease.channel ?? new FrameChannel(lease.stream, options.clock, limits);
    this.#request = request;
    this.#options = options;
    this.#limits = limits;
    this.#watchdog = watchdog;
    this.#check = new AnswerCheck(request, limits);
  }

  /** A frame came from the peer. */
  get answered(): boolean {
    return this.#answered;
  }

  async *run(): AsyncGenerator<InferenceEvent> {
    const { signal } = this.#watchdog;
    const onAbort = (): void => this.#reset(signal.reason);
    const leave = (): void => {
      signal.removeEventListener('abort', onAbort);
      this.#leave();
    };
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      const sending = this.#send();
      // Its failure resets the stream, which the reader reports.
      sending.catch((error: unknown) => this.#reset(error));
      for await (const event of this.#events()) {
        if (event.type === 'end') {
          if (this.#channel.reader.hasUnread) throw violation('more after END');
          // Before the caller sees it, so that leaving at `end` does not reset a stream that did its work.
          leave();
          yield event;
          return;
        }
        yield event;
      }
      throw unreachable('the stream ended before the answer did');
    } finally {
      leave();
      this.#watchdog.disarm();
    }
  }

  async #send(): Promise<void> {
    for (const frame of encodeRequest(this.#request, { hops: 1, ...this.#options })) {
      await this.#channel.writer.write(frame);
      if (!this.#answered) this.#arm();
    }
    this.#sent = true;
    if (!this.#answered) this.#arm();
  }

  async *#events(): AsyncGenerator<InferenceEvent> {
    const { signal } = this.#watchdog;
    for (;;) {
      this.#arm();
      const frame = await this.#channel.reader.read(signal);
      this.#watchdog.disarm();
      if (frame === null) return;
      this.#answered = true;
      const event = this.#check.next(frame);
      if (event !== null) yield event;
    }
  }

  /** The bound of the present wait. */
  #arm(): void {
    const { firstFrameMs, silenceMs, drainMs } = this.#limits;
    const boundMs = this.#answered ? silenceMs : this.#sent ? firstFrameMs : drainMs;
    this.#watchdog.arm(boundMs, () => new MeshError('peer_unreachable', `the peer said nothing for ${boundMs} ms`));
  }

  /** Lets go of the stream; afterwards it may carry the request of somebody else. */
  #leave(): void {
    if (this.#left) return;
    const isDone = this.#check.over && this.#sent && !this.#channel.reader.hasUnread;
    if (!isDone) this.#reset(new MeshError('client_closed', 'the request was given up'));
    this.#left = true;
    if (!isDone) return;
    if (this.#lease.release !== undefined && this.#channel.isIdle) this.#lease.release();
    else void this.#channel.end(CLOSE_MS);
  }

  #reset(reason: unknown): void {
    if (!this.#left) this.#lease.stream.abort(unreachable('the request failed', reason));
  }
}

function isUnreachable(error: unknown): boolean {
  return error instanceof MeshError && error.code === 'peer_unreachable';
}

function ownError(error: unknown, signal: AbortSignal): MeshError {
  if (signal.aborted) {
    return signal.reason instanceof MeshError ? signal.reason : new MeshError('client_closed', 'the client has gone');
  }
  return unreachable('the peer could not be reached', error);
}
