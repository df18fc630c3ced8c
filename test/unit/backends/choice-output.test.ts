import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChoiceOutput } from '../../../node/backends/llama-cpp/child/choice-output.ts';
import type { StepOutput } from '../../../node/backends/llama-cpp/ipc.ts';
import { OutputPipeline } from '../../../node/backends/llama-cpp/output/output-pipeline.ts';
import { dialectOf } from '../../../node/backends/llama-cpp/prompt/dialect.ts';
import type { ToolCallDelta } from '../../../protocols/inference/events.ts';
import fc from '../../support/fc.ts';

const END = -1;
/** A token is one of these; the last two are halves of a character. */
const PIECES = [
  'a',
  'b',
  'ab',
  '<',
  'think>',
  '/think>',
  'tool_call>',
  '/tool_call>',
  '{"name": "f", "arguments": {}}',
];
const CUT = [PIECES.length, PIECES.length + 1] as const;
const OWL = '\u00e9';

function detokenize(tokens: readonly number[]): string {
  const bytes = tokens.map((token) => {
    if (token === CUT[0]) return Buffer.from(OWL).subarray(0, 1);
    return token === CUT[1] ? Buffer.from(OWL).subarray(1) : Buffer.from(PIECES[token] ?? '');
  });
  return Buffer.concat(bytes).toString();
}

interface Case {
  readonly stops: readonly string[];
  readonly parseTools: boolean;
  readonly parallelTools: boolean;
  readonly maxTokens: number;
  readonly startsInReasoning: boolean;
}

function newOutput({ maxTokens, ...options }: Case): ChoiceOutput {
  const pipeline = new OutputPipeline(
    { detokenize, tagTokens: new Map() },
    { ...options, dialect: dialectOf('tools <think> <tool_call>', []), callIdSeed: 'seed' },
  );
  return new ChoiceOutput({ pipeline, endsAnswer: (token) => token === END }, { maxTokens, echo: 'echo ' });
}

type Report = Omit<StepOutput, 'id' | 'end'>;

/** What each token released, up to the one that ended it. */
function reports(output: ChoiceOutput, tokens: readonly number[]): Report[] {
  const all: Report[] = [];
  for (const token of tokens) {
    if (output.finish !== null) break;
    output.push(token, null);
    const report = output.report();
    if (report !== null) all.push(report);
  }
  return all;
}

function joined(parts: readonly Report[]): unknown {
  const calls = new Map<number, ToolCallDelta>();
  for (const part of parts.flatMap(({ toolCalls = [] }) => toolCalls)) {
    const before = calls.get(part.index);
    calls.set(part.index, { ...before, ...part, arguments: (before?.arguments ?? '') + part.arguments });
  }
  return {
    tokens: parts.flatMap(({ tokens }) => [...tokens]),
    text: parts.map(({ text }) => text).join(''),
    reasoning: parts.map(({ reasoning = '' }) => reasoning).join(''),
    calls: [...calls.values()],
  };
}

test('an answer replayed up to any token goes on to release what the unbroken one does, and counts alike', () => {
  const options = fc.record({
    stops: fc.array(fc.constantFrom('ab', 'ba<', `${OWL}a`, 'a<t'), { maxLength: 2 }),
    parseTools: fc.boolean(),
    parallelTools: fc.boolean(),
    maxTokens: fc.integer({ min: 1, max: 30 }),
    startsInReasoning: fc.boolean(),
  });
  const tokens = fc
    .array(fc.nat({ max: PIECES.length + 1 }), { maxLength: 30 })
    .map((generated) => [...generated, END]);
  fc.assert(
    fc.property(options, tokens, fc.nat(), (chosen, sampled, at) => {
      const whole = newOutput(chosen);
      const parts = reports(whole, sampled);
      for (const part of parts.slice(0, -1))
        assert.equal(part.tokens.length, 1, 'a report without a token is the last');
      const cut = at % (whole.generated.length + 1);
      const other = newOutput(chosen);
      other.replay(sampled.slice(0, cut));
      const rest = reports(other, sampled.slice(cut));
      assert.deepEqual(joined([...parts.slice(0, cut), ...rest]), joined(parts));
      assert.equal(other.finish, whole.finish);
      assert.equal(other.reasoningTokens, whole.reasoningTokens);
      assert.deepEqual(other.generated, whole.generated);
    }),
  );
});

test('the prompt that is echoed comes with the first token, its scores too', () => {
  const output = newOutput({
    stops: [],
    parseTools: false,
    parallelTools: true,
    maxTokens: 2,
    startsInReasoning: false,
  });
  assert.equal(output.report(), null);
  output.promptScored([null]);
  output.push(0, null);
  assert.deepEqual(output.report(), { tokens: [0], text: 'echo a', promptLogprobs: [null] });
  assert.equal(output.report(), null);
  output.push(0, null);
  assert.deepEqual([output.report(), output.finish], [{ tokens: [0], text: 'a' }, 'length']);
});
