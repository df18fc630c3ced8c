/** The serving half of the inference protocol: the requests of one stream, one after the other. */
import type { Stream } from '@libp2p/interface';
import { pipe } from 'it-pipe';
import { abortable, type Clock } from '../../node/common/clock.ts';
import { MeshError } from '../../node/common/errors.ts';
import { FrameChannel } from '../frame-channel.ts';
import { violation } from '../frame-decoder.ts';
import { unreachable } from '../frame-reader.ts';
import type { OutgoingFrame } from '../framing.ts';
import { encodeChunk } from './chunk-message.ts';
import { coalesce } from './coalesce.ts';
import type { InferenceEvent, InferenceRequest } from './events.ts';
import { encodeAccept, encodeEnd, encodeError, encodeProgress, encodeResult, type Progress } from './messages.ts';
import {
  MAX_BODY_BYTES,
  MAX_RESUMED_TOKENS,
  type Open,
  payloadBytes,
  requestOf,
  resumedTokens,
} from './open-message.ts';
import { type IntakeLimits, RequestIntake } from './request-intake.ts';

export interface InferenceContext {
  /** Fingerprint of the asking node, proved by the connection. */
  readonly from: string;
  /** Hops between nodes that the request has made: 0 or 1. After 1 it goes no further. */
  readonly hops: number;
  /** The client's credential as the asking node passed it on. */
  readonly authorization: string | null;
  /** Aborts when the asking side cancels, breaks the protocol or is lost. */
  readonly signal: AbortSignal;
}

/** Answers one request. Throws `MeshError`; anything else is reported to the peer as `internal_error` without detail. */
export type InferenceHandler = (request: InferenceRequest, context: InferenceContext) => AsyncIterable<InferenceEvent>;

/** Durations in milliseconds. */
export interface InferenceServerLimits extends IntakeLimits {
  /** Default and most: 16 MiB. */
  readonly maxBodyBytes: number;
  /** While nothing else goes out, PROGRESS does, this often. Default 500. */
  readonly progressMs: number;
  /** A peer that takes nothing for this long is given up. Default 10,000. */
  readonly drainMs: number;
  /** How long a peer may keep the stream after we ended our side. Default 5,000. */
  readonly closeMs: number;
}

export const DEFAULT_INFERENCE_SERVER_LIMITS: InferenceServerLimits = {
  idleMs: 60_000,
  bodySilenceMs: 5000,
  bodyMs: 60_000,
  maxBodyBytes: MAX_BODY_BYTES,
  progressMs: 500,
  drainMs: 10_000,
  closeMs: 5000,
};

/** A request that made more hops is refused, so that two nodes cannot send one to and fro. */
const MAX_HOPS = 1;
/** What a peer is told when there is no room for its body. */
const RETRY_AFTER_MS = 1000;

export interface ServeInferenceOptions {
  readonly clock: Clock;
  readonly limits?: Partial<InferenceServerLimits>;
  /** Books memory for a body and what comes with it; null refuses it as `overloaded`. What it returns is called once, when the answer is over. */
  reserveBytes?(sizeBytes: number): (() => void) | null;
  /** The peer broke the protocol: for its record. Must not throw. */
  onViolation?(error: MeshError): void;
}

/**
 * Serves the requests of a stream and resolves when the stream is over. Never rejects: what goes wrong is told to the
 * peer where it can be, and owned here.
 */
export async function serveInference(
  stream: Stream,
  from: string,
  handler: InferenceHandler,
  options: ServeInferenceOptions,
): Promise<void> {
  const service = new Service(stream, from, handler, options);
  try {
    await service.run();
  } catch (error) {
    if (error instanceof MeshError && error.code === 'protocol_violation') options.onViolation?.(error);
    stream.abort(unreachable('the request could not be served', error));
  }
}

class Service {
  readonly #channel: FrameChannel;
  readonly #from: string;
  readonly #handler: InferenceHandler;
  readonly #options: ServeInferenceOptions;
  readonly #limits: InferenceServerLimits;
  readonly #intake: RequestIntake;
  /** The request that is being answered. */
  #answer: Answer | null = null;

  constructor(stream: Stream, from: string, handler: InferenceHandler, options: ServeInferenceOptions) {
    this.#from = from;
    this.#handler = handler;
    this.#options = options;
    this.#limits = { ...DEFAULT_INFERENCE_SERVER_LIMITS, ...options.limits };
    stream.addEventListener('close', () => this.#answer?.abort(), { once: true });
    this.#channel = new FrameChannel(stream, options.clock, this.#limits);
    this.#intake = new RequestIntake(this.#channel.reader, options.clock, this.#limits);
  }

  async run(): Promise<void> {
    for (;;) {
      const open = await this.#intake.open();
      if (open === null || !(await this.#serve(open))) break;
    }
    await this.#channel.end(this.#limits.closeMs);
  }

  /** False when the stream is of no use for another request: what follows an unread body is no OPEN. */
  async #serve(open: Open): Promise<boolean> {
    const release = this.#admit(open);
    if (release instanceof MeshError) {
      await this.#channel.writer.write(encodeError(release));
      return false;
    }
    try {
      const payload = await this.#intake.body(payloadBytes(open));
      if (this.#channel.stream.status !== 'open') return false;
      this.#answer = new Answer(this.#channel, this.#options, this.#limits);
      await this.#answer.run(open, requestOf(open, payload), this.#from, this.#handler);
      return !this.#answer.aborted;
    } finally {
      this.#answer = null;
      release();
    }
  }

  /** What gives back the memory that was booked for body and tokens, or why the body is not even read. */
  #admit(open: Open): (() => void) | MeshError {
    if (open.hops > MAX_HOPS) return new MeshError('model_not_loaded', 'the request made too many hops between nodes');
    if (open.bodyBytes > this.#limits.maxBodyBytes) {
      const { maxBodyBytes } = this.#limits;
      return new MeshError('payload_too_large', `the body has ${open.bodyBytes} bytes; the limit is ${maxBodyBytes}`);
    }
    if (resumedTokens(open) > MAX_RESUMED_TOKENS) {
      return new MeshError('cannot_resume', `the answer to go on with has more than ${MAX_RESUMED_TOKENS} tokens`);
    }
    if (this.#options.reserveBytes === undefined) return () => {};
    const full = { retryAfterMs: RETRY_AFTER_MS };
    return (
      this.#options.reserveBytes(payloadBytes(open)) ??
      new MeshError('overloaded', 'the node has no room for this request now', full)
    );
  }
}

/** One answer on a stream. */
class Answer {
  readonly #channel: FrameChannel;
  readonly #options: ServeInferenceOptions;
  readonly #limits: InferenceServerLimits;
  readonly #gone = new AbortController();
  #progress: Progress = { state: 'queued', fraction: null };
  /** Called before the last frame goes out: from then on the peer may speak again. */
  #conclude: () => void = () => {};

  constructor(channel: FrameChannel, options: ServeInferenceOptions, limits: InferenceServerLimits) {
    this.#channel = channel;
    this.#options = options;
    this.#limits = limits;
  }

  get aborted(): boolean {
    return this.#gone.signal.aborted;
  }

  /** The stream is over. */
  abort(): void {
    this.#gone.abort(new MeshError('client_closed', 'the asking side has gone'));
  }

  async run(open: Open, request: InferenceRequest, from: string, handler: InferenceHandler): Promise<void> {
    const { hops, authorization = null } = open;
    const { signal } = this.#gone;
    if (this.#channel.reader.hasUnread) throw tooEarly();
    const unwatch = this.#channel.reader.watch(() => this.#onSign());
    const stopKeepAlive = this.#keepAlive();
    this.#conclude = () => {
      unwatch();
      stopKeepAlive();
    };
    try {
      const answering = pipe(
        handler(request, { from, hops, authorization, signal }),
        coalesce,
        (events: AsyncIterable<InferenceEvent>) => this.#frames(events),
        (frames: AsyncIterable<readonly OutgoingFrame[]>) => this.#send(frames),
      );
      await abortable(answering, signal);
    } catch (error) {
      this.#conclude();
      if (!signal.aborted) await this.#channel.writer.write(encodeError(error));
    }
  }

  /** Before its answer is over the asking side says nothing more; what it says resets the stream, which stops the handler. */
  #onSign(): void {
    if (!this.#channel.reader.hasUnread) return;
    const error = tooEarly();
    this.#conclude();
    this.#options.onViolation?.(error);
    this.#channel.stream.abort(error);
  }

  async *#frames(events: AsyncIterable<InferenceEvent>): AsyncGenerator<readonly OutgoingFrame[]> {
    for await (const event of events) {
      switch (event.type) {
        case 'progress':
          this.#progress = { state: event.state, fraction: event.fraction };
          yield [encodeProgress(this.#progress)];
          break;
        case 'accepted':
          this.#progress = { state: 'running', fraction: null };
          yield [encodeAccept(event)];
          break;
        case 'chunk':
          for (const frame of encodeChunk(event)) yield [frame];
          break;
        case 'result':
          for (const frame of encodeResult(event)) yield [frame];
          break;
        case 'end':
          this.#conclude();
          yield [encodeEnd(event)];
          return;
      }
    }
    throw new MeshError('internal_error', 'the answer ended without its end');
  }

  async #send(frames: AsyncIterable<readonly OutgoingFrame[]>): Promise<void> {
    for await (const batch of frames) await this.#channel.writer.write(batch, this.#gone.signal);
  }

  #keepAlive(): () => void {
    const { clock } = this.#options;
    const { progressMs } = this.#limits;
    const { writer } = this.#channel;
    return clock.every(progressMs / 2, () => {
      if (writer.blocked || clock.now() - writer.lastWriteAt < progressMs) return;
      // A failed write has reset the stream, which stops the handler.
      writer.write(encodeProgress(this.#progress)).catch(() => {});
    });
  }
}

function tooEarly(): MeshError {
  return violation('a frame of the asking side before the answer was over');
}
