import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../../node/common/errors.ts';
import { decodeText, FrameDecoder } from '../../../protocols/frame-decoder.ts';
import { encodeFrames, type Frame, MAX_FRAME_BYTES, type OutgoingFrame } from '../../../protocols/framing.ts';
import fc from '../../support/fc.ts';

function drain(decoder: FrameDecoder): Frame[] {
  const frames: Frame[] = [];
  for (let frame = decoder.next(); frame !== null; frame = decoder.next()) frames.push(frame);
  return frames;
}

/** The bytes in pieces of the sizes given, over and over. */
function pieces(bytes: Uint8Array, sizes: readonly number[]): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (let at = 0, turn = 0; at < bytes.byteLength; turn++) {
    const size = sizes[turn % sizes.length] ?? 1;
    parts.push(bytes.subarray(at, at + size));
    at += size;
  }
  return parts;
}

const isViolation = (error: unknown): boolean => error instanceof MeshError && error.code === 'protocol_violation';

const anyFrame: fc.Arbitrary<OutgoingFrame> = fc.record({
  type: fc.nat(255),
  head: fc.dictionary(fc.string({ maxLength: 20 }), fc.jsonValue({ maxDepth: 2 }), { maxKeys: 4 }),
  body: fc.oneof(fc.uint8Array({ maxLength: 300 }), fc.string({ unit: 'binary', maxLength: 100 })),
});

test('a frame is its length, its type, the length of its head, the head and the body', () => {
  const bytes = encodeFrames([{ type: 0x13, head: { i: 0, t: [7] }, body: 'hé' }]);
  assert.equal(Buffer.from(bytes).toString('hex'), `14130f${Buffer.from('{"i":0,"t":[7]}').toString('hex')}68c3a9`);
});

test('frames survive any cut of their bytes', () => {
  fc.assert(
    fc.property(
      fc.array(anyFrame, { maxLength: 8 }),
      fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 5 }),
      (frames, sizes) => {
        const decoder = new FrameDecoder();
        const seen: Frame[] = [];
        for (const piece of pieces(encodeFrames(frames), sizes)) {
          decoder.push(piece);
          seen.push(...drain(decoder));
        }
        assert.deepEqual(
          seen.map(({ type, head, body }) => ({ type, head, body: Buffer.from(body) })),
          frames.map(({ type, head, body = '' }) => ({
            type,
            head: JSON.parse(JSON.stringify(head)),
            body: Buffer.from(body as string),
          })),
        );
        assert.equal(decoder.atBoundary, true);
        assert.equal(decoder.heldBytes, 0);
      },
    ),
  );
});

test('random bytes are frames, wait for more, or break the protocol', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 100 }), { maxLength: 10 }), (chunks) => {
      const decoder = new FrameDecoder();
      try {
        for (const chunk of chunks) {
          decoder.push(chunk);
          drain(decoder);
        }
      } catch (error) {
        assert.ok(isViolation(error));
      }
    }),
    { numRuns: 500 },
  );
});

test('a damaged frame is a frame, waits for more, or breaks the protocol', () => {
  fc.assert(
    fc.property(anyFrame, fc.nat(), fc.nat(255), (frame, where, byte) => {
      const bytes = encodeFrames([frame]);
      bytes[where % bytes.byteLength] = byte;
      const decoder = new FrameDecoder();
      decoder.push(bytes);
      try {
        drain(decoder);
      } catch (error) {
        assert.ok(isViolation(error));
      }
    }),
    { numRuns: 500 },
  );
});

test('the largest frame passes and one byte more does not', () => {
  const overhead = 3 + 1 + 1 + 2;
  const largest = { type: 2, head: {}, body: new Uint8Array(MAX_FRAME_BYTES - overhead) };
  const decoder = new FrameDecoder();
  decoder.push(encodeFrames([largest]));
  assert.equal(decoder.next()?.body.byteLength, MAX_FRAME_BYTES - overhead);
  assert.throws(() => encodeFrames([{ ...largest, body: new Uint8Array(MAX_FRAME_BYTES - overhead + 1) }]), RangeError);
  // 65,534 as a varint: with its three bytes one over the limit.
  const over = new FrameDecoder();
  over.push(Buffer.from('feff03', 'hex'));
  assert.throws(() => over.next(), isViolation);
});

const BAD_FRAMES: Record<string, string> = {
  'a length of 4 GiB': 'ffffffff0f',
  'a length prefix of ten bytes': 'ffffffffffffffffff01',
  'an empty frame': '00',
  'a frame without a head length': '0101',
  'a head longer than its frame': '0313057b',
  'a head length of four bytes': '0613ffffff017b',
  'a head that is not JSON': '0413027b7c',
  'a head that is an array': '0413025b5d',
  'a head that is null': '0613046e756c6c',
  'an empty head': '021300',
  'a head that is not UTF-8': '071305 22ff22 2020'.replaceAll(' ', ''),
};
for (const [name, hex] of Object.entries(BAD_FRAMES)) {
  test(`${name} breaks the protocol`, () => {
    const decoder = new FrameDecoder();
    decoder.push(Buffer.from(hex, 'hex'));
    assert.throws(() => decoder.next(), isViolation);
  });
}

test('a length alone waits, and holds no more than it came with', () => {
  const decoder = new FrameDecoder();
  decoder.push(Buffer.from('fdff03', 'hex'));
  assert.equal(decoder.next(), null);
  assert.equal(decoder.atBoundary, false);
  assert.equal(decoder.heldBytes, 0);
});

test('single bytes count for more than they are', () => {
  const decoder = new FrameDecoder();
  for (let n = 0; n < 100; n++) decoder.push(new Uint8Array(1));
  assert.ok(decoder.heldBytes > 100 * 100);
});

test('a body that is not UTF-8 breaks the protocol and any other text is kept', () => {
  assert.throws(() => decodeText(Uint8Array.of(0x68, 0xc3)), isViolation);
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      assert.equal(decodeText(Buffer.from(text)), text);
    }),
  );
});
