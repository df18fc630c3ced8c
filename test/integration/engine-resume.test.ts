import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { demoModelPath } from '../../node/backends/llama-cpp/demo/demo-model.ts';
import type { LlamaEngine } from '../../node/backends/llama-cpp/engine.ts';
import { MeshError } from '../../node/common/errors.ts';
import type { ChunkEvent, InferenceRequest, Resume } from '../../protocols/inference/events.ts';
import {
  chatRequest,
  DEMO,
  demoEngine,
  inferenceRequest,
  ModelList,
  modelFile,
  neverAborted,
  resumeAt,
  type WholeAnswer,
  wholeAnswer,
} from '../support/demo-engine.ts';

const ARTIFACT = 'd'.repeat(64);
const SAMPLED = { temperature: 1, seed: 7, top_k: 0 };

const TOOLS = ['get_weather', 'get_time'].map((name) => ({
  type: 'function',
  function: {
    name,
    description: `Calls ${name}.`,
    parameters: { type: 'object', properties: { city: { type: 'string', maxLength: 12 } }, required: ['city'] },
  },
}));

const CASES: Readonly<Record<string, InferenceRequest>> = {
  'a greedy answer': chatRequest('What is meshnode?'),
  'a sampled answer': chatRequest('Tell me a story about an owl named Hugo.', { ...SAMPLED, max_tokens: 40 }),
  'an answer with penalties and biases': chatRequest('Tell me a story.', {
    ...SAMPLED,
    max_tokens: 30,
    frequency_penalty: 1.5,
    presence_penalty: -0.5,
    logit_bias: { 300: 5, 400: -100 },
  }),
  'an answer that a stop string ends': chatRequest('Count to 9.', { stop: [', 7', 'never'] }),
  'an answer that a limit ends within a possible stop string': chatRequest('Count to 9.', {
    stop: ['1, 2, 3, 4, 9'],
    max_tokens: 9,
  }),
  'a JSON object that a grammar enforces': chatRequest('Who is Hugo?', {
    max_tokens: 60,
    response_format: {
      type: 'json_schema',
      json_schema: {
        name: 'person',
        schema: {
          type: 'object',
          properties: {
            name: { type: 'string', maxLength: 10 },
            age: { type: 'integer' },
            tags: { type: 'array', items: { enum: ['a', 'é🦉'] }, minItems: 2, maxItems: 3 },
          },
          required: ['name', 'age', 'tags'],
          additionalProperties: false,
        },
      },
    },
  }),
  'tool calls that a grammar enforces': chatRequest('How is the weather in Rome?', {
    max_tokens: 80,
    tools: TOOLS,
    tool_choice: 'required',
  }),
  'an answer of pieces of characters': inferenceRequest('completion', {
    model: DEMO,
    prompt: '🦉é🦉é',
    max_tokens: 24,
    temperature: 2,
    top_k: 0,
    seed: 5,
    echo: true,
  }),
};

/** An engine whose file has a digest, as it needs to be asked to go on. */
function twin(t: Parameters<typeof demoEngine>[0], options: Parameters<typeof demoEngine>[1] = {}): LlamaEngine {
  const file = { ...modelFile(DEMO, demoModelPath()), digest: ARTIFACT };
  return demoEngine(t, options, new ModelList([file]));
}

function infer(engine: LlamaEngine, request: InferenceRequest, resume?: Resume): Promise<WholeAnswer> {
  const asked = resume === undefined ? request : { ...request, resume };
  return wholeAnswer(engine.infer(asked, { signal: neverAborted }), resume);
}

/** What had gone out with the first `count` tokens. */
function chunksBefore({ choices }: WholeAnswer, count: number): ChunkEvent[] {
  return (choices[0]?.chunks ?? []).filter((chunk) => chunk.index + chunk.tokens.length <= count);
}

function textBefore(answer: WholeAnswer, count: number): string {
  return chunksBefore(answer, count)
    .map(({ text }) => text)
    .join('');
}

/** Id, name and arguments of each tool call. */
function joinedCalls(chunks: readonly ChunkEvent[]): Record<string, string>[] {
  const calls: Record<string, string>[] = [];
  for (const { index, id = '', name = '', arguments: part } of chunks.flatMap(({ toolCalls = [] }) => toolCalls)) {
    const before = calls[index] ?? { id: '', name: '', arguments: '' };
    calls[index] = { id: before.id + id, name: before.name + name, arguments: before.arguments + part };
  }
  return calls;
}

/** A sample that lies on the edge between two tokens may fall to the other side: prompts round otherwise than steps. */
const LEAST_EQUAL_SHARE = 0.75;
/** Of one answer, evenly spread: each takes an answer. */
const MOST_CUTS = 24;

test('an answer broken off at any token', async (t) => {
  const engine = twin(t, { parallel: 2 });
  const other = twin(t, { parallel: 3 });
  for (const [name, request] of Object.entries(CASES)) {
    await t.test(`${name} goes on exactly where it was`, async () => {
      const whole = await infer(engine, request);
      const { tokens, text, end, accepted } = whole;
      // Steps that nobody has read yet are joined: between these nobody can be cut off.
      const all = (whole.choices[0]?.chunks ?? []).map(({ index }) => index).filter((cut) => cut < tokens.length);
      const cuts = all.filter((_, at) => at % Math.ceil(all.length / MOST_CUTS) === 0);
      assert.ok(cuts.length > 5, `${cuts.length} cuts`);
      let equal = 0;
      for (const cut of cuts) {
        const rest = await infer(other, request, resumeAt(whole, [cut]));
        assert.equal(rest.accepted.promptDigest, accepted.promptDigest);
        assert.equal(rest.end.usage.promptTokens, end.usage.promptTokens);
        assert.equal(rest.end.usage.completionTokens, cut + rest.tokens.length);
        if (!isDeepStrictEqual(rest.tokens, tokens.slice(cut))) continue;
        equal += 1;
        assert.equal(textBefore(whole, cut) + rest.text, text, `text after ${cut}`);
        assert.deepEqual(
          joinedCalls([...chunksBefore(whole, cut), ...(rest.choices[0]?.chunks ?? [])]),
          joinedCalls(whole.choices[0]?.chunks ?? []),
        );
        assert.deepEqual(rest.end.finishReasons, end.finishReasons);
      }
      const asked = JSON.parse(Buffer.from(request.body).toString()) as { temperature: number; top_k?: number };
      // Of a whole flat vocabulary nearly every token lies on the edge to another.
      const share = asked.top_k === 0 ? 0 : LEAST_EQUAL_SHARE;
      const least = asked.temperature === 0 ? cuts.length : Math.max(1, cuts.length * share);
      assert.ok(equal >= least, `${equal} of ${cuts.length} go on with the same tokens`);
    });
  }

  await t.test('the grammars of these answers were at work', async () => {
    const json = await infer(engine, CASES['a JSON object that a grammar enforces'] as InferenceRequest);
    assert.deepEqual(json.end.finishReasons, ['stop']);
    assert.deepEqual(Object.keys(JSON.parse(json.text) as object), ['name', 'age', 'tags']);
    const tools = await infer(engine, CASES['tool calls that a grammar enforces'] as InferenceRequest);
    const [call] = joinedCalls(tools.choices[0]?.chunks ?? []);
    assert.match(call?.name ?? '', /^get_(weather|time)$/);
    assert.match(call?.id ?? '', /^call_/);
    assert.deepEqual(Object.keys(JSON.parse(call?.arguments ?? '') as object), ['city']);
    assert.deepEqual([tools.text, tools.end.finishReasons], ['', ['tool_calls']]);
  });

  await t.test('what lacks only its end gets only that', async () => {
    const request = CASES['a greedy answer'] as InferenceRequest;
    const whole = await infer(engine, request);
    const rest = await infer(engine, request, resumeAt(whole, [whole.tokens.length]));
    assert.deepEqual([rest.text, rest.tokens, rest.end.finishReasons], ['', [], ['stop']]);
    assert.equal(rest.end.usage.completionTokens, whole.end.usage.completionTokens);
  });

  await t.test('the tokens that went out are reused like a prompt', async () => {
    const request = chatRequest('Tell me a story about an owl named Hugo.', { max_tokens: 60 });
    const alone = twin(t, { parallel: 1 });
    const whole = await infer(alone, request);
    const rest = await infer(alone, request, resumeAt(whole, [50]));
    assert.equal(rest.end.usage.cachedTokens, whole.end.usage.promptTokens);
  });

  await t.test('each of several choices goes on, and one that was whole is not run again', async () => {
    const request = chatRequest('Tell me a story.', { temperature: 1, seed: 2, n: 3, max_tokens: 20 });
    const whole = await infer(engine, request);
    const resume = resumeAt(whole, [4, 20, 0]);
    const [one, two, three] = resume.choices;
    assert.ok(one !== undefined && two !== undefined && three !== undefined);
    const rest = await infer(other, request, { ...resume, choices: [one, { ...two, finish: 'length' }, three] });
    assert.deepEqual(
      rest.choices.map(({ tokens }) => tokens),
      whole.choices.map(({ tokens }, index) => tokens.slice([4, 20, 0][index])),
    );
    assert.deepEqual(rest.end.finishReasons, whole.end.finishReasons);
    assert.deepEqual(
      { ...rest.end.usage, cachedTokens: 0 },
      { ...whole.end.usage, cachedTokens: 0 },
      'every token counts once',
    );
  });

  await t.test('an answer all of whose choices are whole is only counted', async () => {
    const request = chatRequest('Tell me a story.', { n: 2, max_tokens: 6 });
    const whole = await infer(engine, request);
    const resume = resumeAt(whole, [6, 6]);
    const choices = resume.choices.map((choice) => ({ ...choice, finish: 'length' as const }));
    const rest = await infer(other, request, { ...resume, choices });
    assert.deepEqual(
      rest.choices.map(({ chunks }) => chunks.length),
      [0, 0],
    );
    assert.equal(rest.end.usage.completionTokens, 12);
    assert.equal(rest.end.usage.promptTokens, whole.end.usage.promptTokens);
  });

  await t.test(
    'another file, another prompt, tokens that are none and too small a context refuse to go on',
    async () => {
      const request = CASES['a greedy answer'] as InferenceRequest;
      const whole = await infer(engine, request);
      const resume = resumeAt(whole, [3]);
      const [choice] = resume.choices;
      assert.ok(choice !== undefined);
      const small = twin(t, { contextTokens: whole.end.usage.promptTokens + 4 });
      const refused: [LlamaEngine, InferenceRequest, Resume][] = [
        [engine, request, { ...resume, artifact: 'e'.repeat(64) }],
        [engine, request, { ...resume, choices: [choice, choice] }],
        [engine, request, { ...resume, choices: [{ ...choice, tokens: [1_000_000] }] }],
        [engine, chatRequest('What is the mesh?'), resume],
        [demoEngine(t), request, resume],
        [small, request, resumeAt(whole, [8])],
      ];
      for (const [asked, question, from] of refused) {
        await assert.rejects(
          infer(asked, question, from),
          (error) => error instanceof MeshError && error.code === 'cannot_resume',
        );
      }
      // What these left behind is cleared away before the next answer ends.
      for (const asked of [engine, small]) {
        await infer(asked, request);
        assert.equal(asked.load().inFlight, 0);
      }
    },
  );
});
