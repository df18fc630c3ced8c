import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  canContinue,
  continuedBody,
  type PrefillDialect,
} from '../../../node/backends/openai-http/continuation-body.ts';
import type { InferenceKind } from '../../../protocols/inference/events.ts';

const request = (body: unknown, kind: InferenceKind = 'chat') => ({
  kind,
  body: new TextEncoder().encode(typeof body === 'string' ? body : JSON.stringify(body)),
});
const CHAT = { model: 'm', messages: [{ role: 'user', content: 'say' }] };
const BEGUN = { text: 'One two', tokens: 2 };
const rewritten = (body: unknown, dialect: PrefillDialect, kind: InferenceKind = 'chat'): unknown => {
  const bytes = continuedBody(request(body, kind), BEGUN, dialect);
  return bytes === null ? null : (JSON.parse(new TextDecoder().decode(bytes)) as unknown);
};

test('a chat goes on after an assistant message at its end, as the server wants it, and unknown fields stay', () => {
  const body = { ...CHAT, max_tokens: 10, max_completion_tokens: 2, temperature: 0, mystery: { a: 1 } };
  const messages = [...CHAT.messages, { role: 'assistant', content: 'One two' }];
  const continued = { ...body, messages, max_tokens: 8, max_completion_tokens: 1 };
  assert.deepEqual(rewritten(body, 'llama-server'), continued);
  const asked = { add_generation_prompt: false, continue_final_message: true };
  assert.deepEqual(rewritten(body, 'vllm'), { ...continued, ...asked });
  assert.equal(rewritten(body, null), null);
});

test('a completion goes on everywhere, because its prompt is text', () => {
  for (const dialect of [null, 'vllm', 'llama-server'] as const) {
    const continued = rewritten({ model: 'm', prompt: 'Count: ', max_tokens: 10 }, dialect, 'completion');
    assert.deepEqual(continued, { model: 'm', prompt: 'Count: One two', max_tokens: 8 });
  }
  assert.deepEqual(rewritten({ prompt: 'a' }, null, 'completion'), { prompt: 'aOne two', max_tokens: 14 });
});

test('what is more than one text, or held to a form, is not gone on with', () => {
  const refused = [
    { ...CHAT, n: 2 },
    { ...CHAT, tools: [{ type: 'function', function: { name: 'f' } }] },
    { ...CHAT, functions: [{ name: 'f' }] },
    { ...CHAT, response_format: { type: 'json_object' } },
    { ...CHAT, response_format: { type: 'json_schema' } },
    { ...CHAT, logprobs: true },
    { ...CHAT, messages: [...CHAT.messages, { role: 'assistant', content: 'So' }] },
    { ...CHAT, messages: [] },
    { ...CHAT, messages: 'say' },
    'no JSON',
    [],
  ];
  for (const body of refused) assert.equal(rewritten(body, 'vllm'), null, JSON.stringify(body));
  const completions = [
    { prompt: ['a', 'b'] },
    { prompt: [1, 2] },
    { prompt: 'a', echo: true },
    { prompt: 'a', best_of: 2 },
  ];
  for (const body of completions) assert.equal(rewritten(body, null, 'completion'), null, JSON.stringify(body));
  assert.equal(rewritten({ prompt: 'a', suffix: 'b' }, null, 'completion'), null);
  assert.equal(canContinue(request({ input: 'x' }, 'embedding'), 'vllm'), false);
});

test('fields that say what is the default anyway are no hindrance', () => {
  const plain = { n: 1, tools: [], response_format: { type: 'text' }, logprobs: false, top_logprobs: null };
  assert.ok(canContinue(request({ ...CHAT, ...plain }), 'vllm'));
});
