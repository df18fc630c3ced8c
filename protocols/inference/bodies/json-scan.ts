/** A look at a body's bytes before `JSON.parse`: bounded nesting and no key that could reach a prototype. */
import { MeshError } from '../../../node/common/errors.ts';

const MAX_DEPTH = 64;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const BRACE_OPEN = 0x7b;
const BRACE_CLOSE = 0x7d;
const BRACKET_OPEN = 0x5b;
const BRACKET_CLOSE = 0x5d;
const FORBIDDEN_KEY = '__proto__';

/**
 * Passes over the bytes once, without recursion.
 *
 * @throws MeshError `invalid_request` on more than 64 levels or a `__proto__` key, however it is escaped.
 *   Malformed JSON passes: the parser names it better.
 */
export function scanJson(bytes: Uint8Array): void {
  const { length } = bytes;
  let depth = 0;
  let i = 0;
  while (i < length) {
    const byte = bytes[i];
    i += 1;
    if (byte === QUOTE) {
      const end = stringEnd(bytes, i - 1);
      if (isKey(bytes, end)) refuseForbiddenKey(bytes, i - 1, end);
      i = end;
    } else if (byte === BRACE_OPEN || byte === BRACKET_OPEN) {
      depth += 1;
      if (depth > MAX_DEPTH) {
        throw new MeshError('invalid_request', `The body nests deeper than ${MAX_DEPTH} levels.`);
      }
    } else if (byte === BRACE_CLOSE || byte === BRACKET_CLOSE) {
      depth -= 1;
    }
  }
}

/** Index after the closing quote of the string that opens at `start`; past the end of the bytes when none closes it. */
function stringEnd(bytes: Uint8Array, start: number): number {
  const { length } = bytes;
  let i = start + 1;
  while (i < length) {
    const byte = bytes[i];
    if (byte === QUOTE) return i + 1;
    i += byte === BACKSLASH ? 2 : 1;
  }
  return length;
}

function isKey(bytes: Uint8Array, end: number): boolean {
  let i = end;
  while (bytes[i] === 0x20 || bytes[i] === 0x0a || bytes[i] === 0x0d || bytes[i] === 0x09) i += 1;
  return bytes[i] === COLON;
}

/** A key of nine characters takes at most 54 bytes even if each is escaped: longer ones need no look. */
function refuseForbiddenKey(bytes: Uint8Array, start: number, end: number): void {
  const lengthBytes = end - start - 2;
  if (lengthBytes < FORBIDDEN_KEY.length || lengthBytes > FORBIDDEN_KEY.length * 6) return;
  const raw = Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start).toString('latin1');
  const key = raw.replace(/\\u([0-9a-f]{4})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  if (key.slice(1, -1) !== FORBIDDEN_KEY) return;
  throw new MeshError('invalid_request', `The body must not have a "${FORBIDDEN_KEY}" key.`, { param: FORBIDDEN_KEY });
}
