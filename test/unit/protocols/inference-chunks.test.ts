/** CHUNK with everything that a chunk may have: there and back, in parts, merged, and from those who mean harm. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../../node/common/errors.ts';
import { FrameDecoder } from '../../../protocols/frame-decoder.ts';
import { encodeFrames, type Frame, MAX_FRAME_BYTES, type OutgoingFrame } from '../../../protocols/framing.ts';
import { AnswerCheck } from '../../../protocols/inference/answer-check.ts';
import { continues, join } from '../../../protocols/inference/chunk-join.ts';
import { decodeChunk, encodeChunk, LEAST_LOGPROB } from '../../../protocols/inference/chunk-message.ts';
import { coalesce } from '../../../protocols/inference/coalesce.ts';
import type { ChunkEvent, InferenceEvent, TokenLogprob } from '../../../protocols/inference/events.ts';
import { encodeAccept, encodeEnd, encodeProgress, FRAME } from '../../../protocols/inference/messages.ts';
import fc from '../../support/fc.ts';

const BOUNDS = { maxChoices: 4, maxTokens: 1e6, maxTextBytes: 1e8 };
const ACCEPT = encodeAccept({
  type: 'accepted',
  node: '12D3KooWA',
  promptTokens: 3,
  promptDigest: 'ab'.repeat(32),
  artifact: null,
});
const ended = (finishReasons: ('stop' | 'length' | 'tool_calls')[]): OutgoingFrame =>
  encodeEnd({
    type: 'end',
    finishReasons,
    usage: { promptTokens: 3, completionTokens: 2, cachedTokens: 0, reasoningTokens: 1 },
    timings: { promptMs: 1, predictedMs: 2 },
  });

const isViolation = (error: unknown): boolean => error instanceof MeshError && error.code === 'protocol_violation';

function travel(...frames: OutgoingFrame[]): Frame[] {
  const decoder = new FrameDecoder();
  for (const frame of frames) decoder.push(encodeFrames([frame]));
  const seen: Frame[] = [];
  for (let frame = decoder.next(); frame !== null; frame = decoder.next()) seen.push(frame);
  return seen;
}

/** The events that the asking side makes of frames. */
function received(
  frames: readonly OutgoingFrame[],
  request: ConstructorParameters<typeof AnswerCheck>[0] = { kind: 'chat' },
) {
  const check = new AnswerCheck(request, BOUNDS);
  return travel(ACCEPT, ...frames).flatMap((frame) => check.next(frame) ?? []);
}

const chunksOf = (events: readonly InferenceEvent[]): ChunkEvent[] => events.filter((event) => event.type === 'chunk');

function chunk(index: number, tokens: number[], more: Partial<ChunkEvent> = {}): ChunkEvent {
  return { type: 'chunk', choice: 0, index, tokens, text: '', ...more };
}

const logprob = (token: string, top = 0): TokenLogprob => {
  const own = { token, bytes: [...Buffer.from(token)], logprob: -1.25 };
  return { ...own, top: Array.from({ length: top }, (_, rank) => ({ ...own, logprob: -1.25 - rank })) };
};

/** Chunks of one choice, in order, such as an engine gives. */
const anyChunks = fc
  .array(
    fc.record({
      tokens: fc.array(fc.nat(0x7fff_ffff), { maxLength: 4 }),
      text: fc.string({ unit: 'grapheme', maxLength: 8 }),
      reasoning: fc.option(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 8 }), { nil: undefined }),
      call: fc.option(fc.string({ unit: 'grapheme', maxLength: 8 }), { nil: undefined }),
      newCall: fc.boolean(),
    }),
    { minLength: 1, maxLength: 12 },
  )
  .chain((parts) => fc.record({ parts: fc.constant(parts), top: fc.option(fc.nat(3), { nil: undefined }) }))
  .map(({ parts, top }) => {
    let index = 0;
    let calls = 0;
    const chunks = parts.map(({ tokens, text, reasoning, call, newCall }): ChunkEvent => {
      const begins = call !== undefined && (newCall || calls === 0);
      if (begins) calls += 1;
      const delta = { index: calls - 1, arguments: call ?? '' };
      const at = index;
      index += tokens.length;
      return chunk(at, tokens, {
        text,
        ...(reasoning === undefined ? {} : { reasoning }),
        ...(call === undefined ? {} : { toolCalls: [begins ? { ...delta, id: `c${calls}`, name: 'f' } : delta] }),
        ...(top === undefined ? {} : { logprobs: tokens.map((token) => logprob(String(token), top)) }),
      });
    });
    return [...chunks, chunk(index, [], { finish: 'stop', ...(top === undefined ? {} : { logprobs: [] }) })];
  });

/** All that chunks say, however they are cut. */
function said(chunks: readonly ChunkEvent[]): object {
  const calls: string[] = [];
  for (const { index, id = '', name = '', arguments: text } of chunks.flatMap(({ toolCalls = [] }) => toolCalls)) {
    calls[index] = `${calls[index] ?? ''}${id}${name}${text}`;
  }
  return {
    tokens: chunks.flatMap(({ tokens }) => tokens),
    text: chunks.map(({ text }) => text).join(''),
    reasoning: chunks.map(({ reasoning = '' }) => reasoning).join(''),
    calls,
    logprobs: chunks.flatMap(({ logprobs = [] }) => logprobs),
    finish: chunks.flatMap(({ finish = [] }) => finish),
  };
}

const isSomething = ({ tokens, text, reasoning, toolCalls, finish }: ChunkEvent): boolean =>
  tokens.length > 0 || text !== '' || (reasoning ?? toolCalls ?? finish) !== undefined;

test('chunks of any parts arrive as they were', () => {
  fc.assert(
    fc.property(anyChunks, (chunks) => {
      const seen = chunksOf(received([...chunks.flatMap(encodeChunk), ended(['stop'])]));
      assert.deepEqual(seen, chunks.filter(isSomething));
    }),
  );
});

test('merged chunks say the same, and each is whole', async () => {
  await fc.assert(
    fc.asyncProperty(anyChunks, anyChunks, fc.array(fc.boolean(), { maxLength: 26 }), async (first, second, turns) => {
      // Two choices, interleaved.
      const other = second.map((event) => ({ ...event, choice: 1 }));
      const [left, right] = [[...first], [...other]];
      const mixed: ChunkEvent[] = [];
      for (const turn of turns) mixed.push(...(turn ? left : right).splice(0, 1));
      mixed.push(...left, ...right);
      async function* source(): AsyncGenerator<InferenceEvent> {
        yield* mixed;
      }
      const merged = chunksOf(await Array.fromAsync(coalesce(source())));
      const seen = chunksOf(received([...merged.flatMap(encodeChunk), ended(['stop', 'stop'])]));
      assert.deepEqual(said(seen.filter(({ choice }) => choice === 0)), said(first));
      assert.deepEqual(said(seen.filter(({ choice }) => choice === 1)), said(other));
      for (const { tokens, logprobs } of seen) assert.ok(logprobs === undefined || logprobs.length === tokens.length);
    }),
  );
});

test('a chunk is not merged with one that may not follow it in the same chunk', () => {
  const first = chunk(0, [1], { text: 'a' });
  assert.ok(continues(first, chunk(1, [2])));
  assert.ok(!continues(first, chunk(2, [2])));
  assert.ok(!continues(first, { ...chunk(1, [2]), choice: 1 }));
  assert.ok(!continues({ ...first, finish: 'stop' }, chunk(1, [2])));
  assert.ok(!continues(first, chunk(1, [2], { logprobs: [logprob('b')] })));
  assert.ok(!continues(first, chunk(1, [2], { promptLogprobs: [null] })));
  const called = chunk(0, [1], { toolCalls: [{ index: 0, id: 'c', name: 'f', arguments: '{' }] });
  assert.deepEqual(join(called, chunk(1, [2], { toolCalls: [{ index: 0, arguments: '}' }] })).toolCalls, [
    { index: 0, id: 'c', name: 'f', arguments: '{}' },
  ]);
});

test('a chunk of more than a frame travels in parts and arrives whole, at once', () => {
  const big: ChunkEvent = chunk(
    0,
    Array.from({ length: 5000 }, (_, at) => at),
    {
      text: '😀'.repeat(40_000),
      reasoning: '\0"é'.repeat(30_000),
      toolCalls: [
        { index: 0, id: 'a', name: 'f', arguments: '\n'.repeat(40_000) },
        { index: 1, id: 'b', name: 'g', arguments: '' },
      ],
      logprobs: Array.from({ length: 5000 }, (_, at) => logprob(`t${at}`, 5)),
      promptLogprobs: [null, ...Array.from({ length: 3000 }, () => logprob('prompt', 20))],
      finish: 'tool_calls',
    },
  );
  const frames = encodeChunk(big);
  assert.ok(frames.length > 20);
  assert.ok(frames.every((frame) => encodeFrames([frame]).byteLength <= MAX_FRAME_BYTES));
  const running = encodeProgress({ state: 'running', fraction: null });
  const events = received([...frames.flatMap((frame) => [running, frame]), ended(['tool_calls'])]);
  assert.deepEqual(chunksOf(events), [big]);
});

test('a probability of nothing travels as a very small one', () => {
  const entry = { ...logprob('a'), logprob: Number.NEGATIVE_INFINITY };
  const [seen] = chunksOf(received(encodeChunk(chunk(0, [1], { logprobs: [entry] }))));
  assert.equal(seen?.logprobs?.[0]?.logprob, LEAST_LOGPROB);
});

const L = [['a', -1, [97]], []];
const BAD_HEADS: Record<string, object> = {
  'reasoning that is no text': { r: 5 },
  'no reasoning': { i: 0, t: [], r: '' },
  'tool calls that are no list': { x: {} },
  'a tool call without arguments': { x: [{ i: 0, d: 'a', n: 'f' }] },
  'a tool call that is numbered too high': { x: [{ i: 1024, d: 'a', n: 'f', a: '' }] },
  'a tool call with an empty id': { x: [{ i: 0, d: '', n: 'f', a: '' }] },
  'a tool call with a name without bound': { x: [{ i: 0, d: 'a', n: 'f'.repeat(257), a: '' }] },
  'log probabilities that are too many': { l: [L, L] },
  'log probabilities that are too few': { l: [] },
  'a log probability of no number': { l: [[['a', null, [97]], []]] },
  'a log probability above 1': { l: [[['a', 2, [97]], []]] },
  'a log probability of bytes that are none': { l: [[['a', -1, [256]], []]] },
  'alternatives without bound': { l: [[L[0], Array.from({ length: 129 }, () => L[0])]] },
  'log probabilities of the prompt that are no list': { p: 1 },
  'an unknown finish reason': { f: 'done' },
  'a part that says so in another way': { m: 2 },
  'null where something should be': { f: null },
};
for (const [name, head] of Object.entries(BAD_HEADS)) {
  test(`a CHUNK of ${name} breaks the protocol`, () => {
    const [frame] = travel({ type: FRAME.chunk, head: { i: 0, t: [1], ...head } });
    assert.ok(frame);
    assert.throws(() => decodeChunk(frame), isViolation);
  });
}

const frames = (...chunks: ChunkEvent[]): OutgoingFrame[] => chunks.flatMap(encodeChunk);
const part = (head: object): OutgoingFrame => ({ type: FRAME.chunk, head: { i: 0, t: [], m: 1, ...head }, body: 'x' });
const named = (index: number) => ({ index, id: 'a', name: 'f', arguments: '' });
const BAD_ANSWERS: Record<string, readonly OutgoingFrame[]> = {
  'a chunk after the finish': frames(chunk(0, [1], { finish: 'stop' }), chunk(1, [2])),
  'a second finish': frames(chunk(0, [1], { finish: 'stop' }), chunk(1, [], { finish: 'stop' })),
  'an END with another finish': [...frames(chunk(0, [1], { finish: 'stop' })), ended(['length'])],
  'an END without a choice that was begun': [...frames({ ...chunk(0, [1]), choice: 1 }), ended(['stop'])],
  'an END without choices': [ended([])],
  'a tool call out of turn': frames(chunk(0, [1], { toolCalls: [named(1)] })),
  'a tool call that nobody named': frames(chunk(0, [1], { toolCalls: [{ index: 0, arguments: '{' }] })),
  "the prompt's probabilities after the first token": frames(chunk(0, [1]), chunk(1, [2], { promptLogprobs: [null] })),
  'a part of a chunk within one of another choice': [part({}), part({ c: 1 })],
  'an END within a chunk': [part({}), ended(['stop'])],
  'a RESULT in place of tokens': [{ type: FRAME.result, head: {}, body: Buffer.from('{}') }],
};
for (const [name, bad] of Object.entries(BAD_ANSWERS)) {
  test(`${name} breaks the protocol`, () => {
    assert.throws(() => received(bad), isViolation);
  });
}

test('an answer of as many choices as were asked for passes, and no other', () => {
  const three = { kind: 'completion', choices: 3 } as const;
  assert.equal(received([ended(['stop', 'stop', 'stop'])], three).length, 2);
  assert.throws(() => received([ended(['stop', 'stop'])], three), isViolation);
  assert.throws(() => received(frames({ ...chunk(0, [1]), choice: 3 }), three), isViolation);
  const many = { kind: 'completion', choices: 2048 } as const;
  assert.equal(received([ended(Array.from({ length: 2048 }, () => 'tool_calls' as const))], many).length, 2);
});

test('an answer without bound is given up, whatever it is made of', () => {
  const bounds = { ...BOUNDS, maxTextBytes: 1000 };
  const long: Partial<ChunkEvent>[] = [
    { reasoning: 'x'.repeat(1001) },
    { toolCalls: [{ ...named(0), arguments: 'x'.repeat(1001) }] },
    { logprobs: [logprob('a', 20)] },
    { promptLogprobs: [logprob('a', 20)] },
  ];
  for (const more of long) {
    const check = new AnswerCheck({ kind: 'chat' }, bounds);
    const [accept, frame] = travel(ACCEPT, ...frames(chunk(0, [1], more)));
    assert.ok(accept && frame);
    check.next(accept);
    assert.throws(() => check.next(frame), isViolation);
  }
});
