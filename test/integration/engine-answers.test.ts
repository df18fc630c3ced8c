import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../node/common/errors.ts';
import {
  ask,
  chatRequest,
  DEMO,
  demoEngine,
  inferenceRequest,
  neverAborted,
  wholeAnswer,
} from '../support/demo-engine.ts';

const QUESTIONS = [
  'What is meshnode?',
  'Count to 9.',
  'Tell me a story about an owl named Hugo.',
  'What is 3 plus 4?',
  'What is the capital of Austria?',
  'Hello!',
  'What is the opposite of big?',
  'Tell me a story.',
];

const refusal = (code: string, pattern: RegExp) => (error: unknown) => {
  assert.ok(error instanceof MeshError, String(error));
  assert.equal(error.code, code);
  assert.match(error.message, pattern);
  return true;
};

test('the engine answers with the demo model', async (t) => {
  const engine = demoEngine(t, { contextTokens: 512 });
  const events: string[] = [];
  engine.onEvent((event) => events.push(event.type));

  await t.test('an idle engine has no child, and knows its build without one', () => {
    assert.equal(engine.children().size, 0);
    assert.match(engine.build, /^llama\.cpp v?\d/);
    assert.deepEqual(
      engine.catalog().map(({ id, state, contextLength, slots }) => [id, state, contextLength, slots]),
      [[DEMO, 'on-disk', 512, 4]],
    );
  });

  await t.test('a greedy answer is right, complete and counted', async () => {
    const { text, tokens, accepted, end } = await ask(engine, 'What is meshnode?');
    assert.match(text, /^Meshnode joins several computers into one mesh/);
    assert.deepEqual(end.finishReasons, ['stop']);
    assert.equal(end.usage.completionTokens, tokens.length);
    assert.equal(end.usage.promptTokens, accepted.promptTokens);
    assert.match(accepted.promptDigest, /^[0-9a-f]{64}$/);
    assert.equal(events.at(-1), 'resident');
    assert.deepEqual(
      engine.catalog().map(({ state }) => state),
      ['resident'],
    );
    assert.equal(engine.children().size, 1);
  });

  await t.test('eight requests over four slots all get the answer that each gets alone', async () => {
    const alone: string[] = [];
    for (const question of QUESTIONS) alone.push((await ask(engine, question)).text);
    const together = await Promise.all(QUESTIONS.map((question) => ask(engine, question)));
    assert.deepEqual(
      together.map(({ text }) => text),
      alone,
    );
    assert.equal(new Set(alone).size, QUESTIONS.length, 'the answers differ, so that mixing them up would show');
    assert.deepEqual(engine.load(), { inFlight: 0, queued: 0, engineAgeMs: 0 });
    assert.ok((engine.catalog()[0]?.tokensPerSecond ?? 0) > 0);
  });

  await t.test('sampling follows the seed: of the body, or else of the request', async () => {
    const sampled = (fields: object) =>
      ask(engine, 'Tell me a story.', { temperature: 1.2, max_tokens: 40, ...fields });
    const [one, same, other] = [await sampled({ seed: 5 }), await sampled({ seed: 5 }), await sampled({ seed: -5 })];
    assert.equal(one.text, same.text);
    assert.notEqual(one.text, other.text);
    assert.equal((await sampled({})).text, (await sampled({ seed: 42 })).text);
  });

  await t.test('penalties, top_k off and min_p are taken', async () => {
    const fields = { temperature: 1, top_k: 0, min_p: 0.05, repeat_penalty: 1.3, presence_penalty: 1, max_tokens: 20 };
    assert.equal((await ask(engine, 'Tell me a story.', fields)).end.usage.completionTokens <= 20, true);
  });

  await t.test('max_tokens ends with "length", and more than there is room for is clamped', async () => {
    const short = await ask(engine, 'Tell me a story.', { max_tokens: 5 });
    assert.deepEqual([short.tokens.length, short.end.finishReasons], [5, ['length']]);
    const prompt = 'owl '.repeat(100);
    const events = engine.infer(
      inferenceRequest('completion', { model: DEMO, prompt, max_tokens: 10_000, temperature: 1, top_k: 0 }),
      { signal: neverAborted },
    );
    const { accepted, tokens, end } = await wholeAnswer(events);
    assert.ok(accepted.promptTokens + tokens.length <= 512, 'never shifts');
    if (end.finishReasons[0] === 'length') assert.equal(accepted.promptTokens + tokens.length, 512);
  });

  await t.test('a stop string ends the answer before it', async () => {
    const whole = (await ask(engine, 'Count to 9.')).text;
    assert.match(whole, /1, 2, 3, 4, 5/);
    const { text, end } = await ask(engine, 'Count to 9.', { stop: ['4, 5', 'never'] });
    assert.equal(text, whole.slice(0, whole.indexOf('4, 5')));
    assert.deepEqual(end.finishReasons, ['stop']);
  });

  await t.test('a prompt beyond the context is refused with both numbers, and the next request works', async () => {
    await assert.rejects(
      ask(engine, 'far too long '.repeat(400)),
      refusal('context_length_exceeded', /maximum context length is 512 tokens.*resulted in \d+ tokens/),
    );
    await assert.rejects(
      ask(engine, 'x'.repeat(15 * 2 ** 20)),
      refusal('context_length_exceeded', /maximum context length is 512 tokens.*resulted in about \d+ tokens/),
    );
    assert.match((await ask(engine, 'What is meshnode?')).text, /^Meshnode joins/);
  });

  await t.test('what this engine does not have or does not serve is refused by code', async () => {
    const infer = (fields: object, model?: string) =>
      wholeAnswer(engine.infer(chatRequest('Hi', fields, model), { signal: neverAborted }));
    await assert.rejects(infer({}, 'nobody-has-this'), refusal('model_not_loaded', /nobody-has-this/));
    await assert.rejects(infer({ tools: [{}] }), refusal('invalid_request', /'tools\[0\]/));
    const empty = inferenceRequest('completion', { model: DEMO, prompt: '' });
    await assert.rejects(
      wholeAnswer(engine.infer(empty, { signal: neverAborted })),
      refusal('invalid_request', /empty/),
    );
  });

  await t.test('a reader who leaves frees the slot', async () => {
    for (let i = 0; i < 12; i += 1) {
      for await (const event of engine.infer(chatRequest('Tell me a story.'), { signal: neverAborted })) {
        if (event.type === 'chunk') break;
      }
    }
    assert.match((await ask(engine, 'What is meshnode?')).text, /^Meshnode joins/);
    assert.deepEqual(engine.load(), { inFlight: 0, queued: 0, engineAgeMs: 0 });
  });

  await t.test('an aborted request ends at once with client_closed', async () => {
    const aborting = new AbortController();
    const events = engine.infer(chatRequest('Tell me a story.'), { signal: aborting.signal });
    await assert.rejects(
      async () => {
        for await (const event of events) if (event.type === 'chunk') aborting.abort();
      },
      refusal('client_closed', /cancelled/),
    );
    await assert.rejects(
      wholeAnswer(engine.infer(chatRequest('Hi'), { signal: aborting.signal })),
      refusal('client_closed', /cancelled/),
    );
  });
});

test('beyond slots and queue a request is refused as overloaded, and those before it are answered', async (t) => {
  const engine = demoEngine(t, { parallel: 1, queueLimit: 2 });
  const admitted = [1, 2, 3].map((count) => ask(engine, `Count to ${count + 4}.`));
  await assert.rejects(ask(engine, 'Hello!'), (error) => {
    assert.ok(error instanceof MeshError && error.code === 'overloaded');
    return (error.facts.retryAfterMs ?? 0) > 0;
  });
  for (const { text } of await Promise.all(admitted)) assert.match(text, /1, 2, 3/);
});

test('who waits for the model to load hears of it', async (t) => {
  const engine = demoEngine(t);
  const { progress } = await ask(engine, 'Hello!');
  for (const event of progress) assert.equal(event.state === 'loading' || event.state === 'queued', true);
  assert.equal(engine.load().queued, 0);
});
