/** A request body with another model's name in it; all other bytes stay as the client sent them. Pure. */

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const OPENING: ReadonlySet<number> = new Set([0x7b, 0x5b]);
const CLOSING: ReadonlySet<number> = new Set([0x7d, 0x5d]);
const BLANK: ReadonlySet<number> = new Set([0x20, 0x0a, 0x0d, 0x09]);
/** `model` with each letter escaped, and its quotes. */
const LONGEST_KEY_BYTES = 5 * 6 + 2;

/** `body` is a JSON object in UTF-8 that was parsed before; without a `model` of its own it is returned as it is. */
export function withModel(body: Uint8Array, model: string): Uint8Array {
  const name = Buffer.from(JSON.stringify(model));
  const pieces: Uint8Array[] = [];
  let from = 0;
  for (const [start, end] of modelValues(body)) {
    pieces.push(body.subarray(from, start), name);
    from = end;
  }
  return from === 0 ? body : Buffer.concat([...pieces, body.subarray(from)]);
}

/** Where the strings stand that are the value of the object's `model`: of each, where readers differ in which counts. */
function* modelValues(body: Uint8Array): Generator<readonly [start: number, end: number]> {
  let depth = 0;
  for (let at = 0; at < body.length; at += 1) {
    const byte = body[at] ?? 0;
    if (OPENING.has(byte)) depth += 1;
    else if (CLOSING.has(byte)) depth -= 1;
    else if (byte === QUOTE) {
      const end = stringEnd(body, at);
      const colon = afterBlanks(body, end);
      if (depth === 1 && body[colon] === COLON && isModelKey(body.subarray(at, end))) {
        const start = afterBlanks(body, colon + 1);
        if (body[start] === QUOTE) yield [start, stringEnd(body, start)];
      }
      at = end - 1;
    }
  }
}

function isModelKey(quoted: Uint8Array): boolean {
  if (quoted.length > LONGEST_KEY_BYTES) return false;
  return JSON.parse(Buffer.from(quoted).toString('utf8')) === 'model';
}

/** Index after the closing quote of the string that opens at `start`. */
function stringEnd(body: Uint8Array, start: number): number {
  let at = start + 1;
  while (at < body.length && body[at] !== QUOTE) at += body[at] === BACKSLASH ? 2 : 1;
  return at + 1;
}

function afterBlanks(body: Uint8Array, from: number): number {
  let at = from;
  while (BLANK.has(body[at] ?? 0)) at += 1;
  return at;
}
