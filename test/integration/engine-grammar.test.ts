import assert from 'node:assert/strict';
import { test } from 'node:test';
import { loadNativeModel } from '../../node/backends/llama-cpp/child/native-model.ts';
import { BATCHING, type NativeSequence } from '../../node/backends/llama-cpp/child/native-sequence.ts';
import { renderPrompt } from '../../node/backends/llama-cpp/child/rendered-prompt.ts';
import { demoModelPath } from '../../node/backends/llama-cpp/demo/demo-model.ts';
import type { Sampling } from '../../node/backends/llama-cpp/request/generation-request.ts';
import { MeshError } from '../../node/common/errors.ts';
import { GREEDY } from '../support/lane-order.ts';

const PERSON = `root ::= "{\\"name\\": \\"" letter letter? letter? letter? "\\", \\"age\\": " [1-9] [0-9]? "}"
letter ::= [a-z]`;

interface Asked {
  readonly sampling?: Partial<Sampling>;
  readonly grammar?: string;
  readonly logprobs?: number;
  readonly resumed?: readonly number[];
}

test('a native model under a grammar', async (t) => {
  const model = await loadNativeModel(
    { type: 'load', modelPath: demoModelPath(), gpu: 'off', contextTokens: 512, parallel: 4 },
    () => {},
  );
  const { vocabulary, sequences } = model;
  const prompt = renderPrompt(
    { kind: 'chat', messages: [{ role: 'user', content: 'Who is Hugo?' }], tools: [] },
    model,
  ).tokens;

  /** An answer's tokens, up to its end or sixty of them. */
  async function generate(sequence: NativeSequence, asked: Asked) {
    await sequence.keep(0);
    const grammar = asked.grammar === undefined ? null : await model.grammar(asked.grammar);
    const generated = [...(asked.resumed ?? [])];
    for (const token of generated) grammar?.accept(token);
    let input = [...prompt, ...generated];
    while (generated.length < 60) {
      const { token } = await sequence.next(input, {
        sampling: { ...GREEDY, ...asked.sampling },
        generated,
        grammar,
        logprobs: asked.logprobs ?? null,
      });
      if (vocabulary.endsAnswer(token)) return { generated, hasEnd: true };
      generated.push(token);
      input = [token];
    }
    return { generated, hasEnd: false };
  }
  const textOf = (tokens: readonly number[]): string => vocabulary.detokenize(tokens, []);
  const [first, second, third, fourth] = sequences;
  assert.ok(first !== undefined && second !== undefined && third !== undefined && fourth !== undefined);

  await t.test('every sampled answer fits it, and ends where it is complete', async () => {
    const texts = new Set<string>();
    for (let seed = 0; seed < 20; seed += 1) {
      const asked = { grammar: PERSON, sampling: { temperature: 1.5, topK: 0, seed } };
      const { generated, hasEnd } = await generate(first, asked);
      assert.ok(hasEnd);
      assert.match(textOf(generated), /^\{"name": "[a-z]{1,4}", "age": [1-9][0-9]?\}$/);
      texts.add(textOf(generated));
    }
    assert.ok(texts.size > 10, 'they differ');
  });

  await t.test('an answer under it goes on after any of its tokens as the unbroken one', async () => {
    for (const sampling of [{}, { temperature: 1, seed: 4 }]) {
      const { generated } = await generate(first, { grammar: PERSON, sampling });
      for (let cut = 0; cut <= generated.length; cut += 1) {
        const resumed = generated.slice(0, cut);
        const rest = await generate(second, { grammar: PERSON, sampling, resumed });
        assert.deepEqual(rest, { generated, hasEnd: true }, `cut after ${cut}`);
      }
    }
  });

  await t.test('tokens that it does not allow cannot be resumed', async () => {
    const grammar = await model.grammar(PERSON);
    assert.throws(
      () => grammar.accept(vocabulary.tokenizer.tokenize('x', false, false)[0] ?? 0),
      (error) => error instanceof MeshError && error.code === 'cannot_resume',
    );
  });

  await t.test('a grammar that does not compile is refused', async () => {
    await assert.rejects(
      model.grammar('root ::= ['),
      (error) => error instanceof MeshError && error.code === 'invalid_request',
    );
  });

  await t.test('streams with and without it, with and without log probabilities, are each as alone', async () => {
    const asked: Asked[] = [
      { grammar: PERSON },
      { logprobs: 3 },
      {},
      { grammar: PERSON, logprobs: 2, sampling: { temperature: 1, seed: 8 } },
    ];
    const alone: (readonly number[])[] = [];
    for (const one of asked) alone.push((await generate(first, one)).generated);
    const together = await Promise.all(
      asked.map(async (one, index) => (await generate(sequences[index] ?? first, one)).generated),
    );
    assert.deepEqual(together, alone);
  });

  await t.test('a bias reaches the tokens that end an answer', async () => {
    const ends = [...vocabulary.controlTokens.values()].filter((token) => vocabulary.endsAnswer(token));
    const [end = 0] = ends;
    const never = ends.map((token) => [token, -100] as const);
    assert.equal((await generate(first, { sampling: { logitBias: [[end, 100]] } })).generated.length, 0);
    assert.equal((await generate(first, {})).hasEnd, true);
    assert.equal((await generate(first, { sampling: { logitBias: never } })).hasEnd, false);
  });

  await t.test('log probabilities under it are those of the model without it', async () => {
    await first.keep(0);
    await second.keep(0);
    const question = { sampling: GREEDY, generated: [], logprobs: 3 };
    const free = await first.next(prompt, { ...question, grammar: null });
    const bound = await second.next(prompt, { ...question, grammar: await model.grammar('root ::= "zz"') });
    assert.deepEqual(bound.logprob?.top, free.logprob?.top);
    assert.ok((bound.logprob?.logprob ?? 0) < (free.logprob?.logprob ?? 0));
  });
});

test('a batch is put in the order of sequence ids, in whichever order its parts were queued', () => {
  const { itemPrioritizationStrategy } = BATCHING;
  assert.ok(typeof itemPrioritizationStrategy === 'function');
  const items = [2, 0, 3, 1].map((id) => ({ tokens: [], logits: [], evaluationPriority: id as 1 }));
  const order = itemPrioritizationStrategy({ items, size: 4 }).map(({ item }) => item.evaluationPriority);
  assert.deepEqual(order, [0, 1, 2, 3]);
});
