/** A file of JSON lines, read line by line without holding it in memory. */
import { type FileHandle, open } from 'node:fs/promises';

/** One line, without its end. */
export interface InputLine {
  /** 1 is the first. */
  readonly number: number;
  /** Where in the file it begins. */
  readonly at: number;
  readonly sizeBytes: number;
  /** null for one that is longer than was allowed. */
  readonly bytes: Buffer | null;
}

const CHUNK_BYTES = 256 * 1024;
const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf]);

/** Every line that is not blank, in order. */
export async function* inputLines(path: string, maxLineBytes: number): AsyncGenerator<InputLine> {
  const file = await open(path, 'r');
  try {
    let parts: Buffer[] = [];
    let partBytes = 0;
    let at = 0;
    let number = 0;
    const line = (): InputLine | null => {
      number += 1;
      const whole = partBytes > maxLineBytes ? null : trimmed(Buffer.concat(parts), number === 1);
      const from = at;
      at += partBytes + 1;
      const sizeBytes = partBytes;
      parts = [];
      partBytes = 0;
      if (whole === null) return { number, at: from, sizeBytes, bytes: null };
      return isBlank(whole) ? null : { number, at: from, sizeBytes, bytes: whole };
    };
    const keep = (part: Buffer): void => {
      partBytes += part.length;
      if (partBytes <= maxLineBytes) parts.push(part);
      else parts = [];
    };
    for await (const chunk of chunks(file)) {
      let from = 0;
      for (let end = chunk.indexOf(LINE_FEED); end !== -1; end = chunk.indexOf(LINE_FEED, from)) {
        keep(chunk.subarray(from, end));
        from = end + 1;
        const whole = line();
        if (whole !== null) yield whole;
      }
      keep(chunk.subarray(from));
    }
    const last = partBytes === 0 ? null : line();
    if (last !== null) yield last;
  } finally {
    await file.close();
  }
}

/** The line that `inputLines` found there. */
export async function readLine(file: FileHandle, at: number, sizeBytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(sizeBytes);
  const { bytesRead } = await file.read(buffer, 0, sizeBytes, at);
  return trimmed(buffer.subarray(0, bytesRead), at === 0);
}

async function* chunks(file: FileHandle): AsyncGenerator<Buffer> {
  for (;;) {
    const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(CHUNK_BYTES), 0, CHUNK_BYTES);
    if (bytesRead === 0) return;
    yield buffer.subarray(0, bytesRead);
  }
}

function trimmed(bytes: Buffer, isFirst: boolean): Buffer {
  const from = isFirst && bytes.subarray(0, 3).equals(BYTE_ORDER_MARK) ? 3 : 0;
  const to = bytes.at(-1) === CARRIAGE_RETURN ? bytes.length - 1 : bytes.length;
  return bytes.subarray(from, to);
}

function isBlank(bytes: Buffer): boolean {
  return bytes.every((byte) => byte === 0x20 || byte === 0x09);
}
