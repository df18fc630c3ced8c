/** OPEN with an answer to go on with, what then may come back, and answers that are one result. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../../node/common/errors.ts';
import { FrameDecoder } from '../../../protocols/frame-decoder.ts';
import { encodeFrames, type Frame, type OutgoingFrame } from '../../../protocols/framing.ts';
import { AnswerCheck } from '../../../protocols/inference/answer-check.ts';
import { encodeChunk } from '../../../protocols/inference/chunk-message.ts';
import type { InferenceRequest, ResumedChoice } from '../../../protocols/inference/events.ts';
import { encodeAccept, encodeEnd, encodeResult, FRAME } from '../../../protocols/inference/messages.ts';
import {
  decodeOpen,
  encodeRequest,
  MAX_RESUMED_TOKENS,
  payloadBytes,
  requestOf,
  resumedTokens,
} from '../../../protocols/inference/open-message.ts';
import fc from '../../support/fc.ts';

const BOUNDS = { maxChoices: 4, maxTokens: 100, maxTextBytes: 1000 };
const DIGESTS = { promptDigest: 'ab'.repeat(32), artifact: 'cd'.repeat(32) };
const REQUEST: InferenceRequest = {
  requestId: '0123456789abcdef0123456789abcdef',
  kind: 'chat',
  model: 'meshnode-demo',
  seed: 42,
  body: Buffer.from('{"a":1}'),
};
const USAGE = { promptTokens: 3, completionTokens: 2, cachedTokens: 0 };
const TIMINGS = { promptMs: 1, predictedMs: 2 };

const resuming = (...choices: ResumedChoice[]): InferenceRequest => ({ ...REQUEST, resume: { ...DIGESTS, choices } });
const tokens = (...ids: number[]): ResumedChoice => ({ tokens: ids, finish: null, text: '' });
const isViolation = (error: unknown): boolean => error instanceof MeshError && error.code === 'protocol_violation';

function travel(frames: Iterable<OutgoingFrame>): Frame[] {
  const decoder = new FrameDecoder();
  for (const frame of frames) decoder.push(encodeFrames([frame]));
  const seen: Frame[] = [];
  for (let frame = decoder.next(); frame !== null; frame = decoder.next()) seen.push(frame);
  return seen;
}

function sent(request: InferenceRequest): { frames: Frame[]; payload: Buffer } {
  const frames = travel(encodeRequest(request, { hops: 1 }));
  return { frames, payload: Buffer.concat(frames.map(({ body }) => body)) };
}

const anyChoice = fc.record(
  {
    tokens: fc.array(fc.nat(0x7fff_ffff), { maxLength: 200 }),
    finish: fc.option(fc.constantFrom('stop', 'length', 'tool_calls'), { nil: null }),
    text: fc.constant(''),
  },
  { noNullPrototype: true },
);

test('an answer to go on with travels behind the body, whatever their sizes', () => {
  fc.assert(
    fc.property(fc.array(anyChoice, { minLength: 1, maxLength: 20 }), fc.nat(200_000), (choices, size) => {
      const request = { ...resuming(...choices), body: Buffer.alloc(size, 7) };
      const { frames, payload } = sent(request);
      const [first, ...rest] = frames;
      assert.ok(first && rest.every(({ type }) => type === FRAME.body));
      const open = decodeOpen(first);
      assert.equal(payloadBytes(open), payload.byteLength);
      const seen = requestOf(open, payload);
      assert.deepEqual(seen.resume, request.resume);
      assert.deepEqual(Buffer.from(seen.body), request.body);
    }),
    { numRuns: 50 },
  );
});

test('the most choices and tokens that may travel do, and one token more is refused before it is sent', () => {
  const finish = 'tool_calls';
  const most = Array.from(
    { length: 2048 },
    () => ({ tokens: new Array<number>(512).fill(1), finish, text: 'x' }) as const,
  );
  const { frames, payload } = sent(resuming(...most));
  const [first] = frames;
  assert.ok(first);
  const open = decodeOpen(first);
  assert.equal(resumedTokens(open), MAX_RESUMED_TOKENS);
  const { resume } = requestOf(open, payload);
  assert.equal(resume?.choices.length, 2048);
  assert.equal(resume?.choices.at(-1)?.tokens.length, 512);
  assert.equal(resume?.choices.at(-1)?.text, '', 'text does not travel');
  const over = resuming(tokens(1), { tokens: new Array<number>(MAX_RESUMED_TOKENS).fill(1), finish: null, text: '' });
  assert.throws(() => [...encodeRequest(over, { hops: 1 })], { code: 'cannot_resume' });
});

test('a request without one carries nothing but its body', () => {
  const { frames, payload } = sent(REQUEST);
  const [first] = frames;
  assert.ok(first);
  const open = decodeOpen(first);
  assert.equal('resume' in open, false);
  assert.deepEqual(Object.keys(requestOf(open, payload)), ['requestId', 'kind', 'model', 'seed', 'body']);
});

const HEAD = { requestId: REQUEST.requestId, kind: 'chat', model: 'm', seed: 1, bodyBytes: 0, hops: 1 };
const BAD_RESUMES: Record<string, object> = {
  'no choices': { ...DIGESTS, choices: [] },
  'too many choices': { ...DIGESTS, choices: Array.from({ length: 2049 }, () => [0, null]) },
  'a negative count': { ...DIGESTS, choices: [[-1, null]] },
  'a count without bound': { ...DIGESTS, choices: [[MAX_RESUMED_TOKENS + 1, null]] },
  'an unknown finish': { ...DIGESTS, choices: [[1, 'done']] },
  'no digest of the prompt': { artifact: DIGESTS.artifact, choices: [[1, null]] },
  'no artifact': { promptDigest: DIGESTS.promptDigest, choices: [[1, null]] },
  'an artifact that is no digest': { ...DIGESTS, artifact: 'x', choices: [[1, null]] },
};
for (const [name, resume] of Object.entries(BAD_RESUMES)) {
  test(`an answer to go on with that has ${name} breaks the protocol`, () => {
    const frame = { type: FRAME.open, head: { ...HEAD, resume }, body: new Uint8Array(0) };
    assert.throws(() => decodeOpen(frame), isViolation);
  });
}

test('a result cannot be gone on with, and a token is a count', () => {
  const resume = { ...DIGESTS, choices: [[1, null]] };
  const open = { type: FRAME.open, head: { ...HEAD, kind: 'embedding', resume }, body: new Uint8Array(0) };
  assert.throws(() => decodeOpen(open), isViolation);
  const head = decodeOpen({ ...open, head: { ...HEAD, resume } });
  assert.throws(() => requestOf(head, Uint8Array.of(0, 0, 0, 0x80)), isViolation);
});

const ACCEPT = encodeAccept({
  type: 'accepted',
  node: '12D3KooWA',
  promptTokens: 3,
  promptDigest: DIGESTS.promptDigest,
  artifact: null,
});
const said = (index: number, choice = 0, more: object = {}): OutgoingFrame[] =>
  encodeChunk({ type: 'chunk', choice, index, tokens: [1], text: 'x', ...more });
const ended = (...finishReasons: ('stop' | 'length')[]): OutgoingFrame =>
  encodeEnd({ type: 'end', finishReasons, usage: USAGE, timings: TIMINGS });

function check(request: InferenceRequest, frames: readonly OutgoingFrame[]): string[] {
  const answer = new AnswerCheck(request, BOUNDS);
  return travel([ACCEPT, ...frames]).map((frame) => answer.next(frame)?.type ?? 'nothing');
}

test('an answer goes on where it was, in each choice that was growing', () => {
  const request = resuming(tokens(1, 2, 3), { tokens: [4], finish: 'length', text: '' }, tokens());
  const types = check(request, [...said(3), ...said(0, 2), ...said(4), ended('stop', 'length', 'stop')]);
  assert.deepEqual(types, ['accepted', 'chunk', 'chunk', 'chunk', 'end']);
  const calls = { toolCalls: [{ index: 2, arguments: '}' }] };
  assert.deepEqual(check(request, said(3, 0, calls)), ['accepted', 'chunk'], 'its call was named before');
  const bad: Record<string, readonly OutgoingFrame[]> = {
    'begins again': said(0),
    'leaves a token out': said(4),
    'goes on with a whole choice': said(1, 1),
    'adds a choice': said(0, 3),
    'ends without a choice': [ended('stop', 'length')],
    'ends a whole choice otherwise': [ended('stop', 'stop', 'stop')],
    'ends with a choice more': [ended('stop', 'length', 'stop', 'stop')],
  };
  for (const [name, frames] of Object.entries(bad)) assert.throws(() => check(request, frames), isViolation, name);
});

test('a result travels in as many frames as it needs', () => {
  fc.assert(
    fc.property(fc.nat(300_000), (size) => {
      const body = new Uint8Array(size).fill(9);
      const answer = new AnswerCheck({ kind: 'embedding' }, { ...BOUNDS, maxTextBytes: 1e6 });
      const events = travel([ACCEPT, ...encodeResult({ type: 'result', body }), ended()]).map((it) => answer.next(it));
      const parts = events.flatMap((event) => (event?.type === 'result' ? [event.body] : []));
      assert.deepEqual(Buffer.concat(parts), Buffer.from(body));
      assert.equal(events.at(-1)?.type, 'end');
      assert.ok(answer.over);
    }),
    { numRuns: 20 },
  );
});

test('a result that is more, less or something else breaks the protocol', () => {
  const request: InferenceRequest = { ...REQUEST, kind: 'tokenize' };
  const result = [...encodeResult({ type: 'result', body: Buffer.from('{}') })];
  assert.deepEqual(check(request, [...result, ended()]), ['accepted', 'result', 'end']);
  const bad: Record<string, readonly OutgoingFrame[]> = {
    'tokens instead': said(0),
    'an END with a finish': [...result, ended('stop')],
    'a RESULT of nothing': [{ type: FRAME.result, head: {} }],
    'more than the bound': [...encodeResult({ type: 'result', body: new Uint8Array(1001) })],
  };
  for (const [name, frames] of Object.entries(bad)) assert.throws(() => check(request, frames), isViolation, name);
  const early = new AnswerCheck(request, BOUNDS);
  for (const frame of travel(result)) assert.throws(() => early.next(frame), isViolation);
});
