import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { loadNativeModel, type NativeModel } from '../../node/backends/llama-cpp/child/native-model.ts';
import type { NativeSequence, StepQuestion } from '../../node/backends/llama-cpp/child/native-sequence.ts';
import { LEAST_REUSED_TOKENS } from '../../node/backends/llama-cpp/child/slots.ts';
import { demoModelPath } from '../../node/backends/llama-cpp/demo/demo-model.ts';
import type { LlamaEngine } from '../../node/backends/llama-cpp/engine.ts';
import { promptTokens } from '../../node/backends/llama-cpp/prompt/prompt-tokens.ts';
import { ask, chatRequest, demoEngine, neverAborted, type WholeAnswer, wholeAnswer } from '../support/demo-engine.ts';
import { GREEDY } from '../support/lane-order.ts';

const TURNS = 4;
const CONVERSATIONS = [
  ['What is meshnode?', 'What is the capital of Austria?', 'What is 3 plus 4?', 'Tell me a story.'],
  ['Tell me a story about an owl named Hugo.', 'What is the opposite of big?', 'Hello!', 'Count to 9.'],
  ['Count to 12.', 'Count to 15.', 'What is 12 plus 30?', 'What is meshnode?'],
  ['Tell me a story.', 'Tell me a story about a fox.', 'What is the capital of France?', 'What is 9 minus 4?'],
  ['Hello! What can you do?', 'What is the capital of Italy?', 'Tell me a story about a cat.', 'Who are you?'],
];

interface Message {
  readonly role: 'user' | 'assistant';
  readonly content: string;
}

interface Turn {
  readonly messages: readonly Message[];
  readonly answer: WholeAnswer;
}

const user = (content: string): Message => ({ role: 'user', content });
const isReused = ({ end }: WholeAnswer): boolean => end.usage.cachedTokens > 0;

function converse(engine: LlamaEngine, messages: readonly Message[]): Promise<WholeAnswer> {
  return wholeAnswer(engine.infer(chatRequest('', { messages, max_tokens: 60 }), { signal: neverAborted }));
}

/** The next turn of a conversation, with what was said before. */
async function nextTurn(engine: LlamaEngine, before: readonly Turn[], question: string): Promise<Turn> {
  const last = before.at(-1);
  const history: Message[] =
    last === undefined ? [] : [...last.messages, { role: 'assistant', content: last.answer.text }];
  const messages = [...history, user(question)];
  return { messages, answer: await converse(engine, messages) };
}

/** The answers of an engine that has nothing to reuse: a new child, and a sequence for each prompt. */
async function freshAnswers(test: TestContext, turns: readonly Turn[]): Promise<WholeAnswer[]> {
  const engine = demoEngine(test, { parallel: turns.length });
  const answers = await Promise.all(turns.map(({ messages }) => converse(engine, messages)));
  await engine.stop(AbortSignal.timeout(10_000));
  assert.ok(!answers.some(isReused));
  return answers;
}

test('twenty greedy turns are answered from a held beginning exactly as by fresh engines', async (t) => {
  const oneSlot = demoEngine(t, { parallel: 1 });
  const alone: Turn[][] = [];
  for (const questions of CONVERSATIONS) {
    const turns: Turn[] = [];
    for (const question of questions) turns.push(await nextTurn(oneSlot, turns, question));
    alone.push(turns);
    const fresh = await freshAnswers(t, turns);
    assert.deepEqual(
      turns.map(({ answer }) => [answer.tokens, answer.text, answer.accepted.promptDigest]),
      fresh.map(({ tokens, text, accepted }) => [tokens, text, accepted.promptDigest]),
    );
  }
  const answers = alone.flat().map(({ answer }) => answer);
  assert.ok(answers.filter(isReused).length >= 12, 'most of the fifteen later turns are long enough to reuse');
  for (const { end } of answers.filter(isReused)) {
    assert.ok(end.usage.cachedTokens >= LEAST_REUSED_TOKENS && end.usage.cachedTokens < end.usage.promptTokens);
  }

  await t.test('five conversations at once each find their own sequence again', async () => {
    const engine = demoEngine(t, { parallel: CONVERSATIONS.length });
    const together: Turn[][] = CONVERSATIONS.map(() => []);
    for (let turn = 0; turn < TURNS; turn += 1) {
      await Promise.all(
        CONVERSATIONS.map(async (questions, index) => {
          const turns = together[index] ?? [];
          turns.push(await nextTurn(engine, turns, questions[turn] ?? ''));
        }),
      );
    }
    const shown = (turns: readonly Turn[]) => turns.map(({ answer }) => [answer.text, answer.end.usage]);
    assert.deepEqual(together.map(shown), alone.map(shown));
  });
});

test('what an aborted answer had evaluated is reused, and the answer after it is the whole one', async (t) => {
  const engine = demoEngine(t, { parallel: 1 });
  const messages = [user('Tell me a story about an owl named Hugo.'.padEnd(120, ' Please.'))];
  const whole = await converse(engine, messages);
  assert.ok(whole.end.usage.promptTokens > LEAST_REUSED_TOKENS);
  // Something else in between, so that what is reused is what the aborted one left.
  await ask(engine, 'Hello!');
  const aborting = new AbortController();
  await assert.rejects(async () => {
    for await (const event of engine.infer(chatRequest('', { messages }), { signal: aborting.signal })) {
      if (event.type === 'chunk' && event.index > 5) aborting.abort();
    }
  }, /cancelled/);
  const again = await converse(engine, messages);
  assert.equal(again.end.usage.cachedTokens, again.end.usage.promptTokens - 1);
  assert.deepEqual(again.tokens, whole.tokens);
});

const question = (generated: readonly number[]): StepQuestion => ({
  sampling: GREEDY,
  generated,
  grammar: null,
  logprobs: null,
});
const NO_SUCH_TOKEN = 10_000_000;
const CONTEXT_TOKENS = 1024;

test('the sequences of a native model', async (t) => {
  const model = await loadNativeModel(
    { type: 'load', modelPath: demoModelPath(), gpu: 'off', contextTokens: CONTEXT_TOKENS, parallel: 2 },
    () => {},
  );
  const [first, second] = model.sequences;
  assert.ok(first !== undefined && second !== undefined);
  const prompt = chatTokens(model, 'Tell me a story about an owl named Hugo.');
  const unbroken = await generate(first, prompt, 12);

  await t.test('a sequence holds its prompt and all of its answer but the last token', () => {
    assert.deepEqual(first.tokens, [...prompt, ...unbroken.slice(0, -1)]);
  });

  await t.test('a sequence that is cut anywhere goes on as before', async () => {
    for (const length of [prompt.length + 5, prompt.length - 1, 4, 0]) {
      assert.equal(await first.keep(length), length);
      const rest = [...prompt, ...unbroken].slice(length, -1);
      assert.equal((await first.next(rest, question([]))).token, unbroken.at(-1), `cut to ${length}`);
    }
  });

  await t.test('sequences whose evaluation failed half-way hold nothing, and can be used again', async () => {
    // More than one batch: the first is evaluated before the second fails.
    const long = Array.from({ length: 600 }, (_, index) => prompt[index % prompt.length] ?? 0);
    await first.keep(0);
    await second.keep(0);
    const failing = [first.prefill([...long, NO_SUCH_TOKEN]), second.prefill([...prompt, NO_SUCH_TOKEN])];
    for (const result of await Promise.allSettled(failing)) assert.equal(result.status, 'rejected');
    assert.deepEqual([first.tokens, second.tokens], [[], []]);
    assert.deepEqual(await Promise.all([first.keep(40), second.keep(40)]), [0, 0]);
    for (const sequence of [first, second]) assert.deepEqual(await generate(sequence, prompt, 12), unbroken);
  });
});

function chatTokens(model: NativeModel, content: string): number[] {
  const { segments } = model.template.render([{ role: 'user', content }]);
  return promptTokens(segments, model.vocabulary.tokenizer, { contextTokens: CONTEXT_TOKENS, kind: 'chat' });
}

async function generate(sequence: NativeSequence, prompt: readonly number[], count: number): Promise<number[]> {
  await sequence.keep(0);
  const generated: number[] = [];
  let input = prompt;
  while (generated.length < count) {
    const { token } = await sequence.next(input, question(generated));
    generated.push(token);
    input = [token];
  }
  return generated;
}
