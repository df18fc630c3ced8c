import assert from 'node:assert/strict';
import { test } from 'node:test';
import { getLlama, type Llama, type LlamaContextSequence, LlamaLogLevel, type Token } from 'node-llama-cpp';
import { BATCHING, type NativeSequence, nativeSequence } from '../../node/backends/llama-cpp/child/native-sequence.ts';
import { vocabularyOf } from '../../node/backends/llama-cpp/child/native-vocabulary.ts';
import { demoModelPath } from '../../node/backends/llama-cpp/demo/demo-model.ts';
import type { Sampling } from '../../node/backends/llama-cpp/request/generation-request.ts';
import { positionSeed } from '../../node/backends/llama-cpp/request/sampling.ts';
import { GREEDY } from '../support/lane-order.ts';

const CONTEXT_TOKENS = 512;
const PROMPT = '<|im_start|>user\nTell me a story about an owl.<|im_end|>\n<|im_start|>assistant\n';
/** Each differs from the one before it in something that a sampler has to forget. */
const WAYS: readonly Sampling[] = [
  { ...GREEDY, temperature: 1.4 },
  { ...GREEDY, temperature: 1.4, topP: 0.7, minP: 0.02 },
  GREEDY,
  { ...GREEDY, temperature: 1.2, topK: 5, repeatPenalty: 1.3 },
  { ...GREEDY, temperature: 1.2, presencePenalty: 0.6, frequencyPenalty: 0.4 },
  { ...GREEDY, temperature: 1.4 },
];

test('a sequence keeps one sampler', async (t) => {
  const llama = await getLlama({ gpu: false, build: 'never', skipDownload: true, logLevel: LlamaLogLevel.error });
  const made = countSamplers(llama);
  const model = await llama.loadModel({ modelPath: demoModelPath() });
  const shape = { contextSize: CONTEXT_TOKENS, sequences: 3, threads: 1, batching: BATCHING };
  const context = await model.createContext(shape);
  const vocabulary = vocabularyOf(model);
  const first = nativeSequence(0, context, vocabulary);
  const second = nativeSequence(1, context, vocabulary);
  const fresh = context.getSequence();
  const prompt = model.tokenize(PROMPT, true);

  await t.test('whatever it was used for before, it samples what a fresh one for each token samples', async () => {
    for (const [index, sampling] of WAYS.entries()) {
      const wanted = await freshAnswer(fresh, prompt, sampling, 24);
      assert.deepEqual(await answer(first, prompt, sampling, { count: 24, top: null }), wanted, `way ${index}`);
      assert.deepEqual(await answer(second, prompt, sampling, { count: 24, top: 3 }), wanted, `way ${index}, scored`);
    }
  });

  await t.test('one seed gives one token, however often it is asked for', async () => {
    const tokens = new Set<number>();
    for (let seed = 0; seed < 12; seed += 1) {
      const sampling = { ...GREEDY, temperature: 9, topK: 100, seed };
      const [wanted = -1] = await freshAnswer(fresh, prompt, sampling, 1);
      for (let time = 0; time < 4; time += 1) {
        assert.deepEqual(await answer(first, prompt, sampling, { count: 1, top: null }), [wanted], `seed ${seed}`);
      }
      tokens.add(wanted);
    }
    assert.ok(tokens.size > 1, 'the seeds make a difference');
  });

  await t.test('prompts, scores and answers of any length make no further one', async () => {
    const before = made();
    for (const sequence of [first, second]) {
      await answer(sequence, prompt, GREEDY, { count: 100, top: null });
      await sequence.keep(0);
      await sequence.prefill(prompt);
      await sequence.score(prompt.slice(0, 8), prompt.slice(1, 9), 2);
    }
    assert.equal(made(), before);
    await freshAnswer(fresh, prompt, GREEDY, 3);
    assert.ok(made() > before, 'they are counted');
  });
});

/** How many were made in this process from now on. */
function countSamplers(llama: Llama): () => number {
  type Sampler = new (model: unknown) => object;
  const { _bindings: bindings } = llama as unknown as { readonly _bindings: { AddonSampler: Sampler } };
  let made = 0;
  bindings.AddonSampler = new Proxy(bindings.AddonSampler, {
    construct(target, [model]) {
      made += 1;
      return new target(model);
    },
  });
  return () => made;
}

interface Wanted {
  readonly count: number;
  readonly top: number | null;
}

async function answer(
  sequence: NativeSequence,
  prompt: readonly number[],
  sampling: Sampling,
  { count, top }: Wanted,
): Promise<number[]> {
  await sequence.keep(0);
  const generated: number[] = [];
  let input = prompt;
  while (generated.length < count) {
    const { token } = await sequence.next(input, { sampling, generated, grammar: null, logprobs: top });
    generated.push(token);
    input = [token];
  }
  return generated;
}

/** By what the library exports: it makes a sampler for each call. */
async function freshAnswer(
  sequence: LlamaContextSequence,
  prompt: readonly number[],
  { temperature, topP, topK, minP, seed, ...penalties }: Sampling,
  count: number,
): Promise<number[]> {
  await sequence.clearHistory();
  const generated: number[] = [];
  let input = prompt as Token[];
  while (generated.length < count) {
    const { repeatPenalty: penalty, frequencyPenalty, presencePenalty } = penalties;
    const punishTokens = generated as Token[];
    const options = {
      ...{ temperature, topP, topK, minP, seed: positionSeed(seed, generated.length) },
      repeatPenalty: { penalty, frequencyPenalty, presencePenalty, punishTokens },
    };
    const last = input.at(-1) as Token;
    const results = await sequence.controlledEvaluate([
      ...input.slice(0, -1),
      [last, { generateNext: { token: true, options } }],
    ]);
    const token = results[input.length - 1]?.next.token;
    assert.ok(typeof token === 'number');
    generated.push(token);
    input = [token];
  }
  return generated;
}
