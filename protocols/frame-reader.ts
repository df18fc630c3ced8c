/** Pulls frames from a libp2p stream, and lets the peer send no faster than they are pulled. */
import type { Stream, StreamCloseEvent, StreamMessageEvent } from '@libp2p/interface';
import { MeshError } from '../node/common/errors.ts';
import { FrameDecoder } from './frame-decoder.ts';
import type { Frame } from './framing.ts';

/** Above this much unread the stream is paused, so that its window runs out. More than any frame. */
const HIGH_BYTES = 262_144;
/** Below this it flows again. More than any frame, or a frame in the making would stall. */
const LOW_BYTES = 98_304;

/**
 * A reader for one consumer. Takes over the stream's `message` events, so make one per stream; whatever arrived before
 * it was made is not lost.
 */
export class FrameReader {
  readonly #stream: Stream;
  readonly #decoder = new FrameDecoder();
  #ended = false;
  #error: MeshError | null = null;
  #broken = false;
  #resuming = false;
  #wake: (() => void) | null = null;

  constructor(stream: Stream) {
    this.#stream = stream;
    // A refused stream can be over before anyone could listen to it.
    if (stream.status !== 'open') this.#onClose(undefined);
    stream.addEventListener('message', (event) => this.#onMessage(event));
    stream.addEventListener('end', () => this.#onEnd());
    stream.addEventListener('close', (event: StreamCloseEvent) => this.#onClose(event));
  }

  /** Bytes of the peer that are here and were not read. */
  get hasUnread(): boolean {
    return !this.#decoder.atBoundary;
  }

  /**
   * Resolves when the first byte of a frame is here, or the end is: what follows may be read with a shorter bound.
   *
   * @throws the signal's reason when it aborts first.
   */
  async arrival(signal?: AbortSignal): Promise<void> {
    while (!this.hasUnread && !this.#ended && this.#error === null) {
      signal?.throwIfAborted();
      await this.#more(signal);
    }
  }

  /**
   * Calls `onSign` whenever the peer says something, ends its side or is lost, until a read starts or what this returns
   * is called. For one that reads nothing now and must know.
   */
  watch(onSign: () => void): () => void {
    this.#wake = onSign;
    return () => {
      if (this.#wake === onSign) this.#wake = null;
    };
  }

  /**
   * The next frame; null when the peer ended its side between two frames. One read at a time.
   *
   * @throws MeshError `peer_unreachable` when the stream was reset or cut, `protocol_violation` (the stream is reset)
   *   for bytes that are no frame; the signal's reason when it aborts first.
   */
  async read(signal?: AbortSignal): Promise<Frame | null> {
    for (;;) {
      signal?.throwIfAborted();
      const frame = this.#next();
      if (frame !== null) {
        this.#relax();
        return frame;
      }
      if (this.#relax()) continue;
      if (this.#error !== null) throw this.#error;
      if (this.#ended) return this.#end();
      await this.#more(signal);
    }
  }

  #next(): Frame | null {
    if (this.#broken) throw this.#error;
    try {
      return this.#decoder.next();
    } catch (error) {
      this.#broken = true;
      this.#error = error as MeshError;
      this.#stream.abort(this.#error);
      throw error;
    }
  }

  #end(): null {
    if (this.#decoder.atBoundary) return null;
    throw new MeshError('peer_unreachable', 'the stream ended in the middle of a frame');
  }

  #more(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#wake = null;
        reject(signal?.reason as Error);
      };
      this.#wake = () => {
        this.#wake = null;
        signal?.removeEventListener('abort', onAbort);
        resolve();
      };
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  #onMessage(event: StreamMessageEvent): void {
    if (event.data instanceof Uint8Array) this.#decoder.push(event.data);
    else for (const chunk of event.data) this.#decoder.push(chunk);
    // Inside resume() a pause would be undone by the rest of resume(): #relax pauses after it.
    if (!this.#resuming) this.#restrain();
    this.#wake?.();
  }

  #onEnd(): void {
    this.#ended = true;
    this.#wake?.();
  }

  #onClose(event: StreamCloseEvent | undefined): void {
    const { status, readBufferLength } = this.#stream;
    if (event?.error !== undefined || status === 'aborted' || status === 'reset') {
      this.#error ??= unreachable('the stream was reset', event?.error);
    } else if (readBufferLength === 0) {
      this.#ended = true;
    }
    this.#wake?.();
  }

  #restrain(): void {
    if (this.#decoder.heldBytes > HIGH_BYTES && this.#stream.readStatus === 'readable') this.#stream.pause();
  }

  /** True when a paused stream flows again, which hands over at once what it held back. */
  #relax(): boolean {
    if (this.#decoder.heldBytes >= LOW_BYTES || this.#stream.readStatus !== 'paused') return false;
    this.#resuming = true;
    try {
      this.#stream.resume();
    } catch (error) {
      // The connection went away: what was read stays good, the rest will not come.
      if (!this.#ended) this.#error ??= unreachable('the stream was lost', error);
    } finally {
      this.#resuming = false;
    }
    this.#restrain();
    return true;
  }
}

/** A `peer_unreachable` that keeps what libp2p said as its cause. */
export function unreachable(message: string, cause?: unknown): MeshError {
  return cause instanceof MeshError ? cause : new MeshError('peer_unreachable', message, { cause });
}
