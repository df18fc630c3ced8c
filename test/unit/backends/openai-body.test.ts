import assert from 'node:assert/strict';
import { test } from 'node:test';
import { generationRequest } from '../../../node/backends/llama-cpp/generation-request.ts';
import { positionSeed } from '../../../node/backends/llama-cpp/sampling.ts';
import { MeshError } from '../../../node/common/errors.ts';
import type { InferenceKind } from '../../../protocols/inference/events.ts';
import { parseBody } from '../../../protocols/inference/openai-body.ts';
import fc from '../../support/fc.ts';

const bytes = (body: unknown): Uint8Array => Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
const chat = (fields: object): object => ({ model: 'm', messages: [{ role: 'user', content: 'hi' }], ...fields });
const completion = (fields: object): object => ({ model: 'm', prompt: 'hi', ...fields });

/** The field that the refusal names, `-` for none. */
function refused(kind: InferenceKind, body: unknown): string {
  try {
    parseBody(kind, bytes(body));
  } catch (error) {
    assert.ok(error instanceof MeshError && error.code === 'invalid_request');
    return error.facts.param ?? '-';
  }
  return 'accepted';
}

test('a malformed body is refused without quoting it', () => {
  for (const body of ['', '{', 'my secret', '"text"', '[]', '5', 'null', '{"secret": "half']) {
    assert.throws(
      () => parseBody('chat', bytes(body)),
      (error) => error instanceof MeshError && error.code === 'invalid_request' && !error.message.includes('secret'),
    );
  }
  assert.throws(() => parseBody('chat', Uint8Array.of(0x22, 0xff, 0x22)), /not valid UTF-8/);
});

test('each wrong field is named the way the client wrote it', () => {
  const wrong: [string, object][] = [
    ['model', { model: 5 }],
    ['model', { model: '' }],
    ['messages', { messages: [] }],
    ['messages', { messages: 'hi' }],
    ['messages[0]', { messages: ['hi'] }],
    ['messages[0].role', { messages: [{ role: 'robot', content: 'hi' }] }],
    ['messages[0].content', { messages: [{ role: 'user', content: 5 }] }],
    ['messages[0].content', { messages: [{ role: 'user', content: null }] }],
    [
      'messages[1].content[0].text',
      {
        messages: [
          { role: 'user', content: 'a' },
          { role: 'user', content: [{ type: 'text', text: 1 }] },
        ],
      },
    ],
    ['messages[0].content[0].text', { messages: [{ role: 'user', content: [{ type: 'text' }] }] }],
    ['temperature', { temperature: -0.1 }],
    ['temperature', { temperature: 2.1 }],
    ['temperature', { temperature: '1' }],
    ['top_p', { top_p: 1.5 }],
    ['top_k', { top_k: 1.5 }],
    ['min_p', { min_p: 2 }],
    ['max_tokens', { max_tokens: 0 }],
    ['max_tokens', { max_tokens: -1 }],
    ['max_tokens', { max_tokens: 1e8 }],
    ['max_completion_tokens', { max_completion_tokens: 1.5 }],
    ['seed', { seed: 1.5 }],
    ['seed', { seed: 2 ** 60 }],
    ['stop', { stop: '' }],
    ['stop', { stop: Array.from({ length: 17 }, () => 'a') }],
    ['stop[1]', { stop: ['a', ''] }],
    ['n', { n: 0 }],
    ['stream', { stream: 'yes' }],
    ['stream_options.include_usage', { stream_options: { include_usage: 1 } }],
    ['frequency_penalty', { frequency_penalty: 3 }],
    ['presence_penalty', { presence_penalty: -3 }],
    ['repeat_penalty', { repeat_penalty: -1 }],
  ];
  for (const [field, body] of wrong) assert.equal(refused('chat', chat(body)), field, JSON.stringify(body));
  assert.equal(refused('chat', {}), 'model');
  assert.equal(refused('completion', { model: 'm' }), 'prompt');
  assert.equal(refused('completion', completion({ prompt: 5 })), 'prompt');
});

test('what is not served yet is refused by name, never ignored', () => {
  const unservedInChat: [string, object][] = [
    ['tools', { tools: [{ type: 'function' }] }],
    ['functions', { functions: [{}] }],
    ['response_format', { response_format: { type: 'json_object' } }],
    ['logprobs', { logprobs: true }],
    ['top_logprobs', { top_logprobs: 2 }],
    ['logit_bias', { logit_bias: { 50: -100 } }],
    ['n', { n: 2 }],
    ['modalities', { modalities: ['text', 'audio'] }],
    ['messages[0].content[0].type', { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: {} }] }] }],
    ['messages[0].tool_calls', { messages: [{ role: 'assistant', content: null, tool_calls: [{}] }] }],
  ];
  for (const [field, body] of unservedInChat) assert.equal(refused('chat', chat(body)), field);
  const unservedInCompletion: [string, object][] = [
    ['prompt', { prompt: [1, 2] }],
    ['prompt', { prompt: ['a', 'b'] }],
    ['prompt', { prompt: [] }],
    ['logprobs', { logprobs: 0 }],
    ['best_of', { best_of: 2 }],
    ['echo', { echo: true }],
    ['suffix', { suffix: 'end' }],
  ];
  for (const [field, body] of unservedInCompletion) assert.equal(refused('completion', completion(body)), field);
});

test('harmless forms of what is not served pass, unknown fields too, and nulls are absent', () => {
  const harmless = [
    { tools: [] },
    { tools: [{}], tool_choice: 'none' },
    { response_format: { type: 'text' } },
    { logprobs: false, top_logprobs: 0, logit_bias: {}, n: 1 },
    { user: 'me', metadata: { a: 1 }, surprise: [null] },
    { temperature: null, stop: null, max_tokens: null, stream_options: { include_usage: null }, tools: null },
    { top_p: 0, temperature: 0, seed: -5 },
  ];
  for (const fields of harmless) assert.equal(refused('chat', chat(fields)), 'accepted', JSON.stringify(fields));
  assert.equal(refused('completion', completion({ echo: false, suffix: '', best_of: 1, prompt: ['one'] })), 'accepted');
});

test('any JSON is read or refused as invalid_request, nothing else', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.json(),
        fc.jsonValue().map((value) => JSON.stringify(chat({ messages: value }))),
      ),
      (json) => {
        for (const kind of ['chat', 'completion'] as const) refused(kind, json);
      },
    ),
  );
});

const request = (kind: InferenceKind, body: object) =>
  generationRequest({ requestId: '0'.repeat(32), kind, model: 'm', body: bytes(body), seed: 7 });

test('a chat body becomes an engine request with every default decided', () => {
  const messages = [
    { role: 'developer', content: 'Be kind.' },
    {
      role: 'user',
      content: [
        { type: 'text', text: 'a' },
        { type: 'text', text: 'b' },
      ],
    },
    { role: 'assistant', content: null },
  ];
  assert.deepEqual(request('chat', chat({ messages, stop: 'x' })), {
    prompt: {
      messages: [
        { role: 'system', content: 'Be kind.' },
        { role: 'user', content: 'ab' },
        { role: 'assistant', content: '' },
      ],
    },
    maxTokens: null,
    stop: ['x'],
    sampling: {
      temperature: 1,
      topP: 1,
      topK: 40,
      minP: 0,
      repeatPenalty: 1,
      frequencyPenalty: 0,
      presencePenalty: 0,
      seed: 7,
    },
  });
});

test("a client's own values win, the newer token limit over the older one", () => {
  const made = request('chat', chat({ max_tokens: 5, max_completion_tokens: 9, seed: -1, top_k: 0, stop: ['a', 'b'] }));
  assert.equal(made.maxTokens, 9);
  assert.equal(made.sampling.seed, 2 ** 32 - 1);
  assert.equal(made.sampling.topK, 0);
  assert.deepEqual(made.stop, ['a', 'b']);
});

test('a completion body is continued as it stands, for 16 tokens unless it says more', () => {
  const made = request('completion', completion({ prompt: ['Once'] }));
  assert.deepEqual(made.prompt, { text: 'Once' });
  assert.equal(made.maxTokens, 16);
});

test('each position of an answer has a seed of its own, and never the one that means "pick any"', () => {
  const seeds = new Set<number>();
  for (let position = 0; position < 10_000; position += 1) seeds.add(positionSeed(7, position));
  assert.ok(seeds.size > 9_990);
  assert.ok([...seeds].every((seed) => Number.isInteger(seed) && seed >= 0 && seed < 0xffff_ffff));
  assert.equal(positionSeed(7, 3), positionSeed(7, 3));
  assert.notEqual(positionSeed(7, 3), positionSeed(8, 3));
});
