import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Output,
  OutputPipeline,
  type PipelineOptions,
} from '../../../node/backends/llama-cpp/output/output-pipeline.ts';
import { type Dialect, dialectOf, type ToolFormat } from '../../../node/backends/llama-cpp/prompt/dialect.ts';
import type { FinishReason } from '../../../protocols/inference/events.ts';
import fc from '../../support/fc.ts';

/** Every token is one byte, so that everything spans tokens in the worst way. */
const bytes = (tokens: readonly number[]): string => Buffer.from(tokens).toString('utf8');
const dialect = (tools: ToolFormat): Dialect => ({ ...dialectOf(null, []), tools });

interface Call {
  id: string;
  name: string;
  arguments: string;
}

interface Answer {
  text: string;
  reasoning: string;
  calls: Call[];
  finish: FinishReason | null;
}

function pipeline(options: Partial<PipelineOptions>): OutputPipeline {
  return new OutputPipeline(
    { detokenize: bytes, tagTokens: new Map([[1000, '[TOOL_CALLS]']]) },
    {
      stops: [],
      dialect: dialect('hermes'),
      parseTools: true,
      parallelTools: true,
      callIdSeed: 'request:0',
      startsInReasoning: false,
      ...options,
    },
  );
}

function add(answer: Answer, output: Output): void {
  answer.text += output.text;
  answer.reasoning += output.reasoning;
  answer.finish = output.finish;
  for (const { index, id, name, arguments: piece } of output.toolCalls) {
    const known = answer.calls[index];
    if (known !== undefined) {
      assert.equal(id, undefined, 'only the first part of a call names it');
      known.arguments += piece;
    } else {
      assert.equal(index, answer.calls.length);
      answer.calls.push({ id: id ?? '', name: name ?? '', arguments: piece });
    }
  }
}

/** The answer that a text makes, token by token up to `finish`. */
function read(text: string, options: Partial<PipelineOptions> = {}, reason: 'stop' | 'length' = 'stop'): Answer {
  return readTokens([...Buffer.from(text, 'utf8')], options, reason);
}

function readTokens(
  tokens: readonly number[],
  options: Partial<PipelineOptions>,
  reason: 'stop' | 'length' = 'stop',
): Answer {
  const answer: Answer = { text: '', reasoning: '', calls: [], finish: null };
  const stage = pipeline(options);
  for (const token of tokens) {
    add(answer, stage.push(token));
    if (answer.finish !== null) return answer;
  }
  add(answer, stage.end(reason));
  return answer;
}

const names = (answer: Answer): string[] => answer.calls.map((call) => call.name);
const values = (answer: Answer): unknown[] => answer.calls.map((call) => JSON.parse(call.arguments));

const WEATHER = '{"name": "get_weather", "arguments": {"city": "Paris"}}';

test('thoughts are told from the answer, and blanks around them dropped', () => {
  for (const text of ['<think>\nHm. Two?\n</think>\n\nFour.', ' \n<think>Hm. Two?</think>Four.']) {
    const { reasoning, text: said } = read(text);
    assert.deepEqual({ reasoning, said }, { reasoning: 'Hm. Two?', said: 'Four.' });
  }
});

test('a prompt that ends within a thought begins the answer with one', () => {
  const answer = read('Hm.\n</think>\nFour.', { startsInReasoning: true });
  assert.deepEqual([answer.reasoning, answer.text], ['Hm.', 'Four.']);
});

test('an empty thought is none, and a thought that never ends is all there is', () => {
  assert.deepEqual([read('<think>\n\n</think>\n\nFour.').reasoning, read('<think>a').reasoning], ['', 'a']);
  assert.deepEqual(read('<think>on and on </thi', {}, 'length'), {
    text: '',
    reasoning: 'on and on </thi',
    calls: [],
    finish: 'length',
  });
});

test('a thinking tag later in the answer is text', () => {
  const far = `${' '.repeat(70)}<think>a</think>`;
  assert.deepEqual([read(far).text, readPieces([far], {}).text], [far, far]);
  assert.equal(read('Use <think> for that.</think>').text, 'Use <think> for that.</think>');
});

test('tokens of thoughts are counted', () => {
  const stage = pipeline({});
  for (const byte of Buffer.from('<think>12345</think>abc')) stage.push(byte);
  assert.equal(stage.reasoningTokens, '12345</think>'.length);
});

test('stop strings are searched in the answer only', () => {
  const answer = read('<think>END</think>a<tool_call>{"name":"f","arguments":{"x":"END"}}</tool_call>b END c', {
    stops: ['END'],
  });
  assert.deepEqual([answer.reasoning, answer.text, values(answer)], ['END', 'ab ', [{ x: 'END' }]]);
  assert.equal(answer.finish, 'tool_calls');
  assert.equal(read('a END', { stops: ['END'] }).finish, 'stop');
});

test('calls of every format are read, one and several', () => {
  const two = [{ city: 'Paris', n: [1, { deep: '}]"' }] }, {}];
  const [first, second] = two.map((value) => JSON.stringify(value));
  const table: [ToolFormat, string][] = [
    [
      'hermes',
      `<tool_call>\n{"name": "a", "arguments": ${first}}\n</tool_call>\n<tool_call>{"arguments":${second}, "name":"b"}</tool_call>`,
    ],
    ['hermes', `<tool_call>{"name":"a","arguments":${first}}<tool_call>{"name":"b"}`],
    ['llama3', `{"name": "a", "parameters": ${first}}; {"name": "b", "parameters": ${second}}`],
    ['llama3', `{"type": "function", "name": "a", "parameters": ${first}}\n{"name": "b", "parameters": null}`],
    ['llama3', `<|python_tag|>{"name": "a", "parameters": ${first}};{"name": "b", "parameters": ${second}}`],
    [
      'mistral',
      `[TOOL_CALLS] [{"name": "a", "arguments": ${first}, "id": "123456789"}, {"name": "b", "arguments": ${second}}]`,
    ],
    ['mistral', `[TOOL_CALLS]a[ARGS]${first}[TOOL_CALLS]b[CALL_ID]x1[ARGS]${second}`],
    ['mistral-named', `[TOOL_CALLS]a${first}[TOOL_CALLS]b${second}`],
    ['generic', `[{"name": "a", "arguments": ${first}}, {"name": "b", "arguments": ${second}}]`],
    ['generic', `<tool_call>{"name": "a", "parameters": ${first}}</tool_call><tool_call>{"name":"b"}</tool_call>`],
    ['hermes', `<tool_call>{"name":"a","arguments":${JSON.stringify(first)}}</tool_call><tool_call>{"name":"b"}`],
  ];
  for (const [tools, text] of table) {
    const answer = read(text, { dialect: dialect(tools) });
    assert.deepEqual([names(answer), values(answer), answer.text], [['a', 'b'], two, ''], text);
    assert.equal(answer.finish, 'tool_calls', text);
  }
});

test('text around calls stays, without the blanks that set them off', () => {
  const answer = read(`Let me look.\n\n<tool_call>\n${WEATHER}\n</tool_call>\nDone.`);
  assert.deepEqual([answer.text, names(answer)], ['Let me look.\nDone.', ['get_weather']]);
  assert.equal(read(`\n\n<tool_call>${WEATHER}</tool_call>\n`).text, '');
});

test('ids of calls derive from the seed and the index alone', () => {
  const text = `<tool_call>${WEATHER}</tool_call><tool_call>${WEATHER}</tool_call>`;
  const [first, second] = read(text).calls;
  assert.match(first?.id ?? '', /^call_[0-9a-f]{24}$/);
  assert.notEqual(first?.id, second?.id);
  assert.deepEqual(read(`Well. ${text}`).calls, read(text).calls);
  assert.notEqual(read(text, { callIdSeed: 'other' }).calls[0]?.id, first?.id);
});

test('without parallel calls the answer ends after the first', () => {
  const answer = read(`<tool_call>${WEATHER}</tool_call><tool_call>${WEATHER}</tool_call>`, { parallelTools: false });
  assert.deepEqual([answer.calls.length, answer.finish, answer.text], [1, 'tool_calls', '']);
});

test('what is not parsed is text', () => {
  const text = `<tool_call>${WEATHER}</tool_call>`;
  assert.deepEqual(read(`<think>a</think>${text}`, { parseTools: false }).text, text);
  assert.deepEqual(read(`<think>a</think>${text}`, { dialect: null }).text, `<think>a</think>${text}`);
});

test('what only looks like a call is text to the last character', () => {
  const table: [ToolFormat, string][] = [
    ['hermes', 'Write <tool_call> to call.'],
    ['hermes', '<tool_call>{"name": 3, "arguments": {}}</tool_call>'],
    ['hermes', '<tool_call>{"arguments": {}}</tool_call>'],
    ['hermes', '<tool_call>{"name": "a", "arguments": [1]}</tool_call>'],
    ['hermes', '<tool_call>{"name": "a", "name": "b", "arguments": {}}</tool_call>'],
    ['hermes', '<tool_call>{"name": "a"'],
    ['hermes', '<tool_ca'],
    ['llama3', `${' '.repeat(70)}{"name": "known", "parameters": {}}`],
    ['llama3', '{"answer": 42}'],
    ['llama3', '{"name": "unknown", "parameters": {}}'],
    ['llama3', 'See {"name": "known", "parameters": {}}'],
    ['mistral', '[TOOL_CALLS] [1, 2]'],
    ['mistral', '[TOOL_CALLS][]'],
    ['generic', '[1, 2]'],
    ['generic', '{"a": 1} and <tool_call>'],
  ];
  for (const [tools, text] of table) {
    const answer = read(text, { dialect: dialect(tools), toolNames: ['known'] });
    assert.deepEqual(answer, { text, reasoning: '', calls: [], finish: 'stop' }, text);
  }
});

test('a call within what looked like one is found', () => {
  const answer = read(`<tool_call> or <tool_call>${WEATHER}</tool_call>`);
  assert.deepEqual([answer.text, names(answer)], ['<tool_call> or', ['get_weather']]);
});

test('raw line breaks in arguments come out as JSON', () => {
  const answer = read('<tool_call>{"name":"a","arguments":{"code":"one\n\ttwo"}}</tool_call>');
  assert.deepEqual(values(answer), [{ code: 'one\n\ttwo' }]);
});

test('a call that breaks off after it began is no reason to stop for', () => {
  const broken = read('<tool_call>{"name":"a","arguments":{"x": oops}}</tool_call>');
  assert.deepEqual([broken.finish, broken.text], ['stop', 'oops}}</tool_call>']);
  assert.deepEqual(
    broken.calls.map((call) => call.arguments),
    ['{"x": '],
  );
  assert.equal(read('<tool_call>{"name":"a","arguments":{"x": 1', {}, 'length').finish, 'length');
});

test('arguments come out while they are written', () => {
  const stage = pipeline({});
  const early = [...Buffer.from('<tool_call>{"name":"a","arguments":{"long":"aaaa')].map((byte) => stage.push(byte));
  assert.equal(early.flatMap((output) => output.toolCalls.map((call) => call.arguments)).join(''), '{"long":"aaaa');
});

test('what may be a call is not held for ever', () => {
  const stage = pipeline({});
  let shown = stage.push(0x20).text;
  for (const byte of Buffer.from(`<tool_call>{"x":"${'a'.repeat(40_000)}`)) shown += stage.push(byte).text;
  assert.ok(shown.length >= 16_000, 'comes out while it runs');
  const blank = pipeline({});
  const blanks = Array.from({ length: 500 }, () => blank.push(0x20).text).join('');
  assert.ok(blanks.length > 400);
});

test('control tokens that are tags are read, and shown where nothing is parsed', () => {
  const tokens = [1000, ...Buffer.from('[{"name": "a", "arguments": {}}]')];
  assert.deepEqual(names(readTokens(tokens, { dialect: dialect('mistral') })), ['a']);
  assert.equal(
    readTokens(tokens, { dialect: dialect('mistral'), parseTools: false }).text.slice(0, 13),
    '[TOOL_CALLS][',
  );
});

/** Texts of all that the stages look for, well and badly formed. */
const piece = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.constantFrom('<think>', '</think>', '<tool_call>', '</tool_call>', '[TOOL_CALLS]', '<|python_tag|>'),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(WEATHER, '{"name":"a","parameters":{"x":[1,2.5e3,"é\\n"]}}', 'a[ARGS]{"b":null}'),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      '{',
      '}',
      '[',
      ']',
      ',',
      ';',
      '"',
      '\\',
      ' ',
      ' '.repeat(70),
      '\n',
      '🦉',
      'END',
      'E',
      'x',
    ),
  },
  { weight: 1, arbitrary: fc.string({ maxLength: 6 }) },
);
const answerText = fc.array(piece, { maxLength: 10 }).map((pieces) => pieces.join('').toWellFormed());
const options = fc.record({
  dialect: fc.constantFrom<ToolFormat>('hermes', 'llama3', 'mistral', 'mistral-named', 'generic').map(dialect),
  stops: fc.constantFrom<string[]>([], ['END'], ['}}', 'x']),
  parseTools: fc.boolean(),
  parallelTools: fc.boolean(),
  startsInReasoning: fc.boolean(),
});

/** Tokens of several characters each: token n is the n-th of `pieces`. */
function readPieces(pieces: readonly string[], given: Partial<PipelineOptions>): Answer {
  const detokenize = (tokens: readonly number[]): string => tokens.map((token) => pieces[token] ?? '').join('');
  const stage = new OutputPipeline({ detokenize, tagTokens: new Map() }, { ...defaults, ...given });
  const answer: Answer = { text: '', reasoning: '', calls: [], finish: null };
  for (let token = 0; token < pieces.length && answer.finish === null; token += 1) add(answer, stage.push(token));
  if (answer.finish === null) add(answer, stage.end('stop'));
  return answer;
}

const defaults: PipelineOptions = {
  stops: [],
  dialect: dialect('hermes'),
  parseTools: true,
  parallelTools: true,
  callIdSeed: 'request:0',
  startsInReasoning: false,
};

test('however the text is cut into tokens, the answer is the same', () => {
  fc.assert(
    fc.property(answerText, options, fc.array(fc.nat(200), { maxLength: 12 }), (text, given, cuts) => {
      const characters = [...text];
      const at = [...new Set(cuts.map((cut) => cut % (characters.length + 1)))].toSorted((a, b) => a - b);
      const pieces = [0, ...at].map((from, index) => characters.slice(from, at[index]).join(''));
      assert.deepEqual(readPieces(pieces, given), readPieces(characters, given));
      assert.deepEqual(readPieces([text], given), readPieces(characters, given));
    }),
  );
});

test('a replay with its output dropped goes on as the unbroken run', () => {
  fc.assert(
    fc.property(answerText, options, fc.nat(120), (text, given, cut) => {
      const tokens = [...Buffer.from(text)];
      const whole = readTokens(tokens, given);
      const stage = pipeline(given);
      const answer: Answer = { text: '', reasoning: '', calls: [], finish: null };
      for (const token of tokens.slice(0, cut)) if (answer.finish === null) add(answer, stage.push(token));
      const again = pipeline(given);
      for (const token of tokens.slice(0, cut)) again.push(token);
      for (const token of tokens.slice(cut)) if (answer.finish === null) add(answer, again.push(token));
      if (answer.finish === null) add(answer, again.end('stop'));
      assert.deepEqual(answer, whole);
    }),
  );
});

test('arguments of complete calls are JSON objects, and without calls nothing is lost', () => {
  fc.assert(
    fc.property(answerText, options, (text, given) => {
      const answer = read(text, { ...given, stops: [] });
      if (answer.finish === 'tool_calls') assert.ok(answer.calls.some((call) => isObjectText(call.arguments)));
      if (answer.calls.length === 0 && !text.includes('think>')) {
        assert.equal(answer.text + answer.reasoning, given.startsInReasoning ? text.trimStart() : text);
      }
    }),
  );
});

function isObjectText(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value);
  } catch {
    return false;
  }
}
