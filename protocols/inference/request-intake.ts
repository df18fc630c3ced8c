/** Takes requests off a stream, each an OPEN and as many BODY frames as it announced, bounded in time and memory. */
import type { Clock } from '../../node/common/clock.ts';
import { MeshError } from '../../node/common/errors.ts';
import { violation } from '../frame-decoder.ts';
import type { FrameReader } from '../frame-reader.ts';
import { Watchdog } from '../watchdog.ts';
import { FRAME, unexpected } from './messages.ts';
import { decodeOpen, type Open } from './open-message.ts';

/** Durations in milliseconds. */
export interface IntakeLimits {
  /** How long a stream may wait for an OPEN, its first or the next. Default 60,000. */
  readonly idleMs: number;
  /** For the rest of an OPEN, and between two frames of a body. Default 5,000. */
  readonly bodySilenceMs: number;
  /** For a whole body. Default 60,000. */
  readonly bodyMs: number;
}

/** What a body's buffer starts with; it doubles as bytes arrive, so that a big announcement alone costs nothing. */
const FIRST_BUFFER_BYTES = 65_536;

/** For each request first `open`, then `body`. */
export class RequestIntake {
  readonly #reader: FrameReader;
  readonly #clock: Clock;
  readonly #limits: IntakeLimits;
  #firstPart: Uint8Array = new Uint8Array(0);

  constructor(reader: FrameReader, clock: Clock, limits: IntakeLimits) {
    this.#reader = reader;
    this.#clock = clock;
    this.#limits = limits;
  }

  /**
   * Waits for OPEN; null when the peer ended the stream without one, or let it idle too long.
   *
   * @throws MeshError `protocol_violation`, `request_timeout` for an OPEN that stops halfway, `peer_unreachable`.
   */
  async open(): Promise<Open | null> {
    using watchdog = new Watchdog(this.#clock);
    watchdog.arm(this.#limits.idleMs, () => new MeshError('request_timeout', 'no request came on this stream'));
    try {
      await this.#reader.arrival(watchdog.signal);
    } catch {
      return null;
    }
    watchdog.arm(this.#limits.bodySilenceMs, () => new MeshError('request_timeout', 'the request stopped halfway'));
    const frame = await this.#reader.read(watchdog.signal);
    if (frame === null) return null;
    this.#firstPart = frame.body;
    return decodeOpen(frame);
  }

  /**
   * The payload that OPEN announced: the request body, and after it the tokens of the answer to go on with.
   *
   * @throws MeshError `protocol_violation` for other frames or too many bytes, `request_timeout` for too few,
   *   `peer_unreachable`.
   */
  async body(sizeBytes: number): Promise<Uint8Array> {
    using watchdog = new Watchdog(this.#clock);
    const endsAt = this.#clock.now() + this.#limits.bodyMs;
    const body = new GrowingBytes(sizeBytes);
    body.append(this.#firstPart);
    this.#firstPart = new Uint8Array(0);
    while (body.missingBytes > 0) {
      const boundMs = Math.max(1, Math.min(this.#limits.bodySilenceMs, endsAt - this.#clock.now()));
      watchdog.arm(boundMs, () => new MeshError('request_timeout', 'the body of the request did not arrive in time'));
      const frame = await this.#reader.read(watchdog.signal);
      if (frame === null) throw new MeshError('peer_unreachable', 'the request ended before its body');
      if (frame.type !== FRAME.body) throw unexpected(frame, 'BODY');
      if (frame.body.byteLength === 0) throw violation('a BODY of nothing');
      body.append(frame.body);
    }
    return body.bytes;
  }
}

class GrowingBytes {
  readonly #sizeBytes: number;
  #buffer: Uint8Array;
  #filled = 0;

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes;
    this.#buffer = new Uint8Array(Math.min(sizeBytes, FIRST_BUFFER_BYTES));
  }

  get missingBytes(): number {
    return this.#sizeBytes - this.#filled;
  }

  get bytes(): Uint8Array {
    return this.#buffer.subarray(0, this.#filled);
  }

  append(part: Uint8Array): void {
    const needed = this.#filled + part.byteLength;
    if (needed > this.#sizeBytes) throw violation('a body longer than it was announced');
    if (needed > this.#buffer.byteLength) {
      const grown = new Uint8Array(Math.min(this.#sizeBytes, Math.max(needed, this.#buffer.byteLength * 2)));
      grown.set(this.bytes);
      this.#buffer = grown;
    }
    this.#buffer.set(part, this.#filled);
    this.#filled = needed;
  }
}
