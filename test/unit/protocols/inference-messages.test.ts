import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../../node/common/errors.ts';
import { FrameDecoder } from '../../../protocols/frame-decoder.ts';
import { encodeFrames, type Frame, MAX_FRAME_BYTES, type OutgoingFrame } from '../../../protocols/framing.ts';
import { AnswerCheck } from '../../../protocols/inference/answer-check.ts';
import { decodeChunk, encodeChunk, MAX_CHUNK_TOKENS } from '../../../protocols/inference/chunk-message.ts';
import { COALESCED_TOKENS, coalesce } from '../../../protocols/inference/coalesce.ts';
import type { ChunkEvent, InferenceEvent, InferenceRequest } from '../../../protocols/inference/events.ts';
import {
  decodeAccept,
  decodeEnd,
  decodeError,
  decodeProgress,
  decodeResult,
  encodeAccept,
  encodeEnd,
  encodeError,
  encodeProgress,
  FRAME,
} from '../../../protocols/inference/messages.ts';
import { decodeOpen, encodeRequest } from '../../../protocols/inference/open-message.ts';
import fc from '../../support/fc.ts';

const REQUEST: InferenceRequest = {
  requestId: '0123456789abcdef0123456789abcdef',
  kind: 'chat',
  model: 'meshnode-demo',
  seed: 42,
  body: Buffer.from('{"a":1}'),
};
const ACCEPTED = {
  type: 'accepted',
  node: '12D3KooWA',
  promptTokens: 3,
  promptDigest: 'ab'.repeat(32),
  artifact: null,
} as const;
const END = {
  type: 'end',
  finishReasons: ['stop'],
  usage: { promptTokens: 3, completionTokens: 2, cachedTokens: 0 },
  timings: { promptMs: 1.5, predictedMs: 2 },
} as const;
const BOUNDS = { maxChoices: 2, maxTokens: 100, maxTextBytes: 1000 };

const isViolation = (error: unknown): boolean => error instanceof MeshError && error.code === 'protocol_violation';

/** Over the wire and back. */
function travel(...frames: OutgoingFrame[]): Frame[] {
  const decoder = new FrameDecoder();
  decoder.push(encodeFrames(frames));
  const seen: Frame[] = [];
  for (let frame = decoder.next(); frame !== null; frame = decoder.next()) seen.push(frame);
  return seen;
}

function one(frame: OutgoingFrame): Frame {
  const [seen] = travel(frame);
  assert.ok(seen);
  return seen;
}

function chunk(index: number, tokens: number[], text = '', choice = 0): ChunkEvent {
  return { type: 'chunk', choice, index, tokens, text };
}

function only(event: ChunkEvent): OutgoingFrame {
  const [frame, ...more] = encodeChunk(event);
  assert.ok(frame);
  assert.equal(more.length, 0);
  return frame;
}

test('the frames of the specification are these bytes', () => {
  const hex = (frame: OutgoingFrame): string => Buffer.from(encodeFrames([frame])).toString('hex');
  const [open] = encodeRequest(REQUEST, { hops: 1 });
  assert.ok(open);
  assert.equal(
    hex(open),
    '9501018b017b22726571756573744964223a223031323334353637383961626364656630313233343536373839616263646566222c226b696e64223a2263686174222c226d6f64656c223a226d6573686e6f64652d64656d6f222c2273656564223a34322c22626f64794279746573223a372c22686f7073223a312c22626f756e64617279223a227075626c6963227d7b2261223a317d',
  );
  assert.equal(hex(only(chunk(2, [1, 65535], 'hi'))), '1913157b2269223a322c2274223a5b312c36353533355d7d6869');
  assert.equal(
    hex(encodeProgress({ state: 'queued', fraction: null })),
    '2411227b227374617465223a22717565756564222c226672616374696f6e223a6e756c6c7d',
  );
});

test('a request travels in as many frames as its body needs', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 300_000 }),
      fc.option(fc.string({ maxLength: 1000 })),
      (size, authorization) => {
        const body = new Uint8Array(size).fill(7);
        const frames = [...encodeRequest({ ...REQUEST, body }, { hops: 1, authorization: authorization ?? undefined })];
        const [first, ...rest] = travel(...frames);
        assert.ok(first);
        const open = decodeOpen(first);
        assert.equal(open.bodyBytes, size);
        assert.equal(open.authorization, authorization ?? undefined);
        assert.ok(rest.every(({ type, body: part }) => type === FRAME.body && part.byteLength > 0));
        assert.deepEqual(Buffer.concat([first.body, ...rest.map(({ body: part }) => part)]), Buffer.from(body));
      },
    ),
    { numRuns: 30 },
  );
});

test('any tokens and any text travel whole, in frames that keep the limits', () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat(0x7fff_ffff), { maxLength: 30 }),
      fc.integer({ min: 1, max: 800 }),
      fc.string({ unit: 'binary', maxLength: 400 }),
      fc.integer({ min: 1, max: 200 }),
      fc.nat(3),
      (tokens, tokenTimes, text, textTimes, choice) => {
        const event = chunk(5, Array.from({ length: tokenTimes }, () => tokens).flat(), text.repeat(textTimes), choice);
        const chunks = travel(...encodeChunk(event)).map((frame) => decodeChunk(frame).chunk);
        assert.deepEqual(
          chunks.flatMap(({ tokens: part }) => part),
          event.tokens,
        );
        assert.equal(chunks.map(({ text: part }) => part).join(''), event.text);
        let due = 5;
        for (const part of chunks) {
          assert.equal(part.index, due);
          assert.equal(part.choice, choice);
          assert.ok(part.tokens.length <= MAX_CHUNK_TOKENS);
          due += part.tokens.length;
        }
      },
    ),
    { numRuns: 60 },
  );
});

test('a text of astral characters over the frame limit is never cut inside one', () => {
  const text = '😀'.repeat(40_000);
  const frames = encodeChunk(chunk(0, [1], text));
  assert.ok(frames.length > 2);
  assert.ok(frames.every((frame) => encodeFrames([frame]).byteLength <= MAX_FRAME_BYTES));
  assert.equal(
    travel(...frames)
      .map((frame) => decodeChunk(frame).chunk.text)
      .join(''),
    text,
  );
});

test('progress, acceptance and end are what they were', () => {
  assert.deepEqual(decodeAccept(one(encodeAccept(ACCEPTED))), ACCEPTED);
  assert.deepEqual(decodeEnd(one(encodeEnd(END))), END);
  const progress = { state: 'loading', fraction: 0.5 } as const;
  assert.deepEqual(decodeProgress(one(encodeProgress(progress))), progress);
});

test('unknown fields of a head are ignored', () => {
  const frame = one({ type: FRAME.end, head: { ...END, later: { a: 1 } } });
  assert.deepEqual(decodeEnd(frame), END);
});

test('an error keeps its code, its facts and a bounded, printable message', () => {
  const error = new MeshError('overloaded', `a\u001b[31m\nb${'x'.repeat(5000)}`, { retryAfterMs: 250, param: 'n' });
  const seen = decodeError(one(encodeError(error)));
  assert.equal(seen.code, 'overloaded');
  assert.deepEqual(seen.facts, { retryAfterMs: 250, param: 'n' });
  assert.ok(seen.message.length <= 1024);
  assert.match(seen.message, /^a \[31m bx+$/);
});

test('a code that is not ours becomes upstream_error, and a thrown stranger is not told', () => {
  const frame = one({ type: FRAME.error, head: { code: 'toString', message: 'm', facts: {} } });
  assert.equal(decodeError(frame).code, 'upstream_error');
  const stranger = decodeError(one(encodeError(new Error('secret path'))));
  assert.equal(stranger.code, 'internal_error');
  assert.doesNotMatch(stranger.message, /secret/);
});

const BAD_CHUNKS: Record<string, object> = {
  'a negative index': { i: -1, t: [1] },
  'a fractional index': { i: 0.5, t: [1] },
  'an index without bound': { i: 1e300, t: [1] },
  'no tokens': { i: 0 },
  'a token that is a string': { i: 0, t: ['1'] },
  'a negative token': { i: 0, t: [-1] },
  'a null token': { i: 0, t: [null] },
  'a negative choice': { c: -1, i: 0, t: [1] },
  'tokens without bound': { i: 0, t: new Array(MAX_CHUNK_TOKENS + 1).fill(1) },
  nothing: { i: 0, t: [] },
};
for (const [name, head] of Object.entries(BAD_CHUNKS)) {
  test(`a CHUNK of ${name} breaks the protocol`, () => {
    assert.throws(() => decodeChunk(one({ type: FRAME.chunk, head })), isViolation);
  });
}

test('heads of any JSON give a message or break the protocol', () => {
  const decoders = [decodeOpen, decodeProgress, decodeAccept, decodeChunk, decodeEnd, decodeError, decodeResult];
  const any = fc.dictionary(
    fc.constantFrom(...'requestId kind seed state node i t c r x l p f m usage resume code facts __proto__'.split(' ')),
    fc.jsonValue({ maxDepth: 2 }),
  );
  fc.assert(
    fc.property(any, fc.constantFrom(...decoders), fc.nat(255), (head, decode, type) => {
      try {
        decode({ type, head, body: new Uint8Array(0) });
      } catch (error) {
        assert.ok(isViolation(error));
      }
    }),
    { numRuns: 500 },
  );
});

function check(frames: readonly OutgoingFrame[]): (InferenceEvent | null)[] {
  const answer = new AnswerCheck({ kind: 'chat' }, BOUNDS);
  return travel(...frames).map((frame) => answer.next(frame));
}

const accept = encodeAccept(ACCEPTED);
const BAD_ORDERS: Record<string, readonly OutgoingFrame[]> = {
  'a chunk before ACCEPT': [only(chunk(0, [1]))],
  'an END before ACCEPT': [encodeEnd(END)],
  'a second ACCEPT': [accept, accept],
  'an index gap': [accept, only(chunk(0, [1])), only(chunk(2, [1]))],
  'an index that repeats': [accept, only(chunk(0, [1])), only(chunk(0, [1]))],
  'a choice that was not asked for': [accept, only(chunk(0, [1], '', 2))],
  'more tokens than the bound': [accept, only(chunk(0, new Array<number>(101).fill(1)))],
  'more text than the bound': [accept, only(chunk(0, [1], 'x'.repeat(1001)))],
  'an unknown type of frame': [{ type: 0x77, head: {} }],
  'a frame of the asking side': [{ type: FRAME.body, head: {} }],
  'an END of too many choices': [accept, encodeEnd({ ...END, finishReasons: ['stop', 'stop', 'stop'] })],
};
for (const [name, frames] of Object.entries(BAD_ORDERS)) {
  test(`${name} breaks the protocol`, () => {
    assert.throws(() => check(frames), isViolation);
  });
}

test('an answer in order passes, and progress after ACCEPT is no event', () => {
  const queued = encodeProgress({ state: 'queued', fraction: null });
  const running = encodeProgress({ state: 'running', fraction: null });
  const frames = [
    queued,
    accept,
    running,
    only(chunk(0, [1, 2])),
    only(chunk(0, [9], 'b', 1)),
    only(chunk(2, [3], 'a')),
  ];
  assert.deepEqual(
    check([...frames, encodeEnd({ ...END, finishReasons: ['stop', 'length'] })]).map((event) => event?.type ?? null),
    ['progress', 'accepted', null, 'chunk', 'chunk', 'chunk', 'end'],
  );
});

async function* burst(events: readonly InferenceEvent[]): AsyncGenerator<InferenceEvent> {
  yield* events;
}

test('chunks of one turn share frames, the first goes alone, and no token is lost or moved', async () => {
  const chunks = Array.from({ length: 50 }, (_, at) => chunk(at, [at], String.fromCharCode(65 + at)));
  const merged = await Array.fromAsync(coalesce(burst([ACCEPTED, ...chunks, END])));
  const seen = merged.filter((event) => event.type === 'chunk');
  assert.deepEqual(seen[0], chunks[0]);
  assert.deepEqual(
    seen.map(({ tokens }) => tokens.length),
    [1, COALESCED_TOKENS, COALESCED_TOKENS, COALESCED_TOKENS, 1],
  );
  assert.deepEqual(
    seen.flatMap(({ tokens }) => tokens),
    chunks.flatMap(({ tokens }) => tokens),
  );
  assert.equal(seen.map(({ text }) => text).join(''), chunks.map(({ text }) => text).join(''));
  assert.deepEqual(merged.at(-1), END);
});

test('chunks of different choices are not merged', async () => {
  const events = [chunk(0, [1]), chunk(1, [2]), chunk(0, [3], '', 1), chunk(2, [4])];
  assert.deepEqual(await Array.fromAsync(coalesce(burst(events))), events);
});

test('what came before a failure still goes out', async () => {
  async function* failing(): AsyncGenerator<InferenceEvent> {
    yield chunk(0, [1]);
    yield chunk(1, [2]);
    throw new MeshError('engine_failed', 'it broke');
  }
  const seen: InferenceEvent[] = [];
  await assert.rejects(
    async () => {
      for await (const event of coalesce(failing())) seen.push(event);
    },
    { code: 'engine_failed' },
  );
  assert.deepEqual(seen, [chunk(0, [1]), chunk(1, [2])]);
});
