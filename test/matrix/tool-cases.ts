/** Tools and formats of chats: what is demanded holds whatever the model is. */
import assert from 'node:assert/strict';
import {
  assertValid,
  CLOCK_PARAMETERS,
  PERSON_SCHEMA,
  TOOLS,
  WEATHER_PARAMETERS,
} from '../support/client-questions.ts';
import type { Answer } from '../support/matrix-answer.ts';
import {
  CHAT,
  type Fields,
  longerPrompt,
  type MatrixCase,
  only,
  refusals,
  rowsOf,
  sameText,
  user,
} from './matrix-case.ts';

const SCHEMAS: Readonly<Record<string, object>> = { weather: WEATHER_PARAMETERS, clock: CLOCK_PARAMETERS };
const NOTHING = { not: {} };
const ASKED: Fields = { ...CHAT, messages: [user('What is the weather in Ulm?')], max_tokens: 120 };
const ONE: Fields = { ...ASKED, tools: [TOOLS[0]] };
const BOTH: Fields = { ...ASKED, tools: TOOLS };
/** As short as a tool can be. */
const BARE: Fields = { type: 'function', function: { name: 'go', parameters: CLOCK_PARAMETERS } };
const CALL_TOKENS = 120;

const row = rowsOf('chat');

/** Calls and nothing else, with arguments that are valid; the names, in order. */
function called(answer: Answer): string[] {
  const { text, calls, finishes } = only(answer);
  assert.deepEqual([text, finishes], ['', ['tool_calls']]);
  for (const { id, name, arguments: given } of calls) {
    assert.match(id, /^\S{9,}$/);
    assertValid(SCHEMAS[name] ?? NOTHING, JSON.parse(given));
  }
  assert.equal(new Set(calls.map(({ id }) => id)).size, calls.length);
  return calls.map(({ name }) => name);
}

const named = (name: string): Fields => ({ type: 'function', function: { name } });
const format = (response_format: Fields): Fields => ({ ...CHAT, max_tokens: 120, response_format });
const json = (answer: Answer): unknown => {
  assert.deepEqual(only(answer).finishes, ['stop']);
  return JSON.parse(only(answer).text);
};
const schema = (fields: Fields): Fields => ({ type: 'json_schema', json_schema: { name: 'person', ...fields } });

const TOOL_CASES: readonly MatrixCase[] = [
  row(['tools', 'tools[].type', 'tools[].function', 'tools[].function.name'], 'are in the prompt', {
    body: { ...ONE, max_tokens: 4 },
    against: { ...ASKED, max_tokens: 4 },
    holds: longerPrompt,
  }),
  row(['tools[].function.description'], 'is in the prompt', {
    body: {
      ...ASKED,
      max_tokens: 4,
      tools: [{ type: 'function', function: { ...TOOLS[0].function, description: 'of a city by a river' } }],
    },
    against: { ...ONE, max_tokens: 4 },
    holds: longerPrompt,
  }),
  row(['tools[].function.parameters', 'tools[].function.strict'], 'are kept to where a call is demanded', {
    body: {
      ...ASKED,
      tools: [{ type: 'function', function: { ...TOOLS[0].function, strict: true } }],
      tool_choice: 'required',
      parallel_tool_calls: false,
    },
    holds: (answer) => assert.deepEqual(called(answer), ['weather']),
  }),
  row(['tool_choice', 'tool_choice=required'], 'calls', {
    body: { ...BOTH, tool_choice: 'required', parallel_tool_calls: false },
    holds: (answer) => assert.equal(called(answer).length, 1),
  }),
  ...['weather', 'clock'].map((name) =>
    row(['tool_choice.type', 'tool_choice.function', 'tool_choice.function.name'], `calls ${name}`, {
      body: { ...BOTH, tool_choice: named(name), parallel_tool_calls: false },
      holds: (answer: Answer) => assert.deepEqual(called(answer), [name]),
    }),
  ),
  row(['tool_choice=none'], 'calls nothing and answers as if there were no tools', {
    body: { ...BOTH, tool_choice: 'none', max_tokens: 12 },
    against: { ...ASKED, max_tokens: 12 },
    holds: sameText,
  }),
  row(['tool_choice=auto'], 'is what it is without a choice', {
    body: { ...ONE, tool_choice: 'auto', max_tokens: 60 },
    against: { ...ONE, max_tokens: 60 },
    holds: (answer, { plain }) => {
      const [one, same] = [only(answer), only(plain)];
      assert.deepEqual([one.text, one.calls.map(({ name }) => name)], [same.text, same.calls.map(({ name }) => name)]);
      assert.equal(one.calls.length > 0, one.finishes[0] === 'tool_calls');
      assert.ok(!one.text.includes('<tool_call>'), one.text);
    },
  }),
  row(['parallel_tool_calls'], 'lets several calls come, each with its own id', {
    body: ({ endOfTurn }) => ({
      ...ASKED,
      tools: [BARE],
      tool_choice: 'required',
      max_tokens: CALL_TOKENS,
      logit_bias: { [String(endOfTurn)]: -100 },
    }),
    holds: (answer) => {
      const { calls } = only(answer);
      assert.ok(calls.length >= 2, `${calls.length} calls`);
      assert.equal(new Set(calls.map(({ id }) => id)).size, calls.length);
      // The last one may have been cut by the length.
      for (const { name, arguments: given } of calls.slice(0, -1)) {
        assert.equal(name, 'go');
        assert.deepEqual(JSON.parse(given), {});
      }
    },
  }),
  row(['parallel_tool_calls'], 'false lets one come', {
    body: ({ endOfTurn }) => ({
      ...ASKED,
      tools: [BARE],
      tool_choice: 'required',
      parallel_tool_calls: false,
      max_tokens: CALL_TOKENS,
      logit_bias: { [String(endOfTurn)]: -100 },
    }),
    holds: (answer) => {
      assert.deepEqual(
        only(answer).calls.map(({ name }) => name),
        ['go'],
      );
    },
  }),
];

const FORMAT_CASES: readonly MatrixCase[] = [
  row(['response_format', 'response_format.type', 'response_format.type=text'], 'is what it is without', {
    body: format({ type: 'text' }),
    against: { ...CHAT, max_tokens: 120 },
    holds: sameText,
  }),
  row(['response_format.type=json_object'], 'answers with an object', {
    body: { ...format({ type: 'json_object' }), max_tokens: 200, messages: [user('Make up a person as JSON.')] },
    holds: (answer) => {
      // A model may go on until it is cut off; it is JSON as far as it goes.
      if (only(answer).finishes[0] === 'stop') assertValid({ type: 'object' }, json(answer));
      else assert.ok(only(answer).text.startsWith('{'));
    },
  }),
  row(['response_format.schema'], 'beside json_object is kept to', {
    body: format({ type: 'json_object', schema: PERSON_SCHEMA }),
    holds: (answer) => assertValid(PERSON_SCHEMA, json(answer)),
  }),
  row(
    [
      'response_format.type=json_schema',
      'response_format.json_schema',
      'response_format.json_schema.name',
      'response_format.json_schema.schema',
    ],
    'is kept to',
    {
      body: format(schema({ schema: PERSON_SCHEMA })),
      holds: (answer) => assertValid(PERSON_SCHEMA, json(answer)),
    },
  ),
  row(['response_format.json_schema.description', 'response_format.json_schema.strict'], 'are taken', {
    body: format(schema({ schema: PERSON_SCHEMA, strict: true, description: 'Somebody.' })),
    against: format(schema({ schema: PERSON_SCHEMA })),
    holds: sameText,
  }),
];

const REFUSALS = refusals('chat', CHAT, [
  ['tools[0].type', { tools: [{ type: 'custom', custom: { name: 'a' } }] }],
  ['tools[0].function', { tools: [{ type: 'function' }] }],
  ['tools[0].function.name', { tools: [{ type: 'function', function: { name: 'a b' } }] }],
  ['tools[1].function.name', { tools: [TOOLS[0], TOOLS[0]] }],
  ['tools[0].function.description', { tools: [{ type: 'function', function: { name: 'a', description: 7 } }] }],
  ['tools[0].function.strict', { tools: [{ type: 'function', function: { name: 'a', strict: 'yes' } }] }],
  [
    'tools[0].function.parameters.not',
    {
      tools: [{ type: 'function', function: { name: 'a', parameters: { type: 'object', not: {} } } }],
      tool_choice: 'required',
    },
    'tools[].function.parameters',
  ],
  ['tool_choice', { tool_choice: 'required' }],
  ['tool_choice.type', { tools: TOOLS, tool_choice: { type: 'custom', custom: { name: 'a' } } }],
  ['tool_choice.function', { tools: TOOLS, tool_choice: { type: 'function' } }],
  ['tool_choice.function.name', { tools: TOOLS, tool_choice: named('nobody') }],
  ['parallel_tool_calls', { parallel_tool_calls: 'no' }],
  ['response_format.type', { response_format: { type: 'xml' } }],
  ['response_format', { response_format: { type: 'json_object' }, tools: TOOLS }],
  ['response_format.json_schema', { response_format: { type: 'json_schema' } }],
  ['response_format.json_schema.name', { response_format: schema({ name: 'a b', schema: {} }) }],
  ['response_format.json_schema.schema', { response_format: schema({ schema: 7 }) }],
  ['response_format.json_schema.strict', { response_format: schema({ strict: 'yes' }) }],
  [
    'response_format.json_schema.schema.properties.list.uniqueItems',
    {
      response_format: schema({
        schema: { type: 'object', properties: { list: { type: 'array', uniqueItems: true } } },
      }),
    },
    'response_format.json_schema.schema',
  ],
  [
    'response_format.schema.not',
    { response_format: { type: 'json_object', schema: { not: { type: 'string' } } } },
    'response_format.schema',
  ],
]);

export const TOOL_AND_FORMAT_CASES: readonly MatrixCase[] = [...TOOL_CASES, ...FORMAT_CASES, ...REFUSALS];
