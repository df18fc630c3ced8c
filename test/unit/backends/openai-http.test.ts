import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseModels } from '../../../node/backends/openai-http/model-list.ts';
import { OpenAiAnswer } from '../../../node/backends/openai-http/openai-answer.ts';
import { ServerHealth } from '../../../node/backends/openai-http/server-health.ts';
import { SseParser } from '../../../node/backends/openai-http/sse-parser.ts';
import {
  errorInBand,
  errorOfRefusal,
  parseRetryAfter,
  withoutSecret,
} from '../../../node/backends/openai-http/upstream-errors.ts';
import { MeshError } from '../../../node/common/errors.ts';
import fc from '../../support/fc.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const refusalOf = (status: number, body: unknown, retryAfter?: string): MeshError =>
  errorOfRefusal({
    name: 'box',
    status,
    headers: retryAfter === undefined ? {} : { 'retry-after': retryAfter },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    nowMs: 0,
  });

test('an event stream gives the same messages however its bytes are cut', () => {
  const line = fc.string({ unit: 'grapheme' }).map((text) => text.replace(/[\r\n]/g, ''));
  const message = fc.record({
    lines: fc.array(line, { minLength: 1, maxLength: 3 }),
    comment: fc.boolean(),
    crlf: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(message, { maxLength: 5 }), fc.array(fc.nat(200), { maxLength: 20 }), (messages, cuts) => {
      const text = messages
        .map(({ lines, comment, crlf }) => {
          const end = crlf ? '\r\n' : '\n';
          const data = lines.map((it) => `data: ${it}${end}`).join('');
          return `${comment ? `: alive${end}${end}` : ''}${data}${end}`;
        })
        .join('');
      const bytes = Buffer.from(text);
      const parser = new SseParser();
      const got: string[] = [];
      let from = 0;
      for (const cut of [...cuts.toSorted((a, b) => a - b), bytes.length]) {
        const to = Math.min(Math.max(cut, from), bytes.length);
        got.push(...parser.push(bytes.subarray(from, to)).map((it) => it.data));
        from = to;
      }
      assert.deepEqual(
        got,
        messages.map(({ lines }) => lines.map((it) => Buffer.from(it).toString()).join('\n')),
      );
    }),
  );
});

test('an event stream without bound is given up', () => {
  const piece = Buffer.from('x'.repeat(1024 * 1024));
  const oneLine = new SseParser();
  const manyLines = new SseParser();
  const feed = (parser: SseParser, bytes: Uint8Array) => () => {
    for (let i = 0; i < 6; i += 1) parser.push(bytes);
  };
  assert.throws(feed(oneLine, piece), { code: 'upstream_error' });
  assert.throws(feed(manyLines, Buffer.concat([Buffer.from('data: '), piece, Buffer.from('\n')])), {
    code: 'upstream_error',
  });
});

test('Retry-After is read as seconds and as a date, and bounded', () => {
  const now = Date.parse('2026-01-01T00:00:00Z');
  assert.equal(parseRetryAfter('3', now), 3000);
  assert.equal(parseRetryAfter('1.5', now), 1500);
  assert.equal(parseRetryAfter('Thu, 01 Jan 2026 00:00:20 GMT', now), 20_000);
  assert.equal(parseRetryAfter('Wed, 31 Dec 2025 00:00:00 GMT', now), 0);
  assert.equal(parseRetryAfter('99999999', now), 3_600_000);
  for (const value of [undefined, '', 'soon', '-']) assert.equal(parseRetryAfter(value, now), null);
});

test('D-6 each refusal of a server becomes the code that the table asks for', () => {
  const rows: readonly (readonly [number, unknown, string])[] = [
    [400, { error: { message: 'bad', code: 'x', param: 'top_p' } }, 'invalid_request'],
    [400, { error: { message: 'long', code: 'context_length_exceeded' } }, 'context_length_exceeded'],
    [400, { error: { message: "This model's maximum context length is 4096 tokens" } }, 'context_length_exceeded'],
    [400, { error: { message: 'too long', type: 'exceed_context_size_error', code: 400 } }, 'context_length_exceeded'],
    [401, { error: { message: 'Incorrect API key' } }, 'unauthorized'],
    [403, 'no', 'forbidden'],
    [404, { error: { message: 'x', code: 'model_not_found' } }, 'model_not_loaded'],
    [
      404,
      { object: 'error', message: 'The model `m` does not exist.', type: 'NotFoundError', code: 404 },
      'model_not_loaded',
    ],
    [
      404,
      { error: { message: 'model "m" not found, try pulling it first', type: 'api_error', code: null } },
      'model_not_loaded',
    ],
    [404, { detail: 'Not Found' }, 'invalid_request'],
    [408, '', 'request_timeout'],
    [413, '', 'payload_too_large'],
    [422, { detail: [{ msg: 'x' }] }, 'invalid_request'],
    [429, { error: { message: 'slow down', code: 'rate_limit_exceeded' } }, 'rate_limited'],
    [500, { error: { message: 'x', code: 'context_length_exceeded' } }, 'upstream_error'],
    [503, { error: { message: 'x', code: 'model_not_available' } }, 'model_not_loaded'],
    [503, { error: { message: 'x', code: 'model_not_loaded' } }, 'model_not_loaded'],
    [503, { error: { message: 'x', code: 'draining' } }, 'draining'],
    [503, 'busy', 'upstream_error'],
    [503, { error: { message: 'x', code: 'client_closed' } }, 'upstream_error'],
    [307, '<html>', 'upstream_error'],
  ];
  for (const [status, body, code] of rows) {
    const error = refusalOf(status, body);
    assert.equal(error.code, code, `${status} ${JSON.stringify(body)}`);
    assert.equal(error.facts.httpStatus, status);
  }
  assert.equal(refusalOf(400, { error: { message: 'bad', param: 'top_p' } }).facts.param, 'top_p');
  assert.equal(refusalOf(503, 'x', '7').facts.retryAfterMs, 7000);
});

test('a message of a server is one bounded line, HTML is none', () => {
  const message = refusalOf(400, { error: { message: `a\u0000b\n\nc ${'x'.repeat(10_000)}` } }).message;
  assert.match(message, /^box answered 400: a b c x+…$/);
  assert.ok(message.length < 600);
  assert.equal(refusalOf(502, '<html><h1>Bad gateway</h1>').message, 'box answered 502');
  assert.equal(refusalOf(500, 'plain words').message, 'box answered 500: plain words');
});

test('D-46 a key that a server repeats is taken out of the message, and the words of a 401 are not passed on', () => {
  const key = 'sk-canary-0123456789';
  const error = withoutSecret(refusalOf(400, { error: { message: `bad header Bearer ${key}` } }), key);
  assert.equal(error.message, 'box answered 400: bad header Bearer [key]');
  assert.equal(error.facts.httpStatus, 400);
  assert.equal(
    refusalOf(401, { error: { message: 'Incorrect API key: sk-can***789' } }).message.includes('sk-'),
    false,
  );
});

test('an error within an answer keeps its meaning where it has one here', () => {
  assert.equal(errorInBand('box', { message: 'x', code: 'context_length_exceeded' }).code, 'context_length_exceeded');
  assert.equal(errorInBand('box', { message: 'x', code: 429 }).code, 'rate_limited');
  assert.equal(errorInBand('box', { message: 'x', code: 'peer_lost' }).code, 'upstream_error');
  assert.equal(errorInBand('box', { message: 'x', code: 'client_closed' }).code, 'upstream_error');
  assert.match(errorInBand('box', 'only words').message, /only words/);
});

test('the chunks of an answer carry text without tokens, its counts are those of the server', () => {
  const answer = new OpenAiAnswer('box');
  const chunk = (delta: object, finish: string | null = null) =>
    answer.take(JSON.stringify({ choices: [{ index: 0, delta, finish_reason: finish }] }));
  assert.equal(chunk({ role: 'assistant', content: '', tool_calls: [], refusal: null }), null);
  assert.deepEqual(chunk({ content: 'Hi' }), { type: 'chunk', choice: 0, index: 0, tokens: [], text: 'Hi' });
  assert.equal(chunk({}, 'length'), null);
  const timings = { promptMs: 1, predictedMs: 2 };
  assert.equal(answer.end(timings).usage.completionTokens, 1, 'chunks are counted while nothing better is known');
  assert.equal(answer.take('{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":9,"x":1}}'), null);
  assert.deepEqual(answer.end(timings), {
    type: 'end',
    finishReasons: ['length'],
    usage: { promptTokens: 7, completionTokens: 9, cachedTokens: 0 },
    timings,
  });
});

test('what events cannot carry fails the answer by its name', () => {
  const rows: readonly (readonly [object, RegExp])[] = [
    [{ delta: { tool_calls: [{ index: 0 }] } }, /tool_calls/],
    [{ message: { content: null, function_call: { name: 'x' } } }, /function_call/],
    [{ delta: { refusal: 'no' } }, /refusal/],
    [{ delta: { content: [{ type: 'image' }] } }, /content that is no text/],
    [{ delta: {}, finish_reason: 'content_filter' }, /"content_filter"/],
    [{ index: 1, delta: { content: 'x' } }, /not asked for/],
  ];
  for (const [choice, message] of rows) {
    const take = (): unknown => new OpenAiAnswer('box').take(JSON.stringify({ choices: [choice] }));
    assert.throws(take, { code: 'upstream_error', message });
  }
  for (const text of ['nonsense', '[]', '"x"', '{"choices": 5}', '{"choices": [null]}']) {
    assert.throws(() => new OpenAiAnswer('box').take(text), { code: 'upstream_error' }, text);
  }
  assert.throws(() => new OpenAiAnswer('box').end({ promptMs: 0, predictedMs: 0 }), /without a finish_reason/);
});

test('reasoning that comes apart from the content is passed on as a model writes it', () => {
  const answer = new OpenAiAnswer('box');
  const text = [{ reasoning_content: 'Let me' }, { reasoning_content: ' see', content: null }, { content: 'Four' }]
    .map((delta) => answer.take(JSON.stringify({ choices: [{ index: 0, delta }] }))?.text)
    .join('');
  assert.equal(text, '<think>Let me see</think>Four');
});

test('D-3 a model list is read from vLLM, llama-server and another node alike', () => {
  const data = [
    { id: 'org/vllm-model', object: 'model', max_model_len: 8192 },
    { id: 'llama', meta: { n_ctx_train: 4096, size: 123 } },
    {
      id: 'near',
      owned_by: 'llama.cpp',
      meshnode: { state: 'on-disk', context_length: 2048, quantization: 'F16', size_bytes: 9 },
    },
    { id: 'two hops away', owned_by: 'remote', meshnode: { nodes: ['12D3x'] } },
    { id: 'bad\nid' },
    { id: '' },
    { id: 5 },
    null,
    { id: 'org/vllm-model', max_model_len: 1 },
  ];
  const models = parseModels(JSON.stringify({ data }), 'box');
  assert.deepEqual(
    models.map(({ id, contextLength, sizeBytes, state, quantization }) => [
      id,
      contextLength,
      sizeBytes,
      state,
      quantization,
    ]),
    [
      ['org/vllm-model', 1, 0, 'resident', null],
      ['llama', 4096, 123, 'resident', null],
      ['near', 2048, 9, 'on-disk', 'F16'],
    ],
  );
  for (const body of ['', '[]', '{"data": {}}', '<html>'])
    assert.throws(() => parseModels(body, 'box'), /no list of models/);
  assert.equal(
    parseModels(JSON.stringify({ data: Array.from({ length: 9999 }, (_, i) => ({ id: `m${i}` })) }), 'b').length,
    4096,
  );
});

test('D-6 a server that refuses the key stays unauthorized until it takes one', () => {
  const clock = new ManualClock();
  const health = new ServerHealth(clock);
  assert.equal(health.status, 'offline');
  health.polled(null);
  assert.equal(health.status, 'online');
  health.answered(new MeshError('unauthorized', 'x'));
  health.polled(null);
  assert.equal(health.status, 'unauthorized', 'an open model list proves nothing about the key');
  health.rekeyed();
  assert.equal(health.status, 'online');
  health.polled(new MeshError('forbidden', 'x'));
  assert.equal(health.status, 'unauthorized');
  health.answered(null);
  assert.equal(health.status, 'online');
});

test('a server is suspect after one failure, offline after two and busy for as long as it says', () => {
  const clock = new ManualClock();
  const health = new ServerHealth(clock);
  health.polled(null);
  assert.equal(health.answered(new MeshError('peer_unreachable', 'x')), true);
  assert.equal(health.status, 'suspect');
  health.polled(new MeshError('peer_unreachable', 'x'));
  assert.equal(health.status, 'offline');
  health.polled(null);
  health.answered(new MeshError('rate_limited', 'x', { retryAfterMs: 2000 }));
  assert.equal(health.status, 'busy');
  clock.advance(2000);
  assert.equal(health.status, 'online');
  assert.equal(health.answered(new MeshError('invalid_request', 'x')), false);
  assert.equal(health.status, 'online');
});
