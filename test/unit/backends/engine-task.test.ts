import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Answer } from '../../../node/backends/llama-cpp/answer.ts';
import type { EngineTask } from '../../../node/backends/llama-cpp/tasks/engine-task.ts';
import { answerTask, type TaskEngine } from '../../../node/backends/llama-cpp/tasks/engine-task-answer.ts';
import { type TaskModel, TaskRunner } from '../../../node/backends/llama-cpp/tasks/engine-task-runner.ts';
import { PART_INPUTS, PART_SIZE, taskParts } from '../../../node/backends/llama-cpp/tasks/task-parts.ts';
import { floatsBase64, unitVector } from '../../../node/backends/llama-cpp/tasks/unit-vector.ts';
import { MeshError, toMeshError } from '../../../node/common/errors.ts';
import type { InferenceEvent, InferenceKind, InferenceRequest } from '../../../protocols/inference/events.ts';
import fc from '../../support/fc.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const CONTEXT = 32;
const DIMENSIONS = 4;
const VOCABULARY = 256;

/** A character is a token; a vector says which tokens it is of; a score is how many characters both texts share. */
function scriptedModel(log: string[] = []): TaskModel {
  const embedder = {
    dimensions: DIMENSIONS,
    lengthOf: (tokens: readonly number[]) => tokens.length + 1,
    embed: async (tokens: readonly number[]) => {
      log.push(String.fromCharCode(...tokens));
      return [tokens.length, tokens[0] ?? 0, -1, 0.5];
    },
  };
  const ranker = {
    lengthOf: (query: readonly number[], document: readonly number[]) => query.length + document.length + 3,
    rank: async (query: readonly number[], document: readonly number[]) =>
      document.filter((token) => query.includes(token)).length / document.length,
  };
  return {
    contextTokens: CONTEXT,
    tokenizer: { tokenize: (text) => [...text].map((letter) => letter.charCodeAt(0)), leadingToken: 1 },
    segmentsOf: ({ messages }) => messages.map(({ content }) => ({ text: content, special: false })),
    tasks: {
      contextTokens: CONTEXT,
      vocabularyTokens: VOCABULARY,
      textOf: (tokens) => String.fromCharCode(...tokens),
      embedder: async () => embedder,
      ranker: async () => ranker,
    },
  };
}

/** An engine without a process in between. */
class DirectEngine implements TaskEngine<Answer> {
  readonly tasks: EngineTask[] = [];
  readonly cancelled: Answer[] = [];
  readonly #runner: TaskRunner;
  readonly #clock: ManualClock;
  readonly #aborts = new Map<Answer, AbortController>();

  constructor(model: TaskModel, clock = new ManualClock()) {
    this.#clock = clock;
    this.#runner = new TaskRunner({ model, now: () => 0 });
  }

  submit(task: EngineTask): Answer {
    this.tasks.push(task);
    const progress = () => ({ type: 'progress', state: 'queued', fraction: null }) as const;
    const answer = new Answer({ clock: this.#clock, progress }, task);
    const abort = new AbortController();
    this.#aborts.set(answer, abort);
    this.#runner.run(JSON.parse(JSON.stringify(task)) as EngineTask, abort.signal).then(
      (result) => answer.result(JSON.parse(JSON.stringify(result))),
      (thrown: unknown) => answer.fail(toMeshError(thrown, 'engine_failed')),
    );
    return answer;
  }

  cancel(answer: Answer, error: MeshError): void {
    this.cancelled.push(answer);
    this.#aborts.get(answer)?.abort();
    answer.fail(error);
  }
}

const FACTS = { fingerprint: '12D3KooWHere', artifact: null };

function request(kind: InferenceKind, body: object): InferenceRequest {
  return {
    requestId: 'ab'.repeat(16),
    kind,
    model: 'm',
    body: Buffer.from(JSON.stringify({ model: 'm', ...body })),
    seed: 1,
  };
}

async function all(events: AsyncIterable<InferenceEvent>): Promise<InferenceEvent[]> {
  const list: InferenceEvent[] = [];
  for await (const event of events) list.push(event);
  return list;
}

async function answer(kind: InferenceKind, body: object, engine = new DirectEngine(scriptedModel())) {
  const { signal } = new AbortController();
  const events = await all(answerTask(engine, request(kind, body), FACTS, { signal }));
  const parts = events.flatMap((event) => (event.type === 'result' ? [event.body] : []));
  return { events, parts, json: JSON.parse(Buffer.concat(parts).toString('utf8')) };
}

async function refusal(kind: InferenceKind, body: object): Promise<string> {
  try {
    await answer(kind, body);
  } catch (error) {
    assert.ok(error instanceof MeshError, String(error));
    return `${error.code} ${error.facts.param ?? '-'}`;
  }
  return 'answered';
}

describe('an embedding request', () => {
  it('gives unit vectors as floats or as base64 of the same float32s', async () => {
    const floats = (await answer('embedding', { input: ['ab', 'c'] })).json;
    const base64 = (await answer('embedding', { input: ['ab', 'c'], encoding_format: 'base64' })).json;
    assert.deepEqual(Object.keys(floats), ['object', 'data', 'model', 'usage']);
    assert.deepEqual(floats.usage, { prompt_tokens: 5, total_tokens: 5 });
    for (const [index, { embedding, object, index: number }] of floats.data.entries()) {
      assert.deepEqual([object, number], ['embedding', index]);
      assert.ok(Math.abs(Math.hypot(...embedding) - 1) < 1e-6);
      const bytes = Buffer.from(base64.data[index].embedding, 'base64');
      assert.deepEqual(
        embedding.map(Math.fround),
        embedding.map((_: number, at: number) => bytes.readFloatLE(at * 4)),
      );
    }
  });

  it('keeps the order of its events and counts each token', async () => {
    const { events } = await answer('embedding', { input: 'abc' });
    assert.deepEqual(
      events.map(({ type }) => type),
      ['accepted', 'result', 'end'],
    );
    const [accepted, , end] = events;
    assert.ok(accepted?.type === 'accepted' && end?.type === 'end');
    assert.deepEqual([accepted.node, accepted.promptTokens], [FACTS.fingerprint, 4]);
    assert.match(accepted.promptDigest, /^[0-9a-f]{64}$/);
    assert.deepEqual(end.finishReasons, []);
    assert.deepEqual(end.usage, { promptTokens: 4, completionTokens: 0, cachedTokens: 0 });
  });

  it('is cut into tasks whose results come back in order, with one accepted', async () => {
    const engine = new DirectEngine(scriptedModel());
    const input = Array.from({ length: PART_INPUTS * 2 + 5 }, (_, index) => 'x'.repeat(1 + (index % 20)));
    const { events, json } = await answer('embedding', { input }, engine);
    assert.deepEqual(
      engine.tasks.map((task) => (task.type === 'embed' ? task.inputs.length : 0)),
      [PART_INPUTS, PART_INPUTS, 5],
    );
    assert.equal(events.filter(({ type }) => type === 'accepted').length, 1);
    for (const [index, item] of json.data.entries()) {
      assert.equal(item.index, index);
      const length = input[index]?.length ?? 0;
      assert.ok(Math.abs(item.embedding[0] / item.embedding[3] - length * 2) < 1e-4);
    }
    assert.equal(
      json.usage.prompt_tokens,
      input.reduce((sum, text) => sum + text.length + 1, 0),
    );
  });

  it('has result parts that each fit a frame', async () => {
    const input = Array.from({ length: 2048 }, (_, index) => `n${index}`);
    const { parts, json } = await answer('embedding', { input });
    assert.ok(parts.length > 1);
    assert.ok(parts.every(({ byteLength }) => byteLength <= 60_000));
    assert.equal(json.data.length, 2048);
  });

  it('cuts to the dimensions asked for and normalises again', async () => {
    const { json } = await answer('embedding', { input: [[3, 4]], dimensions: 2 });
    const [x, y] = json.data[0].embedding;
    assert.equal(json.data[0].embedding.length, 2);
    assert.ok(Math.abs(Math.hypot(x, y) - 1) < 1e-6);
    assert.equal(await refusal('embedding', { input: 'a', dimensions: DIMENSIONS + 1 }), 'invalid_request dimensions');
  });

  it('names the input that is too long, or has an id that the model does not know', async () => {
    const input = [...Array(PART_INPUTS).fill('a'), 'a'.repeat(CONTEXT)];
    assert.equal(await refusal('embedding', { input }), `context_length_exceeded input[${PART_INPUTS}]`);
    assert.equal(await refusal('embedding', { input: 'a'.repeat(CONTEXT - 1) }), 'answered');
    assert.equal(await refusal('embedding', { input: 'a'.repeat(500_000) }), 'context_length_exceeded input[0]');
    assert.equal(await refusal('embedding', { input: [[1], [7, VOCABULARY]] }), 'invalid_request input[1][1]');
  });
});

describe('a rerank request', () => {
  it('orders the documents by score, equal ones as they came', async () => {
    const documents = ['zz', 'ab', { text: 'az' }, 'ba'];
    const { json } = await answer('rerank', { query: 'ab', documents });
    assert.deepEqual(json.results, [
      { index: 1, relevance_score: 1 },
      { index: 3, relevance_score: 1 },
      { index: 2, relevance_score: 0.5 },
      { index: 0, relevance_score: 0 },
    ]);
    assert.deepEqual(json.usage, { prompt_tokens: 28, total_tokens: 28 });
  });

  it('gives only the best, with their documents, when asked', async () => {
    const { json } = await answer('rerank', { query: 'ab', documents: ['zz', 'ab'], top_n: 1, return_documents: true });
    assert.deepEqual(json.results, [{ index: 1, relevance_score: 1, document: { text: 'ab' } }]);
  });

  it('names the document that is too long together with the query', async () => {
    const documents = ['a', 'a'.repeat(CONTEXT - 5)];
    assert.equal(await refusal('rerank', { query: 'ab', documents }), 'answered');
    assert.equal(await refusal('rerank', { query: 'abc', documents }), 'context_length_exceeded documents[1]');
  });
});

describe('tokenize and detokenize', () => {
  it('give each other back', async () => {
    const { json } = await answer('tokenize', { prompt: 'hi', return_token_strs: true });
    assert.deepEqual(json, {
      count: 3,
      max_model_len: CONTEXT,
      tokens: [1, 104, 105],
      token_strs: ['\u0001', 'h', 'i'],
    });
    const back = await answer('detokenize', { tokens: [104, 105] });
    assert.deepEqual(back.json, { prompt: 'hi', content: 'hi' });
  });

  it('count texts of any length, and of none', async () => {
    assert.equal((await answer('tokenize', { prompt: 'x'.repeat(5 * CONTEXT) })).json.count, 5 * CONTEXT + 1);
    assert.equal((await answer('tokenize', { content: '' })).json.count, 0);
    assert.deepEqual((await answer('detokenize', { tokens: [] })).json.prompt, '');
  });

  it('read messages as a chat does', async () => {
    const messages = [{ role: 'user', content: 'hi' }];
    assert.deepEqual((await answer('tokenize', { messages })).json.tokens, [1, 104, 105]);
    assert.equal(await refusal('tokenize', { messages: [{ role: 'nobody' }] }), 'invalid_request messages[0].role');
  });

  it('refuse an id that the model does not know', async () => {
    assert.equal(await refusal('detokenize', { tokens: [1, VOCABULARY] }), 'invalid_request tokens[1]');
  });
});

describe('cancelling', () => {
  it('begins no further input once the client has gone', async () => {
    const log: string[] = [];
    const gone = new AbortController();
    const model = scriptedModel(log);
    const engine = new DirectEngine(model);
    const inputs = Array.from({ length: 10 }, (_, index) => `n${index}`);
    const embedder = await model.tasks.embedder();
    const { embed } = embedder;
    embedder.embed = (tokens) => {
      if (log.length === 2) gone.abort();
      return embed(tokens);
    };
    const answering = all(answerTask(engine, request('embedding', { input: inputs }), FACTS, { signal: gone.signal }));
    await assert.rejects(answering, { code: 'client_closed' });
    assert.equal(engine.cancelled.length, 1);
    for (let turn = 0; turn < inputs.length; turn += 1) await new Promise(setImmediate);
    assert.deepEqual(log, ['n0', 'n1', 'n2']);
  });

  it('takes no slot when the client has gone before, and cancels when the reader leaves', async () => {
    const clock = new ManualClock();
    const engine = new DirectEngine(scriptedModel(), clock);
    const asked = request('embedding', { input: 'a' });
    await assert.rejects(all(answerTask(engine, asked, FACTS, { signal: AbortSignal.abort() })), {
      code: 'client_closed',
    });
    assert.equal(engine.tasks.length, 0);
    const events = answerTask(engine, asked, FACTS, { signal: new AbortController().signal });
    const first = events.next();
    clock.advance(500);
    assert.equal((await first).value?.type, 'progress');
    await events.return(undefined);
    assert.equal(engine.cancelled.length, 1);
  });
});

it('parts of a task are small, in order, and nothing is lost', () => {
  const lengths = fc.array(fc.integer({ min: 1, max: PART_SIZE >> 2 }), { minLength: 1, maxLength: 200 });
  fc.assert(
    fc.property(lengths, (sizes) => {
      const inputs = sizes.map((length) => ({ length }) as unknown as string);
      const parts = taskParts({ type: 'embed', inputs, firstInput: 0, dimensions: null });
      let next = 0;
      for (const part of parts) {
        assert.ok(part.type === 'embed' && part.inputs.length <= PART_INPUTS && part.firstInput === next);
        assert.ok(part.inputs.reduce((sum, input) => sum + input.length, 0) <= PART_SIZE);
        next += part.inputs.length;
      }
      assert.deepEqual(
        parts.flatMap((part) => (part.type === 'embed' ? part.inputs : [])),
        inputs,
      );
    }),
    { numRuns: 30 },
  );
});

it('a unit vector has length 1 and its direction, whatever the numbers', () => {
  const number = fc.double({ noNaN: true, noDefaultInfinity: true });
  fc.assert(
    fc.property(fc.array(number, { minLength: 1, maxLength: 50 }), (numbers) => {
      const unit = unitVector(numbers, numbers.length);
      if (numbers.every((value) => value === 0)) assert.ok(unit.every((value) => value === 0));
      else assert.ok(Math.abs(Math.hypot(...unit) - 1) < 1e-5);
      assert.ok(unit.every((value, index) => value === 0 || Math.sign(value) === Math.sign(numbers[index] ?? 0)));
      const bytes = Buffer.from(floatsBase64(unit), 'base64');
      assert.deepEqual(
        [...unit],
        [...unit.keys()].map((at) => bytes.readFloatLE(at * 4)),
      );
    }),
  );
  assert.throws(() => unitVector([1, Number.NaN], 2), RangeError);
});
