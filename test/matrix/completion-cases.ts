/** What completions have and chats have not. */
import assert from 'node:assert/strict';
import type { Answer } from '../support/matrix-answer.ts';
import {
  COMPLETION,
  type Fields,
  type MatrixCase,
  only,
  otherText,
  refusals,
  rowsOf,
  sameText,
  texts,
  tokensAre,
} from './matrix-case.ts';

const row = rowsOf('completion');

interface Told {
  readonly tokens: string[];
  readonly token_logprobs: (number | null)[];
  readonly top_logprobs: (Record<string, number> | null)[];
  readonly text_offset: number[];
}

/** Tokens, offsets and text say the same; so many alternatives to each. */
function told(answer: Answer, count: number): Told {
  const { text, logprobs } = only(answer);
  const { tokens, token_logprobs, top_logprobs, text_offset } = logprobs as unknown as Told;
  assert.equal(tokens.join(''), text);
  assert.equal(token_logprobs.length, tokens.length);
  tokens.forEach((token, index) => {
    assert.equal(text.slice(text_offset[index] ?? -1).startsWith(token), true, `${token} at ${text_offset[index]}`);
    if (token_logprobs[index] === null) return;
    assert.ok(Object.keys(top_logprobs[index] ?? {}).length <= count);
    // What a prompt says is not always likely; what was said greedily is the likeliest.
    const isSaid = index >= tokens.length - (answer.usage?.completion_tokens ?? 0);
    assert.ok(count === 0 || !isSaid || token in (top_logprobs[index] ?? {}));
  });
  return { tokens, token_logprobs, top_logprobs, text_offset };
}

const echoed = (fields: Fields): Fields => ({ ...COMPLETION, echo: true, ...fields });

export const COMPLETION_CASES: readonly MatrixCase[] = [
  row('prompt', 'is gone on with', {
    body: COMPLETION,
    holds: (answer) => assert.ok(only(answer).text.length > 0),
  }),
  row('prompt', 'as token ids is the same', {
    body: ({ promptTokens }) => ({ ...COMPLETION, prompt: promptTokens }),
    against: COMPLETION,
    holds: sameText,
  }),
  row('prompt', 'of several texts gives an answer to each', {
    body: { ...COMPLETION, prompt: ['Hello', COMPLETION.prompt] },
    against: COMPLETION,
    holds: (answer, { plain }) => {
      assert.equal(answer.choices.length, 2);
      assert.equal(texts(answer)[1], only(plain).text);
    },
  }),
  row('prompt', 'of several lists of token ids, with n, gives n answers to each', {
    body: ({ promptTokens }) => ({ ...COMPLETION, prompt: [promptTokens, [...promptTokens, ...promptTokens]], n: 2 }),
    against: COMPLETION,
    holds: (answer, { plain }) => {
      const [first, second, third, fourth] = texts(answer);
      assert.equal(answer.choices.length, 4);
      assert.deepEqual([first, second], [only(plain).text, only(plain).text]);
      assert.equal(third, fourth);
    },
  }),
  row('max_tokens', 'ends the answer', { body: { ...COMPLETION, max_tokens: 3 }, holds: tokensAre(3) }),
  row('max_tokens', 'is 16 where nothing is said', {
    body: ({ endOfTurn }) => ({
      ...COMPLETION,
      max_tokens: undefined,
      logit_bias: { [String(endOfTurn)]: -100 },
    }),
    holds: (answer) => assert.ok((answer.usage?.completion_tokens ?? 99) <= 16),
  }),
  row('max_tokens', '0 with echo repeats the prompt and no more', {
    body: echoed({ max_tokens: 0 }),
    holds: (answer) => {
      assert.equal(only(answer).text, COMPLETION.prompt);
      assert.equal(answer.usage?.completion_tokens, 0);
    },
  }),
  row('logprobs', 'tells of each token and its alternatives', {
    body: { ...COMPLETION, logprobs: 2 },
    holds: (answer) => {
      const { tokens, top_logprobs } = told(answer, 2);
      assert.equal(tokens.length, answer.usage?.completion_tokens);
      assert.ok(top_logprobs.some((tops) => Object.keys(tops ?? {}).length === 2));
    },
  }),
  row('logprobs', '0 tells of each token alone', {
    body: { ...COMPLETION, logprobs: 0 },
    holds: (answer) => assert.equal(told(answer, 0).tokens.length, answer.usage?.completion_tokens),
  }),
  row('echo', 'begins with the prompt', {
    body: echoed({}),
    against: COMPLETION,
    holds: (answer, { plain }) => assert.equal(only(answer).text, COMPLETION.prompt + only(plain).text),
  }),
  row('echo', 'with logprobs tells of the tokens of the prompt too, but for the first', {
    body: echoed({ logprobs: 1 }),
    holds: (answer) => {
      const { tokens, token_logprobs } = told(answer, 1);
      const { prompt_tokens = 0, completion_tokens = 0 } = answer.usage ?? {};
      assert.equal(tokens.length, prompt_tokens + completion_tokens);
      assert.deepEqual(
        token_logprobs.map((one) => one === null),
        tokens.map((_, index) => index === 0),
      );
    },
  }),
  row('echo', 'with logprobs tells of a prompt of one token too', {
    body: ({ promptTokens }) => echoed({ logprobs: 1, prompt: promptTokens.slice(0, 1) }),
    holds: (answer) => assert.equal(told(answer, 1).token_logprobs[0], null),
  }),
  row('best_of', 'that is n is taken', { body: { ...COMPLETION, best_of: 1 }, against: COMPLETION, holds: sameText }),
  row('suffix', 'is led up to, by a model made for it', {
    body: { ...COMPLETION, suffix: ' The end.' },
    against: COMPLETION,
    refuses: ({ facts }) => (facts.fillsIn ? null : 'suffix'),
    holds: otherText,
  }),
  row('suffix', 'that is empty is none', { body: { ...COMPLETION, suffix: '' }, against: COMPLETION, holds: sameText }),
  ...refusals('completion', COMPLETION, [
    ['prompt', { prompt: undefined }],
    ['prompt', { prompt: [] }],
    ['prompt[1]', { prompt: ['a', 7] }, 'prompt'],
    ['prompt[1]', { prompt: [1, 'a'] }, 'prompt'],
    ['max_tokens', { max_tokens: 0 }],
    ['logprobs', { logprobs: 6 }],
    ['best_of', { best_of: 3 }],
    ['echo', { echo: 'yes' }],
    ['suffix', { suffix: 'x', echo: true }],
    ['suffix', { suffix: 'x', prompt: [1, 2] }],
  ]),
];
