import assert from 'node:assert/strict';
import { isIPv4 } from 'node:net';
import { after, test } from 'node:test';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { getLlama, type LlamaGrammar, LlamaLogLevel } from 'node-llama-cpp';
import { type GrammarOptions, grammarOf } from '../../../node/backends/llama-cpp/grammar/grammar.ts';
import { OutputPipeline } from '../../../node/backends/llama-cpp/output/output-pipeline.ts';
import { type Dialect, dialectOf, type ToolFormat } from '../../../node/backends/llama-cpp/prompt/dialect.ts';
import type { Constraint, ToolDefinition } from '../../../node/backends/llama-cpp/request/generation-request.ts';
import { MeshError } from '../../../node/common/errors.ts';
import fc from '../../support/fc.ts';
import { Gbnf } from '../../support/gbnf.ts';
import { enforceableSchema } from '../../support/json-schemas.ts';

const llama = await getLlama({
  gpu: false,
  build: 'never',
  skipDownload: true,
  progressLogs: false,
  logLevel: LlamaLogLevel.error,
});
after(() => llama.dispose());

const chatml = dialectOf(null, []);
const plain: GrammarOptions = { tools: [], dialect: chatml, parallelTools: true, startsInReasoning: false };

function gbnf(constraint: Constraint, options: Partial<GrammarOptions> = {}): string {
  return grammarOf(constraint, { ...plain, ...options }) ?? assert.fail('nothing to enforce');
}

const schemaGbnf = (schema: object): string => gbnf({ type: 'json-schema', schema: { ...schema } });

/** llama.cpp's own opinion; it is not part of node-llama-cpp's public types. */
async function compiled(grammar: string): Promise<(text: string) => boolean> {
  const native: LlamaGrammar & { _testText?: (text: string) => boolean } = await llama.createGrammar({ grammar });
  return (text) => native._testText?.(text) ?? assert.fail('node-llama-cpp has no test of texts any more');
}

/** Like Math.random, from a seed. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    const mixed = Math.imul(state ^ (state >>> 15), state | 1);
    return ((mixed ^ (mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61))) >>> 0) / 2 ** 32;
  };
}

const FORMATS: Readonly<Record<string, (text: string) => boolean>> = {
  date: (text) => /^\d{4}-\d\d-\d\d$/.test(text) && new Date(`${text}T00:00:00Z`).toISOString().startsWith(text),
  time: (text) =>
    /^\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/.test(text) && !Number.isNaN(Date.parse(`2020-01-01T${text}`)),
  'date-time': (text) => !Number.isNaN(Date.parse(text)) && text.includes('T'),
  uuid: (text) => /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/i.test(text),
  ipv4: isIPv4,
  email: (text) => /^[^@\s.][^@\s]*@[^@\s]+\.[a-z]+$/.test(text) && !text.includes('..'),
  hostname: (text) =>
    text.length < 254 && text.split('.').every((label) => /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(label)),
  uri: (text) => URL.canParse(text),
};

function validator(schema: object): (value: unknown) => boolean {
  return new Ajv2020({ strict: false, formats: FORMATS }).compile(schema);
}

test('whatever the grammar of a schema allows is valid, and llama.cpp reads it the same way', async () => {
  await fc.assert(
    fc.asyncProperty(enforceableSchema, fc.nat(), async (schema, seed) => {
      const text = schemaGbnf(schema);
      const random = randomOf(seed);
      const [grammar, matches, isValid] = [new Gbnf(text), await compiled(text), validator(schema)];
      for (let sample = 0; sample < 4; sample += 1) {
        const written = grammar.sample(random);
        assert.ok(isValid(JSON.parse(written)), `${written} is no ${JSON.stringify(schema)}`);
        assert.ok(matches(written), `llama.cpp refuses ${written} for ${text}`);
      }
    }),
    { numRuns: 120 },
  );
});

test('every number between the bounds can be written, and none beyond them', async () => {
  const integers = [
    [0, 9],
    [-7, 12],
    [5, 5],
    [98, 101],
    [-200, -1],
    [1, 399],
    [10, 10],
    [-1, 0],
  ] as const;
  for (const [minimum, maximum] of integers) {
    const matches = await compiled(schemaGbnf({ type: 'integer', minimum, maximum }));
    for (let value = -405; value <= 405; value += 1) {
      assert.equal(matches(String(value)), value >= minimum && value <= maximum, `${value} in ${minimum}..${maximum}`);
    }
  }
  const decimals = [
    [0, 1],
    [-0.5, 0.25],
    [0.3, 0.35],
    [-2.75, -1.5],
    [9.99, 100],
    [0, 0],
  ] as const;
  const values = [
    '0',
    '0.0',
    '1',
    '1.0',
    '1.01',
    '-0.5',
    '-0.51',
    '0.25',
    '0.251',
    '0.3',
    '0.29',
    '0.349',
    '0.35',
    '0.36',
    '-2',
    '-1.5',
    '-2.75',
    '-2.76',
    '-1.49',
    '9.99',
    '9.989',
    '50.123',
    '100',
    '100.1',
    '99.999',
  ];
  for (const [minimum, maximum] of decimals) {
    const matches = await compiled(schemaGbnf({ type: 'number', minimum, maximum }));
    for (const value of values) {
      assert.equal(
        matches(value),
        Number(value) >= minimum && Number(value) <= maximum,
        `${value} in ${minimum}..${maximum}`,
      );
    }
  }
});

test('members come in the order of the schema, optional ones may be missing, others only where they may be', async () => {
  const properties = { a: { type: 'integer' }, b: { type: 'integer' }, c: { type: 'integer' } };
  const open = await compiled(
    schemaGbnf({ type: 'object', properties, required: ['b'], additionalProperties: { type: 'null' } }),
  );
  const closed = await compiled(schemaGbnf({ type: 'object', properties, required: ['b'] }));
  for (const text of ['{"a":1,"b":2,"c":3}', '{"b": 2}', '{\n  "a": 1,\n  "b": 2\n}', '{"b":2,"c":3}']) {
    assert.ok(open(text) && closed(text), text);
  }
  for (const text of [
    '{"a":1}',
    '{"b":2,"a":1}',
    '{"b":2,}',
    '{}',
    '{"b":2,"b":3}',
    '{"b":2}x',
    '{"b":2'.concat(' '.repeat(40), '}'),
  ]) {
    assert.ok(!open(text) && !closed(text), text);
  }
  for (const text of ['{"b":2,"d":null}', '{"b":2,"bb":null}', '{"b":2,"":null}'])
    assert.ok(open(text) && !closed(text), text);
  for (const text of ['{"b":2,"d":1}', '{"b":2,"c":null}']) assert.ok(!open(text), text);
});

test('lengths count characters, however long, and escapes as one', async () => {
  const matches = await compiled(schemaGbnf({ type: 'string', minLength: 2, maxLength: 3 }));
  for (const text of ['"ab"', '"abc"', '"🦉é"', '"\\n\\u00e9x"']) assert.ok(matches(text), text);
  for (const text of ['"a"', '"abcd"', '"\\n"', '"🦉"', '"\\ud83d\\ude00"']) assert.ok(!matches(text), text);
  for (const maxLength of [499, 500, 1000, 1234]) {
    const long = await compiled(schemaGbnf({ type: 'string', maxLength }));
    for (const length of [0, 1, 499, 500, 501, 999, 1000, 1001, 1234, 1235]) {
      assert.equal(long(`"${'x'.repeat(length)}"`), length <= maxLength, `${length} of ${maxLength}`);
    }
  }
});

const NOTED: ToolDefinition[] = [
  { name: 'note', parameters: { type: 'object', properties: { text: { type: 'string' } }, required: ['text'] } },
  { name: 'stop_it' },
  {
    name: 'add',
    parameters: {
      type: 'object',
      properties: { a: { $ref: '#/$defs/n' } },
      required: ['a'],
      $defs: { n: { type: 'integer', minimum: 1, maximum: 9 } },
    },
  },
];
const dialectFor = (tools: ToolFormat): Dialect => ({ ...chatml, tools });

/** What the output pipeline makes of an answer. */
function understood(
  text: string,
  dialect: Dialect,
): { calls: { name: string; value: unknown }[]; rest: string; finish: unknown } {
  const pipeline = new OutputPipeline(
    { detokenize: () => text, tagTokens: new Map() },
    { stops: [], dialect, parseTools: true, parallelTools: true, callIdSeed: '', startsInReasoning: false },
  );
  const [first, last] = [pipeline.push(0), pipeline.end('stop')];
  const texts = new Map<number, { name: string; text: string }>();
  for (const { index, name, arguments: piece } of [...first.toolCalls, ...last.toolCalls]) {
    const known = texts.get(index);
    texts.set(index, { name: known?.name ?? name ?? '', text: (known?.text ?? '') + piece });
  }
  const calls = [...texts.values()].map((call) => ({ name: call.name, value: JSON.parse(call.text) }));
  return { calls, rest: first.text + last.text, finish: last.finish };
}

test('a forced call is one that the pipeline reads, in every dialect', async () => {
  const names = new Set(NOTED.map((tool) => tool.name));
  for (const format of ['hermes', 'llama3', 'mistral', 'mistral-named', 'generic'] as const) {
    const dialect = dialectFor(format);
    for (const [name, parallelTools] of [
      [null, true],
      [null, false],
      ['add', false],
    ] as const) {
      const text = gbnf({ type: 'tool-call', name }, { tools: NOTED, dialect, parallelTools });
      const [grammar, matches, random] = [new Gbnf(text), await compiled(text), randomOf(7)];
      for (let sample = 0; sample < 8; sample += 1) {
        const written = grammar.sample(random);
        const { calls, rest, finish } = understood(written, dialect);
        assert.ok(matches(written), `${format}: ${written}`);
        assert.deepEqual([rest, finish], ['', 'tool_calls'], `${format}: ${written}`);
        assert.ok(calls.length >= 1 && (parallelTools || calls.length === 1), written);
        assert.ok(
          calls.every((call) => (name === null ? names.has(call.name) : call.name === name)),
          written,
        );
        for (const call of calls.filter(({ name: called }) => called === 'add')) {
          assert.ok(validator(Object(NOTED[2]?.parameters))(call.value), written);
        }
      }
    }
  }
});

test('a call of a tool that is not there is refused', () => {
  assert.throws(
    () => gbnf({ type: 'tool-call', name: 'missing' }, { tools: NOTED }),
    (error) => error instanceof MeshError && error.code === 'invalid_request' && error.facts.param === 'tool_choice',
  );
});

test('a model that thinks may do so first, and must where the prompt ends within a thought', async () => {
  const dialect = dialectOf('<think> </think>', []);
  const may = await compiled(gbnf({ type: 'json' }, { dialect }));
  for (const text of ['{"a": 1}', '<think>x < y </thin </think>\n\n{"a": [true, {}]}', '<think></think>{}'])
    assert.ok(may(text), text);
  for (const text of ['x{}', '<think>{}', '<think>a</think>b</think>{}', '[1]', '"a"']) assert.ok(!may(text), text);
  const must = await compiled(gbnf({ type: 'json' }, { dialect, startsInReasoning: true }));
  assert.ok(must('so <<</</think> {}') && !must('{}') && !must('a</think></think>{}'));
});

test('nothing is enforced where nothing is asked for', () => {
  assert.equal(grammarOf({ type: 'none' }, plain), null);
});
