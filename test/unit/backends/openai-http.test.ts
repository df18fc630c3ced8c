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

const answerOf = (choices = 1): OpenAiAnswer => new OpenAiAnswer({ name: 'box', requestId: '0'.repeat(32), choices });
const plain = (text: string, more: object = {}) => ({ type: 'chunk', choice: 0, index: 0, tokens: [], text, ...more });
const choiceText = (...choices: object[]): string => JSON.stringify({ choices });
const TIMINGS = { promptMs: 1, predictedMs: 2 };

test('the chunks of an answer carry text without tokens, its counts are those of the server', () => {
  const answer = answerOf();
  const chunk = (delta: object, finish: string | null = null) =>
    answer.take(choiceText({ index: 0, delta, finish_reason: finish }));
  assert.deepEqual(chunk({ role: 'assistant', content: '', tool_calls: [], refusal: null }), []);
  assert.deepEqual(chunk({ content: 'Hi' }), [plain('Hi')]);
  assert.equal(answer.isWhole, false);
  assert.deepEqual(chunk({}, 'length'), [plain('', { finish: 'length' })]);
  assert.equal(answer.isWhole, true);
  assert.deepEqual(chunk({ content: '' }, 'length'), [], 'a reason that is repeated says nothing');
  assert.equal(answer.end(TIMINGS).usage.completionTokens, 1, 'chunks are counted while nothing better is known');
  const usage = { prompt_tokens: 7, completion_tokens: 9, completion_tokens_details: { reasoning_tokens: 4 }, x: 1 };
  assert.deepEqual(answer.take(JSON.stringify({ choices: [], usage })), []);
  assert.deepEqual(answer.end(TIMINGS), {
    type: 'end',
    finishReasons: ['length'],
    usage: { promptTokens: 7, completionTokens: 9, cachedTokens: 0, reasoningTokens: 4 },
    timings: TIMINGS,
  });
});

test('what events cannot carry fails the answer by its name', () => {
  const call = (more: object): object => ({ delta: { tool_calls: [{ index: 0, id: 'a', ...more }] } });
  const rows: readonly (readonly [object, RegExp])[] = [
    [{ message: { content: null, function_call: { name: 'x' } } }, /function_call/],
    [{ message: { content: null, audio: { id: 'x' } } }, /audio/],
    [{ delta: { content: [{ type: 'image' }] } }, /content that is no text/],
    [{ delta: {}, finish_reason: 'abort' }, /"abort"/],
    [{ index: 1, delta: { content: 'x' } }, /not asked for/],
    [{ index: -1, delta: { content: 'x' } }, /not asked for/],
    [{ index: 'length', delta: { content: 'x' } }, /not asked for/],
    [{ delta: { tool_calls: {} } }, /no list/],
    [{ delta: { tool_calls: ['x'] } }, /no object/],
    [call({}), /without naming it/],
    [call({ type: 'custom', function: { name: 'x' } }), /no function/],
    [call({ function: { name: 'x', arguments: 5 } }), /arguments/],
  ];
  for (const [choice, message] of rows) {
    assert.throws(() => answerOf().take(choiceText(choice)), { code: 'upstream_error', message });
  }
  for (const text of ['nonsense', '[]', '"x"', '{"choices": 5}', '{"choices": [null]}']) {
    assert.throws(() => answerOf().take(text), { code: 'upstream_error' }, text);
  }
  assert.throws(() => answerOf().end(TIMINGS), /without a finish_reason/);
  const over = answerOf();
  over.take(choiceText({ delta: { content: 'a' }, finish_reason: 'stop' }));
  assert.throws(() => over.take(choiceText({ delta: { content: 'b' } })), /went on after/);
});

test('reasoning that comes apart from the content is passed on apart from it', () => {
  const answer = answerOf();
  const deltas = [{ reasoning_content: 'Let me' }, { reasoning: ' see', content: null }, { content: 'Four' }];
  assert.deepEqual(
    deltas.flatMap((delta) => answer.take(choiceText({ index: 0, delta }))),
    [plain('', { reasoning: 'Let me' }), plain('', { reasoning: ' see' }), plain('Four')],
  );
});

test('the words of a model that declines are its answer, and a filtered answer says so', () => {
  const answer = answerOf();
  const message = { role: 'assistant', content: null, refusal: 'I cannot.' };
  assert.deepEqual(answer.take(choiceText({ message, finish_reason: 'content_filter' })), [
    plain('I cannot.', { finish: 'content_filter' }),
  ]);
});

test('several choices keep apart, and are whole when each is', () => {
  const answer = answerOf(2);
  const chunks = answer.take(
    choiceText({ index: 1, delta: { content: 'b' }, finish_reason: 'stop' }, { index: 0, delta: { content: 'a' } }),
  );
  assert.deepEqual(
    chunks.map(({ choice, text, finish = null }) => [choice, text, finish]),
    [
      [1, 'b', 'stop'],
      [0, 'a', null],
    ],
  );
  assert.equal(answer.isWhole, false);
  answer.take(choiceText({ index: 0, delta: {}, finish_reason: 'length' }));
  assert.deepEqual(answer.end(TIMINGS).finishReasons, ['length', 'stop']);
});

test('tool calls are numbered once and named in their first part, however a server sends them', () => {
  const streams: Record<string, readonly object[]> = {
    'as OpenAI does': [
      { index: 0, id: 'a', type: 'function', function: { name: 'f', arguments: '' } },
      { index: 0, function: { arguments: '{"x":' } },
      { index: 0, function: { arguments: '1}' } },
      { index: 1, id: 'b', type: 'function', function: { name: 'g', arguments: '{}' } },
    ],
    'with id and name in each part': [
      { index: 0, id: 'a', function: { name: 'f', arguments: '{"x":' } },
      { index: 0, id: 'a', function: { name: 'f', arguments: '1}' } },
      { index: 1, id: 'b', function: { name: 'g', arguments: '{}' } },
    ],
    'all numbered 0, arguments as objects': [
      { index: 0, id: 'a', function: { name: 'f', arguments: { x: 1 } } },
      { index: 0, id: 'b', function: { name: 'g', arguments: {} } },
    ],
  };
  for (const [name, parts] of Object.entries(streams)) {
    const answer = answerOf();
    const deltas = parts
      .flatMap((part) => answer.take(choiceText({ delta: { tool_calls: [part] } })))
      .flatMap(({ toolCalls = [] }) => toolCalls);
    const whole = [0, 1].map((index) => ({
      first: deltas.find((delta) => delta.index === index),
      text: deltas.flatMap((delta) => (delta.index === index ? delta.arguments : [])).join(''),
      named: deltas.filter((delta) => delta.index === index && delta.name !== undefined).length,
    }));
    assert.deepEqual(
      whole.map(({ first, text, named }) => [first?.id, first?.name, text, named]),
      [
        ['a', 'f', '{"x":1}', 1],
        ['b', 'g', '{}', 1],
      ],
      name,
    );
    answer.take(choiceText({ delta: {}, finish_reason: 'stop' }));
    assert.deepEqual(answer.end(TIMINGS).finishReasons, ['tool_calls'], 'whatever the server calls it');
  }
});

test('a whole answer with tool calls that have no ids or numbers gives each its own', () => {
  const calls = ['f', 'g'].map((name) => ({ function: { name, arguments: '{}' } }));
  const [chunk] = answerOf().take(choiceText({ message: { content: null, tool_calls: calls }, finish_reason: 'stop' }));
  assert.deepEqual(
    chunk?.toolCalls?.map(({ index, name }) => [index, name]),
    [
      [0, 'f'],
      [1, 'g'],
    ],
  );
  assert.equal(new Set(chunk?.toolCalls?.map(({ id }) => id)).size, 2);
});

test('log probabilities are read in both shapes', () => {
  const top = { token: 'x', logprob: -3, bytes: null };
  const content = [{ token: 'é', logprob: -0.5, bytes: [0xc3, 0xa9], top_logprobs: [top] }, null, { token: 5 }];
  const [chat] = answerOf().take(choiceText({ delta: { content: 'é' }, logprobs: { content, refusal: null } }));
  const entry = { token: 'é', logprob: -0.5, bytes: [0xc3, 0xa9] };
  assert.deepEqual(chat?.logprobs, [{ ...entry, top: [{ token: 'x', logprob: -3, bytes: [0x78] }] }]);
  const logprobs = {
    tokens: ['A', 'é'],
    token_logprobs: [null, -0.5],
    top_logprobs: [null, { b: -9, é: -0.5 }],
    text_offset: [0, 1],
  };
  const [completion] = answerOf().take(choiceText({ text: 'Aé', logprobs, finish_reason: 'stop' }));
  assert.deepEqual(completion?.promptLogprobs, [null]);
  assert.deepEqual(completion?.logprobs, [{ ...entry, top: [entry, { token: 'b', logprob: -9, bytes: [0x62] }] }]);
});

test('any JSON as an answer gives chunks or upstream_error, nothing else', () => {
  const fields = 'index delta message text content tool_calls logprobs finish_reason id function name arguments'.split(
    ' ',
  );
  const leaf = fc.oneof(fc.constantFrom('stop', 'f', '', null, 0, 1, -1, {}, []), fc.jsonValue({ maxDepth: 1 }));
  const { node } = fc.letrec<{ node: unknown }>((tie) => ({
    node: fc.oneof(
      { maxDepth: 4 },
      leaf,
      fc.dictionary(fc.constantFrom(...fields), tie('node')),
      fc.array(tie('node')),
    ),
  }));
  fc.assert(
    fc.property(fc.array(node, { maxLength: 3 }), (choices) => {
      try {
        for (const chunk of answerOf(2).take(JSON.stringify({ choices }))) assert.ok(chunk.choice < 2);
      } catch (error) {
        assert.ok(error instanceof MeshError && error.code === 'upstream_error');
      }
    }),
  );
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
