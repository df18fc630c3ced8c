import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Vocabulary } from '../../../node/backends/llama-cpp/child/native-vocabulary.ts';
import { echoText, type PromptModel, renderPrompt } from '../../../node/backends/llama-cpp/child/rendered-prompt.ts';
import { ChatTemplate } from '../../../node/backends/llama-cpp/prompt/chat-template.ts';
import type { Prompt } from '../../../node/backends/llama-cpp/request/generation-request.ts';
import { MeshError } from '../../../node/common/errors.ts';

const FILL = { prefix: 1_001, suffix: 1_002, middle: 1_003 };

/** Tokens are characters. */
function model({
  leadingToken = null,
  fill = FILL,
  contextTokens = 50,
}: Partial<Vocabulary['tokenizer'] & Vocabulary & PromptModel> = {}): PromptModel {
  return {
    contextTokens,
    template: new ChatTemplate({ template: null, bosToken: '', eosToken: '', controlTokens: [] }),
    vocabulary: {
      size: 2_000,
      tokenizer: { leadingToken, tokenize: (text) => [...text].map((letter) => letter.codePointAt(0) ?? 0) },
      detokenize: (tokens) => String.fromCodePoint(...tokens),
      endsAnswer: () => false,
      piece: () => ({ token: '', bytes: [] }),
      controlTokens: new Map(),
      fill,
    },
  };
}

const codes = (text: string): number[] => [...text].map((letter) => letter.codePointAt(0) ?? 0);
const failsWith = (code: string, param: string) => (error: unknown) =>
  error instanceof MeshError && error.code === code && error.facts.param === param;

test('a middle is asked for behind both its sides', () => {
  const prompt: Prompt = { kind: 'fill', prefix: 'ab', suffix: 'c' };
  const tokens = [FILL.prefix, ...codes('ab'), FILL.suffix, ...codes('c'), FILL.middle];
  assert.deepEqual(renderPrompt(prompt, model()).tokens, tokens);
  assert.deepEqual(renderPrompt(prompt, model({ leadingToken: 7 })).tokens, [7, ...tokens]);
  assert.deepEqual(renderPrompt({ ...prompt, prefix: '' }, model()).tokens.slice(0, 2), [FILL.prefix, FILL.suffix]);
  assert.equal(echoText(prompt, model()), 'ab');
  assert.throws(() => renderPrompt(prompt, model({ fill: null })), failsWith('invalid_request', 'suffix'));
  assert.throws(
    () => renderPrompt(prompt, model({ contextTokens: 6 })),
    failsWith('context_length_exceeded', 'prompt'),
  );
});

test('token prompts are taken as they are, and must be of the vocabulary', () => {
  const tokens = (...ids: number[]): Prompt => ({ kind: 'tokens', tokens: ids });
  assert.deepEqual(renderPrompt(tokens(65, 66), model({ leadingToken: 7 })).tokens, [65, 66]);
  assert.equal(echoText(tokens(65, 66), model()), 'AB');
  for (const strange of [tokens(), tokens(2_000), tokens(-1), tokens(0.5), tokens(Number.NaN)]) {
    assert.throws(() => renderPrompt(strange, model()), failsWith('invalid_request', 'prompt'));
  }
  const long = tokens(...Array.from({ length: 50 }, () => 65));
  assert.throws(() => renderPrompt(long, model()), failsWith('context_length_exceeded', 'prompt'));
});

test('a prompt that ends within a thought says so', () => {
  const chat: Prompt = { kind: 'chat', messages: [{ role: 'user', content: 'hi' }], tools: [] };
  assert.equal(renderPrompt(chat, model({ contextTokens: 500 })).startsInReasoning, false);
  const template = new ChatTemplate({
    template: "{{ messages[0]['content'] }}<think>\n",
    bosToken: '',
    eosToken: '',
    controlTokens: [],
  });
  assert.equal(renderPrompt(chat, { ...model(), template }).startsInReasoning, true);
});
