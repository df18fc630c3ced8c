/** Answers that go on elsewhere, answers of many choices and answers that are one result, over real streams. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { MeshError } from '../../node/common/errors.ts';
import { encodeFrames } from '../../protocols/framing.ts';
import type { ChunkEvent, InferenceEvent, InferenceRequest, TokenLogprob } from '../../protocols/inference/events.ts';
import { encodeRequest, MAX_RESUMED_TOKENS } from '../../protocols/inference/open-message.ts';
import { INFERENCE_PROTOCOL } from '../../protocols/protocol-id.ts';
import { ACCEPTED, answer, chunk, collect, END, makeRequest, until, wireMesh } from '../support/wire-mesh.ts';

const DIGESTS = { promptDigest: 'ab'.repeat(32), artifact: 'cd'.repeat(32) };
const many = (count: number): number[] => Array.from({ length: count }, (_, index) => index);

function resuming(...counts: number[]): InferenceRequest {
  const choices = counts.map((count) => ({ tokens: many(count), finish: null, text: 'secret' }));
  return { ...makeRequest(), resume: { ...DIGESTS, choices } };
}

test('an answer goes on where it was: its tokens arrive whole, the rest comes back', async (t) => {
  const seen: InferenceRequest[] = [];
  const mesh = await wireMesh(t, async function* (request) {
    seen.push(request);
    yield ACCEPTED;
    const { length } = request.resume?.choices[0]?.tokens ?? [];
    yield chunk(length);
    yield { ...chunk(length + 1), finish: 'stop' };
    yield END;
  });
  const request = resuming(500_000);
  const events = await Array.fromAsync(mesh.ask(request));
  assert.deepEqual(
    events.flatMap((event) => (event.type === 'chunk' ? [event.index] : [])),
    [500_000, 500_001],
  );
  assert.deepEqual(seen[0]?.resume?.choices[0]?.tokens, request.resume?.choices[0]?.tokens);
  assert.equal(seen[0]?.resume?.choices[0]?.text, '');
  assert.deepEqual(Buffer.from(seen[0]?.body ?? []), Buffer.from(request.body));
});

test('the stream that carried a long continuation carries the next request', async (t) => {
  const mesh = await wireMesh(t, async function* (request) {
    yield ACCEPTED;
    yield chunk(request.resume?.choices[0]?.tokens.length ?? 0, 'x');
    yield END;
  });
  for (const request of [resuming(40_000), makeRequest(), resuming(1)]) {
    assert.equal((await collect(mesh.ask(request))).text, 'x');
  }
});

test('an answer to go on with that is too long is refused before anything is sent, or where it arrives', async (t) => {
  let asked = 0;
  const mesh = await wireMesh(t, () => {
    asked += 1;
    return answer(1);
  });
  const tooLong = resuming(MAX_RESUMED_TOKENS, 1);
  await assert.rejects(Array.fromAsync(mesh.ask(tooLong)), { code: 'cannot_resume' });
  // By an asking side that does not look.
  const [open] = encodeRequest(resuming(1), { hops: 1 });
  assert.ok(open);
  const choices = [
    [MAX_RESUMED_TOKENS, null],
    [1, null],
  ];
  const stream = await mesh.pair.open(INFERENCE_PROTOCOL, AbortSignal.timeout(5000));
  const frame = { ...open, head: { ...open.head, resume: { ...DIGESTS, choices } } };
  let answered = '';
  stream.addEventListener('message', ({ data }) => {
    answered += Buffer.from(data.subarray()).toString('latin1');
  });
  stream.send(encodeFrames([frame]));
  await until(() => answered.includes('cannot_resume'));
  await stream.close().catch(() => {});
  assert.equal(asked, 0);
});

test('memory is booked for the tokens as well as for the body', async (t) => {
  const booked: number[] = [];
  const mesh = await wireMesh(t, (request) => answerFrom(request), {
    reserveBytes: (sizeBytes) => {
      booked.push(sizeBytes);
      return () => {};
    },
  });
  const request = resuming(1000, 24);
  await Array.fromAsync(mesh.ask(request));
  assert.deepEqual(booked, [request.body.byteLength + 4096]);
});

async function* answerFrom(request: InferenceRequest): AsyncGenerator<InferenceEvent> {
  yield ACCEPTED;
  const choices = request.resume?.choices ?? [];
  yield* choices.map(({ tokens }, choice) => ({ ...chunk(tokens.length), choice, finish: 'stop' as const }));
  yield { ...END, finishReasons: choices.map(() => 'stop') };
}

test('a refusal to go on reaches the asking side by its code', async (t) => {
  const mesh = await wireMesh(t, async function* (): AsyncGenerator<InferenceEvent> {
    yield { type: 'progress', state: 'queued', fraction: null };
    throw new MeshError('cannot_resume', 'another model file');
  });
  await assert.rejects(Array.fromAsync(mesh.ask(resuming(3))), { code: 'cannot_resume' });
});

test('a hundred choices and everything that a chunk may have arrive as they were', async (t) => {
  const top: TokenLogprob['top'] = Array.from({ length: 20 }, (_, rank) => ({
    token: 'x',
    bytes: [120],
    logprob: -1 - rank,
  }));
  const logprob: TokenLogprob = { token: 'x', bytes: [120], logprob: 0, top };
  const chunks = many(100).map(
    (choice): ChunkEvent => ({
      ...chunk(0),
      choice,
      reasoning: `thought ${choice}`,
      toolCalls: [{ index: 0, id: `c${choice}`, name: 'f', arguments: '{}' }],
      logprobs: [logprob],
      promptLogprobs: [null, ...Array.from({ length: 100 }, () => logprob)],
      finish: 'tool_calls',
    }),
  );
  const end = { ...END, finishReasons: chunks.map(() => 'tool_calls' as const) };
  const mesh = await wireMesh(t, async function* (): AsyncGenerator<InferenceEvent> {
    yield ACCEPTED;
    yield* chunks;
    yield end;
  });
  const events = await Array.fromAsync(mesh.ask({ ...makeRequest(), choices: 100 }));
  assert.deepEqual(events, [ACCEPTED, ...chunks, end]);
});

test('a result of megabytes arrives byte for byte', async (t) => {
  const body = randomBytes(3_000_000);
  const end = { ...END, finishReasons: [] };
  const mesh = await wireMesh(t, async function* ({ kind }): AsyncGenerator<InferenceEvent> {
    assert.equal(kind, 'embedding');
    yield ACCEPTED;
    yield { type: 'result', body: body.subarray(0, 1_000_001) };
    yield { type: 'result', body: body.subarray(1_000_001) };
    yield end;
  });
  const events = await Array.fromAsync(mesh.ask({ ...makeRequest(), kind: 'embedding' }));
  const parts = events.flatMap((event) => (event.type === 'result' ? [event.body] : []));
  assert.ok(Buffer.concat(parts).equals(body));
  assert.deepEqual(events.at(-1), end);
});
