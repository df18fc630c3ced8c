/** The frames of one stream, both ways: made once for a stream, whatever number of requests it carries. */
import type { Stream } from '@libp2p/interface';
import type { Clock } from '../node/common/clock.ts';
import { FrameReader } from './frame-reader.ts';
import { FrameWriter, type FrameWriterOptions } from './frame-writer.ts';
import { endStream } from './stream-end.ts';

/** A stream with its one reader and its one writer. */
export class FrameChannel {
  readonly stream: Stream;
  readonly reader: FrameReader;
  readonly writer: FrameWriter;
  readonly #clock: Clock;

  constructor(stream: Stream, clock: Clock, options: FrameWriterOptions = {}) {
    this.stream = stream;
    this.reader = new FrameReader(stream);
    this.writer = new FrameWriter(stream, clock, options);
    this.#clock = clock;
  }

  /** Both sides may still speak, and nothing of the peer waits: the next request can go out. */
  get isIdle(): boolean {
    const { status, writeStatus, remoteWriteStatus } = this.stream;
    const isOpen = status === 'open' && writeStatus === 'writable' && remoteWriteStatus === 'writable';
    return isOpen && !this.reader.hasUnread && !this.writer.blocked;
  }

  /** Ends the stream when all is sent, and resets it when the peer takes over `boundMs` to do so too. Never rejects. */
  end(boundMs: number): Promise<void> {
    return endStream(this.stream, this.writer, this.#clock, boundMs);
  }
}
