/** Bytes in, frames out: pure, and bounded by what was pushed, because frames are made only when asked for. */
import { MeshError } from '../node/common/errors.ts';
import { type Frame, MAX_FRAME_BYTES, MAX_VARINT_BYTES } from './framing.ts';

/** What a chunk costs beside its bytes: a peer that sends single bytes must not get memory for free. */
const CHUNK_OVERHEAD_BYTES = 128;
/** Consumed chunks are dropped from the list when there are this many. */
const COMPACT_CHUNKS = 256;

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** A `protocol_violation`: what a peer sent breaks the specification. */
export function violation(message: string, cause?: unknown): MeshError {
  return new MeshError('protocol_violation', `the peer broke the protocol: ${message}`, { cause });
}

/** Text of a body. @throws MeshError `protocol_violation` when it is not UTF-8. */
export function decodeText(body: Uint8Array): string {
  try {
    return utf8.decode(body);
  } catch (error) {
    throw violation('text that is not UTF-8', error);
  }
}

/** Cuts pushed bytes into frames. Each byte is copied at most once, and only when its frame spans two chunks. */
export class FrameDecoder {
  #chunks: Uint8Array[] = [];
  #first = 0;
  #offset = 0;
  #bytes = 0;
  #length = 0;
  #prefixBytes = 0;
  #prefixDone = false;

  /** Memory held by what was pushed and not yet taken, overhead of small chunks included. */
  get heldBytes(): number {
    return this.#bytes + (this.#chunks.length - this.#first) * CHUNK_OVERHEAD_BYTES;
  }

  /** No byte waits: an end here is a clean one. */
  get atBoundary(): boolean {
    return this.#bytes === 0 && this.#prefixBytes === 0;
  }

  /** The decoder keeps the chunk; it must not change afterwards. */
  push(chunk: Uint8Array): void {
    if (chunk.byteLength === 0) return;
    this.#chunks.push(chunk);
    this.#bytes += chunk.byteLength;
  }

  /**
   * The next whole frame, or null until more bytes come.
   *
   * @throws MeshError `protocol_violation`; the decoder is of no use after that.
   */
  next(): Frame | null {
    if (!this.#prefixDone && !this.#readPrefix()) return null;
    if (this.#bytes < this.#length) return null;
    const bytes = this.#take(this.#length);
    this.#length = 0;
    this.#prefixBytes = 0;
    this.#prefixDone = false;
    return parseFrame(bytes);
  }

  #readPrefix(): boolean {
    while (this.#bytes > 0) {
      const byte = this.#takeByte();
      this.#length |= (byte & 0x7f) << (7 * this.#prefixBytes);
      this.#prefixBytes++;
      if (byte < 0x80) {
        if (this.#length < 2) throw violation('a frame shorter than its type and head length');
        if (this.#length + this.#prefixBytes > MAX_FRAME_BYTES) throw violation('a frame over 64 KiB');
        this.#prefixDone = true;
        return true;
      }
      if (this.#prefixBytes === MAX_VARINT_BYTES) throw violation('a length prefix of more than three bytes');
    }
    return false;
  }

  #takeByte(): number {
    const byte = this.#chunks[this.#first]?.[this.#offset] ?? 0;
    this.#advance(1);
    return byte;
  }

  #take(count: number): Uint8Array {
    const first = this.#chunks[this.#first];
    if (first !== undefined && first.byteLength - this.#offset >= count) {
      const bytes = first.subarray(this.#offset, this.#offset + count);
      this.#advance(count);
      return bytes;
    }
    const bytes = new Uint8Array(count);
    let filled = 0;
    while (filled < count) {
      const chunk = this.#chunks[this.#first]?.subarray(this.#offset, this.#offset + count - filled);
      if (chunk === undefined) throw new RangeError('took more bytes than were pushed');
      bytes.set(chunk, filled);
      filled += chunk.byteLength;
      this.#advance(chunk.byteLength);
    }
    return bytes;
  }

  /** Moves within the first chunk, never past its end. */
  #advance(count: number): void {
    this.#bytes -= count;
    this.#offset += count;
    if (this.#offset < (this.#chunks[this.#first]?.byteLength ?? 0)) return;
    this.#offset = 0;
    this.#first++;
    if (this.#first === this.#chunks.length || this.#first >= COMPACT_CHUNKS) {
      // In halves at most, so that a long list of tiny chunks is not copied once per chunk.
      if (this.#first * 2 >= this.#chunks.length) {
        this.#chunks = this.#chunks.slice(this.#first);
        this.#first = 0;
      }
    }
  }
}

function parseFrame(bytes: Uint8Array): Frame {
  let headLength = 0;
  let at = 1;
  for (;;) {
    const byte = bytes[at];
    if (byte === undefined || at > MAX_VARINT_BYTES) throw violation('a bad head length');
    headLength |= (byte & 0x7f) << (7 * (at - 1));
    at++;
    if (byte < 0x80) break;
  }
  if (at + headLength > bytes.byteLength) throw violation('a head longer than its frame');
  return {
    type: bytes[0] ?? 0,
    head: parseHead(bytes.subarray(at, at + headLength)),
    body: bytes.subarray(at + headLength),
  };
}

function parseHead(bytes: Uint8Array): object {
  let head: unknown;
  try {
    head = JSON.parse(utf8.decode(bytes));
  } catch (error) {
    throw violation('a head that is not JSON in UTF-8', error);
  }
  if (typeof head !== 'object' || head === null || Array.isArray(head)) throw violation('a head that is no object');
  return head;
}
