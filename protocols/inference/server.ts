/** The serving half of the inference protocol: one request over one stream. */
import type { Stream } from '@libp2p/interface';
import { pipe } from 'it-pipe';
import { abortable, type Clock } from '../../node/common/clock.ts';
import { MeshError } from '../../node/common/errors.ts';
import { FrameReader, unreachable } from '../frame-reader.ts';
import { FrameWriter } from '../frame-writer.ts';
import type { OutgoingFrame } from '../framing.ts';
import { endStream } from '../stream-end.ts';
import { coalesce } from './coalesce.ts';
import type { InferenceEvent, InferenceRequest } from './events.ts';
import {
  encodeAccept,
  encodeChunk,
  encodeEnd,
  encodeError,
  encodeProgress,
  MAX_BODY_BYTES,
  type Open,
  type Progress,
  unexpected,
} from './messages.ts';
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
  /** How long a peer may keep the stream after our last frame. Default 5,000. */
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
  /** Books memory for a body; null refuses it as `overloaded`. What it returns is called once, when the stream is over. */
  reserveBytes?(sizeBytes: number): (() => void) | null;
  /** The peer broke the protocol: for its record. Must not throw. */
  onViolation?(error: MeshError): void;
}

/**
 * Serves the one request of a stream and resolves when the stream is over. Never rejects: what goes wrong is told to
 * the peer where it can be, and owned here.
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
  } finally {
    service.release();
  }
}

class Service {
  readonly #stream: Stream;
  readonly #from: string;
  readonly #handler: InferenceHandler;
  readonly #options: ServeInferenceOptions;
  readonly #limits: InferenceServerLimits;
  readonly #reader: FrameReader;
  readonly #writer: FrameWriter;
  readonly #gone = new AbortController();
  #release: (() => void) | null = null;
  #progress: Progress = { state: 'queued', fraction: null };

  constructor(stream: Stream, from: string, handler: InferenceHandler, options: ServeInferenceOptions) {
    this.#stream = stream;
    this.#from = from;
    this.#handler = handler;
    this.#options = options;
    this.#limits = { ...DEFAULT_INFERENCE_SERVER_LIMITS, ...options.limits };
    const onClose = (): void => this.#gone.abort(new MeshError('client_closed', 'the asking side has gone'));
    if (stream.status === 'open') stream.addEventListener('close', onClose, { once: true });
    else onClose();
    this.#reader = new FrameReader(stream);
    this.#writer = new FrameWriter(stream, options.clock, this.#limits);
  }

  async run(): Promise<void> {
    const intake = new RequestIntake(this.#reader, this.#options.clock, this.#limits);
    const open = await intake.open();
    if (open !== null) {
      const refusal = this.#refuse(open);
      if (refusal !== null) await this.#writer.write(encodeError(refusal));
      else await this.#answer(open, await intake.body(open.bodyBytes));
    }
    await endStream(this.#stream, this.#writer, this.#options.clock, this.#limits.closeMs);
  }

  /** Gives back what was booked for the body; idempotent. */
  release(): void {
    this.#release?.();
    this.#release = null;
  }

  /** Why this request is not even read. */
  #refuse(open: Open): MeshError | null {
    if (open.hops > MAX_HOPS) return new MeshError('model_not_loaded', 'the request made too many hops between nodes');
    if (open.bodyBytes > this.#limits.maxBodyBytes) {
      const { maxBodyBytes } = this.#limits;
      return new MeshError('payload_too_large', `the body has ${open.bodyBytes} bytes; the limit is ${maxBodyBytes}`);
    }
    if (this.#options.reserveBytes === undefined) return null;
    this.#release = this.#options.reserveBytes(open.bodyBytes);
    if (this.#release !== null) return null;
    return new MeshError('overloaded', 'the node has no room for this request now', { retryAfterMs: RETRY_AFTER_MS });
  }

  async #answer(open: Open, body: Uint8Array): Promise<void> {
    const { requestId, kind, model, seed, hops, authorization = null } = open;
    const request: InferenceRequest = { requestId, kind, model, seed, body };
    this.#watch().catch(() => {});
    const stopKeepAlive = this.#keepAlive();
    try {
      const answering = pipe(
        this.#handler(request, { from: this.#from, hops, authorization, signal: this.#gone.signal }),
        coalesce,
        (events: AsyncIterable<InferenceEvent>) => this.#frames(events),
        (frames: AsyncIterable<readonly OutgoingFrame[]>) => this.#send(frames),
      );
      await abortable(answering, this.#gone.signal);
    } catch (error) {
      if (!this.#gone.signal.aborted) await this.#writer.write(encodeError(error));
    } finally {
      stopKeepAlive();
    }
  }

  /** After its request the asking side says nothing more; what it says resets the stream, which stops the handler. */
  async #watch(): Promise<void> {
    try {
      const frame = await this.#reader.read();
      if (frame !== null) throw unexpected(frame, 'nothing');
    } catch (error) {
      if (!(error instanceof MeshError) || error.code !== 'protocol_violation') return;
      this.#options.onViolation?.(error);
      this.#stream.abort(error);
    }
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
          yield* encodeChunk(event).map((frame) => [frame]);
          break;
        case 'end':
          yield [encodeEnd(event)];
          return;
      }
    }
    throw new MeshError('internal_error', 'the answer ended without its end');
  }

  async #send(frames: AsyncIterable<readonly OutgoingFrame[]>): Promise<void> {
    for await (const batch of frames) await this.#writer.write(batch, this.#gone.signal);
  }

  #keepAlive(): () => void {
    const { clock } = this.#options;
    const { progressMs } = this.#limits;
    return clock.every(progressMs / 2, () => {
      if (this.#writer.blocked || clock.now() - this.#writer.lastWriteAt < progressMs) return;
      // A failed write has reset the stream, which stops the handler.
      this.#writer.write(encodeProgress(this.#progress)).catch(() => {});
    });
  }
}
