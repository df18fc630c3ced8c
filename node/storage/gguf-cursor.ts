/** Reads a GGUF header from front to back through one small buffer, never past its budget or the end of the file. */
import type { FileHandle } from 'node:fs/promises';

const BUFFER_BYTES = 256 * 1024;

/** Why the header cannot be believed; the caller adds the file's name. */
export class GgufFault extends Error {
  override readonly name = 'GgufFault';
}

/** Little-endian reads that move forward. Everything throws `GgufFault` where the file or the budget ends. */
export class GgufCursor {
  readonly #file: FileHandle;
  readonly #sizeBytes: number;
  readonly #budgetBytes: number;
  readonly #buffer: Buffer;
  #bufferStart = 0;
  #bufferEnd = 0;
  /** Position of the next read in the file. */
  position = 0;

  constructor(file: FileHandle, sizeBytes: number, budgetBytes: number) {
    this.#file = file;
    this.#sizeBytes = sizeBytes;
    this.#budgetBytes = budgetBytes;
    this.#buffer = Buffer.allocUnsafe(Math.min(BUFFER_BYTES, Math.max(16, sizeBytes)));
  }

  async u8(): Promise<number> {
    return this.#buffer.readUInt8(await this.#take(1));
  }

  async u16(): Promise<number> {
    return this.#buffer.readUInt16LE(await this.#take(2));
  }

  async u32(): Promise<number> {
    return this.#buffer.readUInt32LE(await this.#take(4));
  }

  async u64(): Promise<bigint> {
    return this.#buffer.readBigUInt64LE(await this.#take(8));
  }

  /** A count or length, refused above `max`. */
  async length(max: number, what: string): Promise<number> {
    const value = await this.u64();
    if (value > BigInt(max)) throw new GgufFault(`is damaged: it claims ${value} ${what}, at most ${max} are allowed`);
    return Number(value);
  }

  /** A string of at most `maxBytes`. */
  async text(maxBytes: number, what: string): Promise<string> {
    return await this.bytes(await this.length(maxBytes, `bytes of ${what}`));
  }

  /** The next `length` bytes as UTF-8. */
  async bytes(length: number): Promise<string> {
    if (length > this.#buffer.length) return (await this.#long(length)).toString('utf8');
    const at = await this.#take(length);
    return this.#buffer.toString('utf8', at, at + length);
  }

  /** Passes over `bytes` without reading them. */
  skip(bytes: number): void {
    this.#demand(bytes);
    this.position += bytes;
  }

  /** Passes over `count` strings; the many tokens of a vocabulary cost one loop, not one promise each. */
  async skipTexts(count: number): Promise<void> {
    this.#demand(count * 8);
    for (let done = 0; done < count; done++) {
      const inBuffer = this.position >= this.#bufferStart && this.position + 8 <= this.#bufferEnd;
      const at = inBuffer ? this.position - this.#bufferStart : await this.#take(8);
      if (inBuffer) this.position += 8;
      const length = this.#buffer.readBigUInt64LE(at);
      this.skip(length > BigInt(this.#sizeBytes) ? this.#sizeBytes + 1 : Number(length));
    }
  }

  async #long(length: number): Promise<Buffer> {
    this.#demand(length);
    const whole = Buffer.allocUnsafe(length);
    const { bytesRead } = await this.#file.read(whole, 0, length, this.position);
    if (bytesRead < length) throw new GgufFault('changed while it was read');
    this.position += length;
    return whole;
  }

  #demand(bytes: number): void {
    const end = this.position + bytes;
    if (end > this.#sizeBytes) {
      throw new GgufFault(`is truncated: its header goes on after the ${this.#sizeBytes} bytes that the file has`);
    }
    if (end > this.#budgetBytes) throw new GgufFault(`has more than ${this.#budgetBytes} bytes of metadata`);
  }

  /** Makes `bytes` at `position` available in the buffer; returns where. */
  async #take(bytes: number): Promise<number> {
    this.#demand(bytes);
    if (this.position < this.#bufferStart || this.position + bytes > this.#bufferEnd) {
      const { bytesRead } = await this.#file.read(this.#buffer, 0, this.#buffer.length, this.position);
      if (bytesRead < bytes) throw new GgufFault('changed while it was read');
      this.#bufferStart = this.position;
      this.#bufferEnd = this.position + bytesRead;
    }
    const at = this.position - this.#bufferStart;
    this.position += bytes;
    return at;
  }
}
