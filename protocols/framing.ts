/**
 * The frame that all our protocols share: varint length | type byte | varint head length | JSON head | raw body.
 * Source: docs in each protocol's spec.md.
 */

/** A whole frame on the wire, its length prefix included. */
export const MAX_FRAME_BYTES = 65_536;
/** A varint of more bytes than this cannot stand for a length that is allowed. */
export const MAX_VARINT_BYTES = 3;
/** Room for a body in a frame whose head takes at most 1 KiB. */
export const MAX_BODY_PART_BYTES = MAX_FRAME_BYTES - 1024;

/** A frame as it came: the head is a JSON object, not yet checked; the body may share memory with its neighbours. */
export interface Frame {
  readonly type: number;
  readonly head: object;
  readonly body: Uint8Array;
}

/** A frame to send. A body of text travels as UTF-8. */
export interface OutgoingFrame {
  readonly type: number;
  readonly head: object;
  readonly body?: Uint8Array | string;
}

/**
 * The bytes of several frames in one buffer, so that they travel in one send.
 *
 * @throws RangeError for a frame over 64 KiB: whoever makes frames splits before.
 */
export function encodeFrames(frames: readonly OutgoingFrame[]): Uint8Array {
  const plans = frames.map(plan);
  const bytes = Buffer.allocUnsafe(plans.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0));
  let offset = 0;
  for (const { frame, head, headBytes, length } of plans) {
    offset = writeVarint(bytes, length, offset);
    bytes[offset++] = frame.type;
    offset = writeVarint(bytes, headBytes, offset);
    offset += bytes.write(head, offset, 'utf8');
    if (typeof frame.body === 'string') {
      offset += bytes.write(frame.body, offset, 'utf8');
    } else if (frame.body !== undefined) {
      bytes.set(frame.body, offset);
      offset += frame.body.byteLength;
    }
  }
  return bytes;
}

/** How many bytes this frame takes on the wire. */
export function frameSizeBytes(frame: OutgoingFrame): number {
  return measure(frame).sizeBytes;
}

interface Plan {
  readonly frame: OutgoingFrame;
  readonly head: string;
  readonly headBytes: number;
  /** What the length prefix says: everything after it. */
  readonly length: number;
  readonly sizeBytes: number;
}

function plan(frame: OutgoingFrame): Plan {
  const planned = measure(frame);
  if (planned.sizeBytes > MAX_FRAME_BYTES) {
    throw new RangeError(`a frame of ${planned.sizeBytes} bytes is over the limit of ${MAX_FRAME_BYTES}`);
  }
  return planned;
}

function measure(frame: OutgoingFrame): Plan {
  const head = JSON.stringify(frame.head);
  const headBytes = Buffer.byteLength(head);
  const { body } = frame;
  const bodyBytes = body === undefined ? 0 : typeof body === 'string' ? Buffer.byteLength(body) : body.byteLength;
  const length = 1 + varintBytes(headBytes) + headBytes + bodyBytes;
  return { frame, head, headBytes, length, sizeBytes: varintBytes(length) + length };
}

/** Bytes of `value` as an unsigned LEB128 varint; values of our frames take at most three. */
export function varintBytes(value: number): number {
  return value < 0x80 ? 1 : value < 0x4000 ? 2 : 3;
}

function writeVarint(bytes: Uint8Array, value: number, offset: number): number {
  let rest = value;
  let at = offset;
  while (rest >= 0x80) {
    bytes[at++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  bytes[at++] = rest;
  return at;
}
