import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LlamaEngine } from '../../node/backends/llama-cpp/engine.ts';
import { MeshError } from '../../node/common/errors.ts';
import type { TokenLogprob } from '../../protocols/inference/events.ts';
import {
  ask,
  DEMO,
  demoEngine,
  inferenceRequest,
  neverAborted,
  type WholeAnswer,
  wholeAnswer,
} from '../support/demo-engine.ts';

const STORY = 'Tell me a story about an owl named Hugo.';

function complete(engine: LlamaEngine, fields: object): Promise<WholeAnswer> {
  const body = { model: DEMO, temperature: 0, ...fields };
  return wholeAnswer(engine.infer(inferenceRequest('completion', body), { signal: neverAborted }));
}

function logprobsOf({ choices }: WholeAnswer, choice = 0): TokenLogprob[] {
  return choices[choice]?.chunks.flatMap(({ logprobs }) => [...(logprobs ?? [])]) ?? [];
}

const refuses = (param: string) => (error: unknown) =>
  error instanceof MeshError && error.code === 'invalid_request' && error.facts.param === param;

test('what a request may ask of the engine', async (t) => {
  const engine = demoEngine(t, { parallel: 4, contextTokens: 512 });

  await t.test('four greedy choices are the same text, and the same as one alone', async () => {
    const alone = await ask(engine, STORY, { max_tokens: 40 });
    const { choices, end } = await ask(engine, STORY, { n: 4, max_tokens: 40 });
    assert.deepEqual(
      choices.map(({ text }) => text),
      [alone.text, alone.text, alone.text, alone.text],
    );
    assert.equal(end.usage.promptTokens, alone.end.usage.promptTokens);
    assert.equal(end.usage.completionTokens, 4 * alone.end.usage.completionTokens);
  });

  await t.test('sampled choices differ, the first is that of the seed alone, and all come again', async () => {
    const fields = { n: 6, max_tokens: 80, temperature: 1, seed: 11 };
    const [one, again] = [await ask(engine, STORY, fields), await ask(engine, STORY, fields)];
    const texts = one.choices.map(({ text }) => text);
    assert.equal(new Set(texts).size, 6);
    assert.deepEqual(
      again.choices.map(({ text }) => text),
      texts,
    );
    assert.equal((await ask(engine, STORY, { ...fields, n: 1 })).text, texts[0]);
  });

  await t.test('several prompts are answered each as alone, more than there are slots too', async () => {
    const prompts = Array.from({ length: 7 }, (_, index) => `${index} plus ${index} is`);
    const alone: WholeAnswer[] = [];
    for (const prompt of prompts) alone.push(await complete(engine, { prompt, max_tokens: 6 }));
    const together = await complete(engine, { prompt: prompts, max_tokens: 6 });
    assert.deepEqual(
      together.choices.map(({ text }) => text),
      alone.map(({ text }) => text),
    );
    const promptTokens = alone.reduce((sum, { end }) => sum + end.usage.promptTokens, 0);
    assert.equal(together.end.usage.promptTokens, promptTokens);
    assert.equal(together.accepted.promptTokens, promptTokens);
  });

  await t.test('a prompt of tokens stands for itself, and strange ones are refused', async () => {
    const tokens = [300, 301, 302, 303];
    const { end, text } = await complete(engine, { prompt: tokens, max_tokens: 5 });
    assert.equal(end.usage.promptTokens, tokens.length);
    const echoed = await complete(engine, { prompt: tokens, max_tokens: 5, echo: true });
    assert.ok(echoed.text.endsWith(text) && echoed.text.length > text.length);
    await assert.rejects(complete(engine, { prompt: [300, 1_000_000] }), refuses('prompt'));
  });

  await t.test('an echo comes before the answer, and alone when no token is wanted', async () => {
    const prompt = 'Once upon a time';
    const plain = await complete(engine, { prompt, max_tokens: 6 });
    const echoed = await complete(engine, { prompt, max_tokens: 6, echo: true });
    assert.equal(echoed.text, prompt + plain.text);
    const only = await complete(engine, { prompt, max_tokens: 0, echo: true });
    assert.deepEqual([only.text, only.tokens, only.end.finishReasons], [prompt, [], ['length']]);
    assert.equal(only.end.usage.promptTokens, plain.end.usage.promptTokens);
  });

  await t.test('log probabilities are those of the model, whatever is sampled from them', async () => {
    const fields = { logprobs: true, top_logprobs: 5, max_tokens: 12 };
    const greedy = await ask(engine, STORY, fields);
    const logprobs = logprobsOf(greedy);
    assert.equal(logprobs.length, greedy.tokens.length);
    assert.equal(logprobs.map(({ token }) => token).join(''), greedy.text);
    assert.equal(Buffer.from(logprobs.flatMap(({ bytes }) => [...bytes])).toString(), greedy.text);
    for (const { token, logprob, top } of logprobs) {
      assert.equal(top.length, 5);
      assert.deepEqual([top[0]?.token, top[0]?.logprob], [token, logprob], 'the greedy one is the best');
      for (const [at, { logprob: one }] of top.entries()) assert.ok(one <= (top[at - 1]?.logprob ?? 0));
      const mass = top.reduce((sum, { logprob: one }) => sum + Math.exp(one), 0);
      assert.ok(mass > 0 && mass < 1.0001);
    }
    assert.equal((await ask(engine, STORY, { max_tokens: 12 })).text, greedy.text, 'asking changes nothing');
    const hot = { temperature: 1.9, top_k: 3, frequency_penalty: 1, logit_bias: { 300: 4 }, seed: 5 };
    const sampled = await ask(engine, STORY, { ...fields, ...hot });
    assert.deepEqual(logprobsOf(sampled)[0]?.top, logprobs[0]?.top);
    assert.equal((await ask(engine, STORY, { ...hot, max_tokens: 12 })).text, sampled.text);
    assert.deepEqual(logprobsOf(await ask(engine, STORY, { max_tokens: 3, logprobs: true }))[0]?.top, []);
  });

  await t.test('an echoed prompt has log probabilities too, which are those of the same tokens sampled', async () => {
    const prompt = 'Seven upon quiet a zebra there was';
    const plain = await complete(engine, { prompt, max_tokens: 4, logprobs: 3 });
    const whole = await complete(engine, { prompt: prompt + plain.text, max_tokens: 0, echo: true, logprobs: 0 });
    const scored = whole.choices[0]?.chunks[0]?.promptLogprobs ?? [];
    assert.equal(scored.length, whole.end.usage.promptTokens);
    assert.equal(scored[0], null);
    for (const score of scored.slice(1)) assert.ok((score?.logprob ?? -1_000) > -100, 'a value of the model');
    const generated = logprobsOf(plain);
    for (const [at, { token, logprob }] of generated.entries()) {
      const again = scored[scored.length - generated.length + at];
      assert.equal(again?.token, token);
      assert.ok(Math.abs((again?.logprob ?? 9) - logprob) < 1e-3, `${again?.logprob} for ${logprob}`);
    }
  });

  await t.test('a bias bans a token, or all but demands it', async () => {
    const plain = await ask(engine, STORY, { max_tokens: 8 });
    const [first = 0] = plain.tokens;
    const without = await ask(engine, STORY, { max_tokens: 8, logit_bias: { [first]: -100 } });
    assert.ok(!without.tokens.includes(first));
    const other = first === 300 ? 301 : 300;
    const only = await ask(engine, STORY, { max_tokens: 8, logit_bias: { [other]: 100 } });
    assert.deepEqual([...new Set(only.tokens)], [other]);
    await assert.rejects(ask(engine, STORY, { logit_bias: { 999999: 1 } }), refuses('logit_bias'));
  });

  await t.test('penalties drive repetition down, and negative ones up', async () => {
    const distinct = async (fields: object): Promise<number> => {
      const { tokens } = await complete(engine, { prompt: 'the owl the owl the', max_tokens: 60, ...fields });
      return new Set(tokens).size / tokens.length;
    };
    const [plain, frequent, rare] = [
      await distinct({}),
      await distinct({ frequency_penalty: -2 }),
      await distinct({ frequency_penalty: 2 }),
    ];
    assert.ok(frequent < rare, `${frequent} < ${rare}`);
    assert.ok(frequent <= plain && plain <= rare, `${frequent} <= ${plain} <= ${rare}`);
    const [present, absent] = [await distinct({ presence_penalty: -2 }), await distinct({ presence_penalty: 2 })];
    assert.ok(present < absent, `${present} < ${absent}`);
  });

  await t.test('what fails in one choice ends all of them, and no slot stays taken', async () => {
    await assert.rejects(
      complete(engine, { prompt: ['fine', 'x '.repeat(3_000)], max_tokens: 400 }),
      (error) => error instanceof MeshError && error.code === 'context_length_exceeded',
    );
    const aborting = new AbortController();
    const body = { model: DEMO, prompt: ['a', 'b', 'c'], n: 3, max_tokens: 400, temperature: 1 };
    await assert.rejects(async () => {
      for await (const event of engine.infer(inferenceRequest('completion', body), { signal: aborting.signal })) {
        if (event.type === 'chunk') aborting.abort();
      }
    }, /cancelled/);
    await ask(engine, 'Hello!', { n: 4 });
    assert.deepEqual(engine.load(), { inFlight: 0, queued: 0, engineAgeMs: 0 });
  });
});
