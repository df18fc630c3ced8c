/** Sends frames on a libp2p stream, no faster than the peer takes them. */
import type { Stream, StreamCloseEvent } from '@libp2p/interface';
import { abortable, type Clock } from '../node/common/clock.ts';
import { MeshError } from '../node/common/errors.ts';
import { unreachable } from './frame-reader.ts';
import { encodeFrames, frameSizeBytes, MAX_FRAME_BYTES, type OutgoingFrame } from './framing.ts';

export interface FrameWriterOptions {
  /** A peer that takes nothing for this long loses the stream. Default 10,000. */
  readonly drainMs?: number;
}

/** Several may write at once: what they send goes out in the order of the calls, and all wait for a slow peer. */
export class FrameWriter {
  readonly #stream: Stream;
  readonly #clock: Clock;
  readonly #drainMs: number;
  /** Settles when the last write in line is through; never rejects. */
  #line: Promise<void> | null = null;
  #lastWriteAt: number;

  constructor(stream: Stream, clock: Clock, options: FrameWriterOptions = {}) {
    this.#stream = stream;
    this.#clock = clock;
    this.#drainMs = options.drainMs ?? 10_000;
    this.#lastWriteAt = clock.now();
  }

  /** When the last frame was handed over, on the clock given. */
  get lastWriteAt(): number {
    return this.#lastWriteAt;
  }

  /** The peer is behind: a write now would wait. */
  get blocked(): boolean {
    return this.#line !== null;
  }

  /**
   * Sends the frames, several in one go where they are small, and resolves when the peer can take more.
   *
   * @throws MeshError `peer_unreachable` when the stream is over or the peer took nothing for too long (the stream is
   *   reset then); the signal's reason when it aborts first.
   */
  async write(frames: OutgoingFrame | readonly OutgoingFrame[], signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const batches = inBatches('type' in frames ? [frames] : frames);
    const ahead = this.#line;
    const mine = Promise.withResolvers<void>();
    const line = ahead === null ? mine.promise : ahead.then(() => mine.promise);
    this.#line = line;
    try {
      if (ahead !== null) await this.#wait(ahead, signal);
      for (const batch of batches) {
        if (!this.#send(encodeFrames(batch))) await this.#wait(this.#whenDrained(), signal);
      }
    } finally {
      mine.resolve();
      if (this.#line === line) this.#line = null;
    }
  }

  /**
   * Ends our side once all is sent; the peer can still send. Resets the stream when that takes too long.
   *
   * @throws nothing: afterwards the stream is closed for writing in any case.
   */
  async close(): Promise<void> {
    const giveUp = new AbortController();
    const cancel = this.#clock.after(this.#drainMs, () => giveUp.abort(this.#stalled()));
    try {
      await this.#stream.close({ signal: giveUp.signal });
    } catch (error) {
      this.#stream.abort(unreachable('the stream could not be closed', error));
    } finally {
      cancel();
    }
  }

  #send(bytes: Uint8Array): boolean {
    try {
      this.#lastWriteAt = this.#clock.now();
      return this.#stream.send(bytes);
    } catch (error) {
      throw unreachable('the stream is closed', error);
    }
  }

  /** stream.onDrain() stops blocking after its first drain, hence the event. */
  #whenDrained(): Promise<void> {
    const stream = this.#stream;
    const drained = new Promise<void>((resolve, reject) => {
      const settle = (error?: MeshError): void => {
        cancel();
        stream.removeEventListener('drain', onDrain);
        stream.removeEventListener('close', onClose);
        if (error === undefined) resolve();
        else reject(error);
      };
      // libp2p refills the window in a microtask after the event; a few bytes of window are not yet a drain.
      const onDrain = (): void =>
        queueMicrotask(() => {
          if (!stream.writableNeedsDrain) settle();
        });
      const onClose = (event: StreamCloseEvent): void => settle(unreachable('the stream was reset', event.error));
      const cancel = this.#clock.after(this.#drainMs, () => stream.abort(this.#stalled()));
      stream.addEventListener('drain', onDrain);
      stream.addEventListener('close', onClose);
      if (stream.status !== 'open') settle(unreachable('the stream is closed'));
    });
    drained.catch(() => {});
    return drained;
  }

  #wait(drained: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
    return signal === undefined ? drained : abortable(drained, signal);
  }

  #stalled(): MeshError {
    return new MeshError('peer_unreachable', `the peer took nothing for ${this.#drainMs} ms`);
  }
}

/** One send takes at most about two frames' worth, so that a stalled peer costs no more memory than that. */
function inBatches(frames: readonly OutgoingFrame[]): readonly (readonly OutgoingFrame[])[] {
  if (frames.length <= 1) return [frames];
  const batches: OutgoingFrame[][] = [];
  let batch: OutgoingFrame[] = [];
  let batchBytes = 0;
  for (const frame of frames) {
    batch.push(frame);
    batchBytes += frameSizeBytes(frame);
    if (batchBytes < MAX_FRAME_BYTES) continue;
    batches.push(batch);
    batch = [];
    batchBytes = 0;
  }
  if (batch.length > 0) batches.push(batch);
  return batches;
}
