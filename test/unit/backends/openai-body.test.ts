import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type GenerationRequest,
  generationRequest,
} from '../../../node/backends/llama-cpp/request/generation-request.ts';
import { positionSeed } from '../../../node/backends/llama-cpp/request/sampling.ts';
import { MeshError } from '../../../node/common/errors.ts';
import { choicesOf } from '../../../protocols/inference/bodies/completion-prompts.ts';
import { parseBody } from '../../../protocols/inference/bodies/openai-body.ts';
import type { GenerationKind } from '../../../protocols/inference/events.ts';
import fc from '../../support/fc.ts';

const bytes = (body: unknown): Uint8Array => Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
const chat = (fields: object): object => ({ model: 'm', messages: [{ role: 'user', content: 'hi' }], ...fields });
const completion = (fields: object): object => ({ model: 'm', prompt: 'hi', ...fields });

const request = (kind: GenerationKind, body: unknown): GenerationRequest =>
  generationRequest({ requestId: '0'.repeat(32), kind, model: 'm', body: bytes(body), seed: 7 });

/** The field that the refusal names, `-` for none. */
function refused(kind: GenerationKind, body: unknown): string {
  try {
    request(kind, body);
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

const tool = (name: string, more: object = {}): object => ({ type: 'function', function: { name, ...more } });
const JSON_SCHEMA = { type: 'json_schema', json_schema: { name: 'answer', schema: { type: 'object' } } };
const said = (...messages: object[]): object => ({ messages });

test('what a chat cannot be served is refused, naming the field', () => {
  const refusals: [string, object][] = [
    ['tools[0].type', { tools: [{ type: 'web_search' }] }],
    ['tools[1].type', { tools: [tool('a'), { type: 'custom', custom: { name: 'b' } }] }],
    ['tools[0].function', { tools: [{ type: 'function' }] }],
    ['tools[0].function.name', { tools: [tool('a b')] }],
    ['tools[0].function.name', { tools: [tool('')] }],
    ['tools[0].function.parameters', { tools: [tool('a', { parameters: 'object' })] }],
    ['tools[1].function.name', { tools: [tool('a'), tool('a')] }],
    ['tools', { tools: {} }],
    ['tool_choice', { tools: [tool('a')], tool_choice: 'any' }],
    ['tool_choice', { tool_choice: 'required' }],
    ['tool_choice', { tools: [], tool_choice: 'required' }],
    ['tool_choice.function.name', { tools: [tool('a')], tool_choice: tool('b') }],
    ['tool_choice.function.name', { tool_choice: tool('b') }],
    ['tool_choice.function', { tools: [tool('a')], tool_choice: { type: 'function' } }],
    ['tool_choice.type', { tools: [tool('a')], tool_choice: { type: 'allowed_tools' } }],
    ['parallel_tool_calls', { tools: [tool('a')], parallel_tool_calls: 'no' }],
    ['functions', { functions: [{ name: 'a' }] }],
    ['function_call', { function_call: { name: 'a' } }],
    ['response_format.type', { response_format: { type: 'xml' } }],
    ['response_format.type', { response_format: {} }],
    ['response_format.json_schema', { response_format: { type: 'json_schema' } }],
    ['response_format.json_schema.name', { response_format: { type: 'json_schema', json_schema: { schema: {} } } }],
    ['response_format.json_schema.name', { response_format: { type: 'json_schema', json_schema: { name: 'a b' } } }],
    [
      'response_format.json_schema.strict',
      { response_format: { type: 'json_schema', json_schema: { name: 'a', strict: 1 } } },
    ],
    [
      'response_format.json_schema.schema',
      { response_format: { type: 'json_schema', json_schema: { name: 'a', schema: [] } } },
    ],
    ['response_format', { response_format: JSON_SCHEMA, tools: [tool('a')] }],
    ['response_format', { response_format: { type: 'json_object' }, tools: [tool('a')], tool_choice: 'auto' }],
    ['top_logprobs', { top_logprobs: 2 }],
    ['top_logprobs', { top_logprobs: 2, logprobs: false }],
    ['top_logprobs', { top_logprobs: 21, logprobs: true }],
    ['logprobs', { logprobs: 2 }],
    ['logit_bias[50]', { logit_bias: { 50: -101 } }],
    ['logit_bias[50]', { logit_bias: { 50: '1' } }],
    ['logit_bias', { logit_bias: { hello: 1 } }],
    ['logit_bias', { logit_bias: { '-1': 1 } }],
    ['logit_bias', { logit_bias: { 99999999999: 1 } }],
    ['logit_bias', { logit_bias: Object.fromEntries(Array.from({ length: 1025 }, (_, token) => [token, 1])) }],
    ['n', { n: 129 }],
    ['n', { n: 1.5 }],
    ['stream_options', { stream_options: { include_usage: true } }],
    ['stream_options', { stream: false, stream_options: {} }],
    ['modalities', { modalities: ['text', 'audio'] }],
    ['web_search_options', { web_search_options: {} }],
    ['messages[0].role', said({ role: 'function', name: 'a', content: 'x' })],
    ['messages[0].content[0].type', said({ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] })],
    ['messages[0].content[1].type', said({ role: 'user', content: [{ type: 'text', text: '' }, { type: 'file' }] })],
    ['messages[0].content[0].type', said({ role: 'user', content: [{ type: 'input_audio', input_audio: {} }] })],
    ['messages[0].content[0].type', said({ role: 'user', content: [{ type: 'refusal', refusal: 'no' }] })],
    ['messages[0].tool_calls[0].id', said({ role: 'assistant', content: null, tool_calls: [{}] })],
    [
      'messages[0].tool_calls[0].function.arguments',
      said({ role: 'assistant', tool_calls: [{ id: 'a', type: 'function', function: { name: 'a', arguments: {} } }] }),
    ],
    [
      'messages[0].tool_calls[0].type',
      said({ role: 'assistant', tool_calls: [{ id: 'a', type: 'custom', function: { name: 'a', arguments: '' } }] }),
    ],
    [
      'messages[0].tool_calls',
      said({ role: 'user', content: '', tool_calls: [{ id: 'a', function: { name: 'a', arguments: '' } }] }),
    ],
    ['messages[0].tool_call_id', said({ role: 'tool', content: 'x' })],
    ['messages[0].content', said({ role: 'tool', tool_call_id: 'a' })],
    ['messages[0].reasoning_content', said({ role: 'assistant', content: 'x', reasoning_content: 5 })],
  ];
  for (const [field, body] of refusals) assert.equal(refused('chat', chat(body)), field, JSON.stringify(body));
});

test('what a completion cannot be served is refused, naming the field', () => {
  const refusals: [string, object][] = [
    ['prompt', { prompt: [] }],
    ['prompt[1]', { prompt: ['a', 5] }],
    ['prompt[1]', { prompt: [[1], []] }],
    ['prompt[1]', { prompt: [1, -2] }],
    ['prompt[1][0]', { prompt: [[1], [1.5]] }],
    ['prompt[2]', { prompt: [1, 2, 'x'] }],
    ['prompt', { prompt: Array.from({ length: 100 }, () => 'a'), n: 21 }],
    ['logprobs', { logprobs: 6 }],
    ['logprobs', { logprobs: true }],
    ['best_of', { best_of: 2 }],
    ['best_of', { best_of: 1, n: 2 }],
    ['max_tokens', { max_tokens: 0 }],
    ['max_tokens', { max_tokens: -1, echo: true }],
    ['echo', { echo: 'yes' }],
    ['suffix', { suffix: 'end', echo: true }],
    ['suffix', { suffix: 'end', prompt: [1, 2] }],
    ['stream_options', { stream_options: {} }],
    ['logit_bias', { logit_bias: { x: 1 } }],
  ];
  for (const [field, body] of refusals)
    assert.equal(refused('completion', completion(body)), field, JSON.stringify(body));
});

test('what can be served, or says nothing, passes; unknown fields too, and nulls are absent', () => {
  const call = { id: 'a', type: 'function', function: { name: 'a', arguments: '{}' } };
  const chats: object[] = [
    { tools: [] },
    { tools: [tool('a', { description: null, parameters: null, strict: null })], tool_choice: 'none' },
    { tools: [tool('a', { strict: true, parameters: { type: 'object', default: null } })], tool_choice: 'required' },
    { tools: [tool('a'), tool('b')], tool_choice: tool('b'), parallel_tool_calls: false },
    { tools: [tool('a')], tool_choice: 'none', response_format: JSON_SCHEMA },
    { tools: [tool('a')], tool_choice: 'required', response_format: JSON_SCHEMA },
    { tools: [tool('a')], response_format: { type: 'text' } },
    { tool_choice: 'auto', parallel_tool_calls: true, functions: [], function_call: 'auto' },
    { response_format: { type: 'json_object' } },
    { response_format: { type: 'json_object', schema: { type: 'object' } } },
    { response_format: { type: 'json_schema', json_schema: { name: 'a', schema: null, strict: null } } },
    { logprobs: false, top_logprobs: 0, logit_bias: {}, n: 1 },
    { logprobs: true, top_logprobs: 20, logit_bias: { 50: -100, 51: 100 }, n: 128 },
    { user: 'me', metadata: { a: 1 }, store: true, service_tier: 'auto', surprise: [null] },
    { temperature: null, stop: null, max_tokens: null, stream_options: null, tools: null, response_format: null },
    { stream: true, stream_options: { include_usage: null, include_obfuscation: false } },
    { top_p: 0, temperature: 0, seed: -5, modalities: ['text'], reasoning_effort: 'low' },
    said({ role: 'developer', content: [] }, { role: 'assistant', content: null, tool_calls: [call], refusal: null }),
    said({ role: 'tool', content: [{ type: 'text', text: 'x' }], tool_call_id: 'a' }),
    said({ role: 'assistant', content: [{ type: 'refusal', refusal: 'no' }], reasoning_content: 'hm', audio: null }),
  ];
  for (const fields of chats) assert.equal(refused('chat', chat(fields)), 'accepted', JSON.stringify(fields));
  const completions: object[] = [
    { echo: false, suffix: '', best_of: 1, prompt: ['one'] },
    { prompt: ['a', 'b'], n: 2, best_of: 2, echo: true, max_tokens: 0, logprobs: 5 },
    { prompt: [1, 2, 3], logprobs: 0 },
    { prompt: [[1], [2, 3]], suffix: null, echo: null, best_of: null },
    { prompt: '', suffix: 'end' },
  ];
  for (const fields of completions) {
    assert.equal(refused('completion', completion(fields)), 'accepted', JSON.stringify(fields));
  }
});

test('what only some server can do passes the facade and is refused by the engine', () => {
  const image = { role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:x' } }] };
  const format = { response_format: JSON_SCHEMA, tools: [tool('a')] };
  for (const fields of [said(image), format, { web_search_options: {} }]) {
    assert.ok(parseBody('chat', bytes(chat(fields))));
    assert.notEqual(refused('chat', chat(fields)), 'accepted');
  }
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
    prompts: [
      {
        kind: 'chat',
        messages: [
          { role: 'system', content: 'Be kind.' },
          { role: 'user', content: 'ab' },
          { role: 'assistant', content: '' },
        ],
        tools: [],
      },
    ],
    choices: 1,
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
      logitBias: [],
    },
    constraint: { type: 'none' },
    parseTools: false,
    parallelTools: true,
    logprobs: null,
    echo: false,
    requestId: '0'.repeat(32),
    resume: null,
  });
});

test("a client's own values win, the newer token limit over the older one", () => {
  const made = request(
    'chat',
    chat({
      max_tokens: 5,
      max_completion_tokens: 9,
      seed: -1,
      top_k: 0,
      stop: ['a', 'b'],
      n: 3,
      logprobs: true,
      logit_bias: { 5: -100 },
      parallel_tool_calls: false,
    }),
  );
  assert.equal(made.maxTokens, 9);
  assert.equal(made.sampling.seed, 2 ** 32 - 1);
  assert.equal(made.sampling.topK, 0);
  assert.deepEqual(made.sampling.logitBias, [[5, -100]]);
  assert.deepEqual(made.stop, ['a', 'b']);
  assert.equal(made.choices, 3);
  assert.equal(made.logprobs, 0);
  assert.equal(made.parallelTools, false);
  assert.equal(request('chat', chat({ logprobs: true, top_logprobs: 4 })).logprobs, 4);
});

test('tools, what was called and what it gave reach the prompt', () => {
  const parameters = { type: 'object', properties: { a: { default: null } } };
  const messages = [
    { role: 'assistant', content: null, tool_calls: [{ id: 'c1', function: { name: 'f', arguments: ' ' } }] },
    { role: 'tool', content: '7', tool_call_id: 'c1' },
    { role: 'assistant', content: 'Seven.', reasoning_content: 'hm' },
  ];
  const made = request('chat', chat({ messages, tools: [tool('f', { description: 'F.', parameters, strict: true })] }));
  assert.deepEqual(made.prompts, [
    {
      kind: 'chat',
      messages: [
        { role: 'assistant', content: '', toolCalls: [{ id: 'c1', name: 'f', arguments: '{}' }] },
        { role: 'tool', content: '7', toolCallId: 'c1' },
        { role: 'assistant', content: 'Seven.', reasoning: 'hm' },
      ],
      tools: [{ name: 'f', description: 'F.', parameters }],
    },
  ]);
  assert.equal(made.parseTools, true);
});

test('what the answer must be follows from tool_choice and response_format', () => {
  const tools = [tool('a'), tool('b')];
  const schema = { type: 'object', properties: { x: { const: null } } };
  const format = { type: 'json_schema', json_schema: { name: 'n', schema, strict: true } };
  const cases: [object, object, boolean][] = [
    [{}, { type: 'none' }, false],
    [{ tools }, { type: 'none' }, true],
    [{ tools, tool_choice: 'none' }, { type: 'none' }, false],
    [{ tools, tool_choice: 'required' }, { type: 'tool-call', name: null }, true],
    [{ tools, tool_choice: tool('b') }, { type: 'tool-call', name: 'b' }, true],
    [{ tools, tool_choice: 'required', response_format: format }, { type: 'tool-call', name: null }, true],
    [{ tools, tool_choice: 'none', response_format: format }, { type: 'json-schema', schema }, false],
    [{ response_format: format }, { type: 'json-schema', schema }, false],
    [{ response_format: { type: 'json_object' } }, { type: 'json' }, false],
    [{ response_format: { type: 'json_object', schema } }, { type: 'json-schema', schema }, false],
    [{ response_format: { type: 'json_schema', json_schema: { name: 'n' } } }, { type: 'json' }, false],
  ];
  for (const [fields, constraint, parseTools] of cases) {
    const made = request('chat', chat(fields));
    assert.deepEqual([made.constraint, made.parseTools], [constraint, parseTools], JSON.stringify(fields));
  }
  const untold = request('chat', chat({ tools, tool_choice: 'none' })).prompts[0];
  assert.deepEqual(untold?.kind === 'chat' ? untold.tools : null, []);
});

test('a completion body is continued as it stands, for 16 tokens unless it says more', () => {
  const made = request('completion', completion({ prompt: ['Once'] }));
  assert.deepEqual(made.prompts, [{ kind: 'text', text: 'Once' }]);
  assert.equal(made.maxTokens, 16);
  assert.equal(made.logprobs, null);
});

test('each prompt of a completion is text, tokens, or text with a hole', () => {
  const prompts = (fields: object): readonly unknown[] => request('completion', completion(fields)).prompts;
  assert.deepEqual(prompts({ prompt: [1, 2] }), [{ kind: 'tokens', tokens: [1, 2] }]);
  assert.deepEqual(prompts({ prompt: [[1], [2]] }), [
    { kind: 'tokens', tokens: [1] },
    { kind: 'tokens', tokens: [2] },
  ]);
  assert.deepEqual(prompts({ prompt: ['a', 'b'], suffix: 'z' }), [
    { kind: 'fill', prefix: 'a', suffix: 'z' },
    { kind: 'fill', prefix: 'b', suffix: 'z' },
  ]);
  const made = request('completion', completion({ prompt: ['a', 'b'], n: 3, echo: true, max_tokens: 0, logprobs: 2 }));
  assert.deepEqual([made.choices, made.echo, made.maxTokens, made.logprobs], [3, true, 0, 2]);
});

test('how many answers a body asks for is prompts times n', () => {
  assert.equal(choicesOf(parseBody('chat', bytes(chat({ n: 4 })))), 4);
  assert.equal(choicesOf(parseBody('completion', bytes(completion({ prompt: ['a', 'b'], n: 3 })))), 6);
  assert.equal(choicesOf(parseBody('completion', bytes(completion({ prompt: [1, 2] })))), 1);
});

test('each position of an answer has a seed of its own, and never the one that means "pick any"', () => {
  const seeds = new Set<number>();
  for (let position = 0; position < 10_000; position += 1) seeds.add(positionSeed(7, position));
  assert.ok(seeds.size > 9_990);
  assert.ok([...seeds].every((seed) => Number.isInteger(seed) && seed >= 0 && seed < 0xffff_ffff));
  assert.equal(positionSeed(7, 3), positionSeed(7, 3));
  assert.notEqual(positionSeed(7, 3), positionSeed(8, 3));
});
