import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Ajv2020 } from 'ajv/dist/2020.js';
import type { LlamaEngine } from '../../node/backends/llama-cpp/engine.ts';
import {
  DEMO,
  demoEngine,
  inferenceRequest,
  neverAborted,
  type WholeAnswer,
  wholeAnswer,
} from '../support/demo-engine.ts';
import fc from '../support/fc.ts';
import { enforceableSchema } from '../support/json-schemas.ts';

const SCHEMAS = 200;
const PARALLEL = 4;

/** Sampled at temperature 1, where a model left alone would write anything. */
function wild(engine: LlamaEngine, question: string, seed: number, fields: object): Promise<WholeAnswer> {
  const messages = [{ role: 'user', content: question }];
  const body = { model: DEMO, messages, temperature: 1, seed, max_tokens: 150, ...fields };
  return wholeAnswer(engine.infer(inferenceRequest('chat', body), { signal: neverAborted }));
}

/** All of a choice's tool calls, their parts joined. */
function callsOf({ choices: [choice] }: WholeAnswer): { name: string; arguments: string }[] {
  const calls: { name: string; arguments: string }[] = [];
  for (const { index, name, arguments: piece } of choice?.chunks.flatMap(({ toolCalls = [] }) => toolCalls) ?? []) {
    const known = calls[index];
    if (known === undefined) calls[index] = { name: name ?? '', arguments: piece };
    else known.arguments += piece;
  }
  return calls;
}

test('an engine under constraints', async (t) => {
  const engine = demoEngine(t, { parallel: PARALLEL });

  await t.test(`every answer that ends is valid: ${SCHEMAS} random schemas`, async (sub) => {
    const schemas = fc.sample(enforceableSchema, SCHEMAS);
    const queue = [...schemas.entries()];
    const ends = { stop: 0, length: 0 };
    const worker = async (): Promise<void> => {
      for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
        const [seed, schema] = next;
        const format = { type: 'json_schema', json_schema: { name: 'random', strict: true, schema } };
        const answer = await wild(engine, 'Tell me about Hugo.', seed, { response_format: format });
        const [finish] = answer.end.finishReasons;
        if (finish !== 'stop') {
          ends.length += 1;
          continue;
        }
        ends.stop += 1;
        const isValid = new Ajv2020({ strict: false, validateFormats: false }).compile(schema);
        assert.ok(isValid(JSON.parse(answer.text)), `${answer.text} is no ${JSON.stringify(schema)}`);
      }
    };
    await Promise.all(Array.from({ length: PARALLEL }, worker));
    sub.diagnostic(`${ends.stop} answers ended and are valid, ${ends.length} were cut at their length`);
    assert.ok(ends.stop >= SCHEMAS / 2, 'most come to an end');
  });

  await t.test('any JSON object is one', async () => {
    const format = { response_format: { type: 'json_object' } };
    for (let seed = 0; seed < 8; seed += 1) {
      const { text, end } = await wild(engine, 'Answer as JSON.', seed, format);
      if (end.finishReasons[0] === 'stop') assert.equal(typeof JSON.parse(text), 'object', text);
      assert.ok(text.startsWith('{'), text);
    }
  });

  await t.test('a demanded tool is called, whatever the model would rather say', async () => {
    const limits = { type: 'integer', minimum: 1, maximum: 9 };
    const tools = [
      {
        type: 'function',
        function: {
          name: 'add',
          parameters: { type: 'object', properties: { a: limits, b: limits }, required: ['a', 'b'] },
        },
      },
      { type: 'function', function: { name: 'now' } },
    ];
    const named = { type: 'function', function: { name: 'add' } };
    for (let seed = 0; seed < 4; seed += 1) {
      const answer = await wild(engine, 'Tell me a story.', seed, {
        tools,
        tool_choice: named,
        parallel_tool_calls: false,
      });
      const [call, ...others] = callsOf(answer);
      assert.deepEqual([answer.end.finishReasons, others, answer.text, call?.name], [['tool_calls'], [], '', 'add']);
      const { a, b } = JSON.parse(call?.arguments ?? '');
      assert.ok(a >= 1 && a <= 9 && b >= 1 && b <= 9, call?.arguments);
      const any = await wild(engine, 'Tell me a story.', seed, {
        tools,
        tool_choice: 'required',
        parallel_tool_calls: false,
      });
      assert.ok(['add', 'now'].includes(callsOf(any)[0]?.name ?? ''));
    }
  });
});
