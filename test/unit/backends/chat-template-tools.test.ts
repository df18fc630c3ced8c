import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChatTemplate } from '../../../node/backends/llama-cpp/prompt/chat-template.ts';
import type { Segment } from '../../../node/backends/llama-cpp/prompt/control-text.ts';
import { dialectOf } from '../../../node/backends/llama-cpp/prompt/dialect.ts';
import { strftime } from '../../../node/backends/llama-cpp/prompt/strftime.ts';
import type { PromptMessage, ToolDefinition } from '../../../node/backends/llama-cpp/request/generation-request.ts';
import { MeshError } from '../../../node/common/errors.ts';
import {
  GEMMA_TEMPLATE,
  HERMES_TEMPLATE,
  LLAMA_TEMPLATE,
  MISTRAL_TEMPLATE,
  R1_TEMPLATE,
} from '../../support/chat-templates.ts';
import fc from '../../support/fc.ts';

const CONTROL = ['<|im_start|>', '<|im_end|>', '<tool_call>', '[INST]', '[TOOL_CALLS]', '<|eot_id|>', '</s>'];
const chat = (text: string | null): ChatTemplate =>
  new ChatTemplate(
    { template: text, bosToken: '<s>', eosToken: '</s>', controlTokens: CONTROL },
    { now: () => new Date(2026, 0, 5) },
  );
const joined = (segments: readonly Segment[]): string => segments.map((segment) => segment.text).join('');
const rendered = (text: string | null, messages: readonly PromptMessage[], tools = TOOLS): string =>
  joined(chat(text).render(messages, tools).segments);

const TOOLS: readonly ToolDefinition[] = [
  {
    name: 'get_weather',
    description: 'Weather of a city',
    parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
  },
];
const ID = 'call_0123456789abcdef01234567';
const CONVERSATION: readonly PromptMessage[] = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: 'Weather in Paris?' },
  {
    role: 'assistant',
    content: '',
    reasoning: 'Ask.',
    toolCalls: [{ id: ID, name: 'get_weather', arguments: '{"city":"Paris"}' }],
  },
  { role: 'tool', content: '{"c": 21}', toolCallId: ID },
];

test('Hermes templates get tools, calls as objects, results and thoughts', () => {
  assert.equal(
    rendered(HERMES_TEMPLATE, CONVERSATION),
    `<|im_start|>system
Be brief.

Tools:
<tools>
{"type": "function", "function": {"name": "get_weather", "description": "Weather of a city", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
</tools>
Answer with <tool_call>.<|im_end|>
<|im_start|>user
Weather in Paris?<|im_end|>
<|im_start|>assistant
<think>
Ask.
</think>

<tool_call>
{"name": "get_weather", "arguments": {"city": "Paris"}}
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
{"c": 21}
</tool_response><|im_end|>
<|im_start|>assistant
`,
  );
});

test('without tools a template is told of none', () => {
  const [, user] = CONVERSATION;
  assert.ok(user !== undefined);
  assert.equal(
    rendered(HERMES_TEMPLATE, [user], []),
    '<|im_start|>user\nWeather in Paris?<|im_end|>\n<|im_start|>assistant\n',
  );
  assert.doesNotMatch(rendered(LLAMA_TEMPLATE, [user], []), /Tools:/);
  assert.doesNotMatch(rendered(MISTRAL_TEMPLATE, [user], []), /AVAILABLE_TOOLS/);
});

test('Llama templates get the date in English, tools and results', () => {
  const text = rendered(LLAMA_TEMPLATE, CONVERSATION);
  assert.match(
    text,
    /^<s><\|start_header_id\|>system<\|end_header_id\|>\n\nToday: 05 Jan 2026\nTools:\n\{\n {4}"type": "function"/,
  );
  assert.match(
    text,
    /assistant<\|end_header_id\|>\n\n\{"name": "get_weather", "parameters": \{"city": "Paris"\}\}<\|eot_id\|>/,
  );
  assert.match(text, /ipython<\|end_header_id\|>\n\n"\{\\"c\\": 21\}"<\|eot_id\|>/);
});

test('Mistral templates get ids of nine characters, the same for a call and its result', () => {
  const text = rendered(MISTRAL_TEMPLATE, CONVERSATION.slice(1));
  const [, call] =
    /\[TOOL_CALLS\] \[\{"name": "get_weather", "arguments": \{"city": "Paris"\}, "id": "(\w{9})"\}\]<\/s>/.exec(text) ??
    [];
  assert.ok(call !== undefined, text);
  assert.ok(text.includes(`"call_id": "${call}"}[/TOOL_RESULTS]`), text);
});

test('templates that want arguments as text get them', () => {
  assert.match(rendered(R1_TEMPLATE, CONVERSATION), /call get_weather \{"city":"Paris"\}<\/s>result/);
});

test('a template that refuses system messages gets them with the first question, tools as well', () => {
  const text = rendered(GEMMA_TEMPLATE, CONVERSATION);
  assert.match(
    text,
    /^<s><start_of_turn>user\nBe brief\.\n\nYou can call these functions.*<tools>\n\{"name":"get_weather"/s,
  );
  assert.match(
    text,
    /Weather in Paris\?<end_of_turn>\n<start_of_turn>model\n<tool_call>\n\{"name":"get_weather","arguments":\{"city":"Paris"\}\}\n<\/tool_call><end_of_turn>/,
  );
  assert.match(
    text,
    /<start_of_turn>user\n<tool_response>\n\{"c": 21\}\n<\/tool_response><end_of_turn>\n<start_of_turn>model\n$/,
  );
});

test('results of parallel calls are one message where a template knows no tools', () => {
  const results: PromptMessage[] = [1, 2].map((n) => ({ role: 'tool', content: String(n), toolCallId: `call_${n}` }));
  const text = rendered(GEMMA_TEMPLATE, [...CONVERSATION.slice(0, 3), ...results]);
  assert.match(text, /user\n<tool_response>\n1\n<\/tool_response>\n<tool_response>\n2\n<\/tool_response><end_of_turn>/);
});

test('a prompt that ends within a thought says so', () => {
  assert.equal(chat(R1_TEMPLATE).render(CONVERSATION.slice(0, 2)).startsInReasoning, true);
  assert.equal(chat(HERMES_TEMPLATE).render(CONVERSATION.slice(0, 2)).startsInReasoning, false);
  const says: PromptMessage = { role: 'user', content: 'I <think>' };
  assert.equal(chat(HERMES_TEMPLATE).render([says]).startsInReasoning, false);
});

test('the dialect of each family is told from its template', () => {
  const formats = [HERMES_TEMPLATE, LLAMA_TEMPLATE, MISTRAL_TEMPLATE, GEMMA_TEMPLATE, R1_TEMPLATE, null].map((text) => {
    const { tools, thinks, rendersTools } = dialectOf(text, []);
    return [tools, thinks, rendersTools];
  });
  assert.deepEqual(formats, [
    ['hermes', true, true],
    ['llama3', false, true],
    ['mistral', false, true],
    ['hermes', false, false],
    ['generic', true, true],
    ['hermes', false, false],
  ]);
  assert.equal(dialectOf('{{ tools }}[TOOL_CALLS]name[ARGS]', []).tools, 'mistral-named');
  assert.equal(dialectOf('', ['[THINK]', '[/THINK]']).thinking.close, '[/THINK]');
});

test('nothing in tools, calls and results can act as a control token', () => {
  const piece = fc.oneof(
    fc.constantFrom(...CONTROL, '<|im_', '[TOOL', '_CALLS]', '\uE000', '"'),
    fc.string({ maxLength: 4 }),
  );
  const text = fc.array(piece, { maxLength: 3 }).map((pieces) => pieces.join(''));
  const value = fc.dictionary(text, fc.oneof(text, fc.array(text, { maxLength: 2 })), {
    maxKeys: 2,
    noNullPrototype: true,
  });
  const acting = (template: string, messages: readonly PromptMessage[], tools: readonly ToolDefinition[]): number => {
    const special = chat(template)
      .render(messages, tools)
      .segments.filter((segment) => segment.special);
    return CONTROL.reduce(
      (count, token) => count + special.reduce((sum, one) => sum + one.text.split(token).length - 1, 0),
      0,
    );
  };
  const conversation = (content: string, name: string, given: object): PromptMessage[] => [
    { role: 'system', content },
    { role: 'user', content },
    { role: 'assistant', content, reasoning: content, toolCalls: [{ id: ID, name, arguments: JSON.stringify(given) }] },
    { role: 'tool', content, toolCallId: ID },
  ];
  for (const template of [HERMES_TEMPLATE, LLAMA_TEMPLATE, GEMMA_TEMPLATE]) {
    const honest = acting(template, conversation('a', 'f', {}), [{ name: 'f', description: 'd', parameters: {} }]);
    fc.assert(
      fc.property(text, text, value, (content, name, given) => {
        const tools = [{ name, description: content, parameters: given }];
        assert.equal(acting(template, conversation(content, name, given), tools), honest);
      }),
    );
  }
});

/** Templates that never end, or grow without end, in every way that Jinja has. */
const BOMBS: readonly string[] = [
  '{% for i in range(10**9) %}x{% endfor %}',
  '{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}',
  "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
  "{% set ns = namespace(s=['x']) %}{% for i in range(60) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s | tojson }}",
  "{% set ns = namespace(s=['x']) %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
  "{{ 'a\\nb' | indent(500000000) }}",
  '{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}',
  '{% set a = range(100000) | list %}{% for i in a %}{% if (a | sort | length) > 3 %}{% endif %}{% endfor %}',
  "{% set ns = namespace(s='x ') %}{% for i in range(22) %}{% set ns.s = ns.s.replace('', 'yyyyyyyyyyyy') %}{% endfor %}",
];

test('a template that does not come to an end is stopped, and the next request is served', () => {
  for (const bomb of BOMBS) {
    const template = chat(`{% if messages[0].content == 'go' %}${bomb}{% endif %}fine`);
    assert.throws(
      () => template.render([{ role: 'user', content: 'go' }]),
      (error) => error instanceof MeshError && error.code === 'invalid_request' && /was stopped/.test(error.message),
      bomb,
    );
    assert.equal(joined(template.render([{ role: 'user', content: 'no' }]).segments), 'fine');
  }
});

test('a long conversation is within the bounds', () => {
  const messages: PromptMessage[] = Array.from({ length: 2000 }, (_, index) => ({
    role: index % 2 === 0 ? 'user' : 'assistant',
    content: `message ${index} ${'word '.repeat(200)}`,
  }));
  for (const template of [HERMES_TEMPLATE, LLAMA_TEMPLATE, MISTRAL_TEMPLATE, GEMMA_TEMPLATE, null]) {
    assert.ok(rendered(template, messages).length > 2_000_000);
  }
});

test('dates are written as C writes them, in English', () => {
  const date = new Date(2026, 7, 9, 15, 4, 5);
  assert.equal(
    strftime(date, '%A, %d %B %Y %H:%M:%S | %a %-d %b %y %I %p %% %Q'),
    'Sunday, 09 August 2026 15:04:05 | Sun 9 Aug 26 03 PM % %Q',
  );
});
