/** Messages, lengths and log probabilities of chats. */
import assert from 'node:assert/strict';
import type { Answer } from '../support/matrix-answer.ts';
import {
  CHAT,
  type Fields,
  longerPrompt,
  type MatrixCase,
  only,
  refusals,
  rowsOf,
  samePrompt,
  sameText,
  tokensAre,
  user,
} from './matrix-case.ts';

const QUESTION = user('Count to 9.');
const said = (fields: Fields): Fields => ({ role: 'assistant', content: 'Hello.', ...fields });
const call = (fields: Fields): Fields => ({ id: 'call_1', type: 'function', function: fields });
const chat = (...messages: readonly Fields[]): Fields => ({ ...CHAT, messages });
const CALLED = said({ content: null, tool_calls: [call({ name: 'weather', arguments: '{"city":"Ulm"}' })] });
const RESULT: Fields = { role: 'tool', tool_call_id: 'call_1', content: 'It rains.' };

const row = rowsOf('chat');

/** The same prompt, hence the same answer. */
const same: MatrixCase['holds'] = (answer, asked) => {
  samePrompt(answer, asked);
  sameText(answer, asked);
};

const MESSAGES: readonly MatrixCase[] = [
  row(['messages', 'messages[].role', 'messages[].role=user', 'messages[].content'], 'are what is answered', {
    body: chat(QUESTION),
    against: chat(user('Count to 9. And then go on, and on.')),
    holds: (answer, { plain }) => {
      assert.ok(only(answer).text.length > 0);
      assert.ok((answer.usage?.prompt_tokens ?? 0) < (plain.usage?.prompt_tokens ?? 0));
    },
  }),
  row(['messages[].role=system'], 'is read', {
    body: chat({ role: 'system', content: 'Be brief.' }, QUESTION),
    against: chat(QUESTION),
    holds: longerPrompt,
  }),
  row(['messages[].role=developer'], 'is another word for system', {
    body: chat({ role: 'developer', content: 'Be brief.' }, QUESTION),
    against: chat({ role: 'system', content: 'Be brief.' }, QUESTION),
    holds: same,
  }),
  row(['messages[].role=assistant'], 'is read', {
    body: chat(user('Hi'), said({}), QUESTION),
    against: chat(user('Hi'), QUESTION),
    holds: longerPrompt,
  }),
  row(['messages[].role=tool', 'messages[].tool_call_id', 'messages[].tool_calls'], 'are read', {
    body: chat(user('Hi'), CALLED, RESULT, QUESTION),
    against: chat(user('Hi'), said({ content: '' }), QUESTION),
    holds: longerPrompt,
  }),
  row(
    [
      'messages[].tool_calls[].id',
      'messages[].tool_calls[].type',
      'messages[].tool_calls[].function',
      'messages[].tool_calls[].function.name',
      'messages[].tool_calls[].function.arguments',
    ],
    'are read',
    {
      body: chat(
        user('Hi'),
        said({
          content: null,
          tool_calls: [call({ name: 'weather_of_a_city', arguments: '{"city":"Ulm by the river"}' })],
        }),
        RESULT,
        QUESTION,
      ),
      against: chat(user('Hi'), CALLED, RESULT, QUESTION),
      holds: longerPrompt,
    },
  ),
  row(['messages[].content[].type', 'messages[].content[].text'], 'are one text when joined', {
    body: chat(
      user([
        { type: 'text', text: 'Count ' },
        { type: 'text', text: 'to 9.' },
      ]),
    ),
    against: chat(QUESTION),
    holds: same,
  }),
  row(['messages[].content[].refusal'], 'is what the assistant said', {
    body: chat(user('Hi'), said({ content: [{ type: 'refusal', refusal: 'I will not.' }] }), QUESTION),
    against: chat(user('Hi'), said({ content: 'I will not.' }), QUESTION),
    holds: same,
  }),
  row(['messages[].name'], 'is taken; what comes of it is up to the template', {
    body: chat({ ...QUESTION, name: 'Hugo' }),
    holds: (answer) => assert.ok(only(answer).text.length > 0),
  }),
  row(['messages[].reasoning_content'], 'is taken; what comes of it is up to the template', {
    body: chat(user('Hi'), said({ reasoning_content: 'I should greet.' }), QUESTION),
    holds: (answer) => assert.ok(only(answer).text.length > 0),
  }),
  row(['messages[].content', 'messages[].name', 'max_tokens'], 'null is absent, and what is unknown is ignored', {
    body: { ...chat({ ...QUESTION, name: null, odd: 1 }), top_p: null, tools: null, odd: { deep: [1] } },
    against: chat(QUESTION),
    holds: same,
  }),
];

const image = { type: 'image_url', image_url: { url: 'data:image/png;base64,AAAA' } };

const REFUSALS = refusals('chat', CHAT, [
  ['messages', { messages: [] }],
  ['messages[1].role', { messages: [QUESTION, { role: 'robot', content: 'x' }] }],
  ['messages[0].content[1].type', { messages: [user([{ type: 'text', text: 'What is it?' }, image])] }],
  ['messages[0].content[0].type', { messages: [user([{ type: 'input_audio', input_audio: {} }])] }],
  ['messages[0].content[0].text', { messages: [user([{ type: 'text' }])] }],
  ['messages[0].name', { messages: [{ ...QUESTION, name: 7 }] }],
  ['messages[1].tool_call_id', { messages: [CALLED, { role: 'tool', content: 'x' }] }],
  ['messages[0].tool_calls', { messages: [{ ...CALLED, role: 'user', content: 'x' }] }],
  [
    'messages[0].tool_calls[0].id',
    { messages: [said({ tool_calls: [{ function: { name: 'a', arguments: '{}' } }] })] },
  ],
  [
    'messages[0].tool_calls[0].type',
    { messages: [said({ tool_calls: [{ ...call({ name: 'a', arguments: '{}' }), type: 'custom' }] })] },
  ],
  [
    'messages[0].tool_calls[0].function.arguments',
    { messages: [said({ tool_calls: [call({ name: 'a', arguments: {} })] })] },
  ],
  ['messages[0].reasoning_content', { messages: [said({ reasoning_content: 7 })] }],
  ['max_tokens', { max_tokens: 0 }],
  ['max_completion_tokens', { max_completion_tokens: 0 }],
  ['logprobs', { logprobs: 3 }],
  ['top_logprobs', { logprobs: true, top_logprobs: 21 }],
  ['top_logprobs', { top_logprobs: 2 }],
  ['functions', { functions: [{ name: 'weather' }] }],
  ['function_call', { function_call: { name: 'weather' } }],
  ['modalities', { modalities: ['text', 'audio'] }],
  ['web_search_options', { web_search_options: {} }],
]);

/** One for each token, which together are the text; greedy, so each is the first of the likeliest. */
function toldOfEachToken(answer: Answer, count: number): void {
  const content = (only(answer).logprobs['content'] ?? []) as {
    readonly token: string;
    readonly logprob: number;
    readonly top_logprobs: readonly { readonly token: string; readonly logprob: number }[];
  }[];
  assert.equal(content.length, answer.usage?.completion_tokens);
  assert.equal(content.map(({ token }) => token).join(''), only(answer).text);
  for (const { token, logprob, top_logprobs } of content) {
    assert.ok(logprob <= 0);
    assert.equal(top_logprobs.length, count);
    if (count === 0) continue;
    assert.equal(top_logprobs[0]?.token, token);
    assert.ok(Math.abs((top_logprobs[0]?.logprob ?? 9) - logprob) < 1e-3);
    assert.deepEqual(
      top_logprobs.map((one) => one.logprob),
      top_logprobs.map((one) => one.logprob).toSorted((a, b) => b - a),
    );
  }
}

export const CHAT_CASES: readonly MatrixCase[] = [
  ...MESSAGES,
  row(['max_tokens'], 'ends the answer', { body: { ...CHAT, max_tokens: 3 }, holds: tokensAre(3) }),
  row(['max_completion_tokens'], 'ends the answer, and wins', {
    body: { ...CHAT, max_tokens: 9, max_completion_tokens: 4 },
    holds: tokensAre(4),
  }),
  row(['logprobs'], 'tells of each token', {
    body: { ...CHAT, logprobs: true },
    holds: (answer) => toldOfEachToken(answer, 0),
  }),
  row(['logprobs'], 'false tells nothing', {
    body: { ...CHAT, logprobs: false },
    holds: (answer) => assert.deepEqual(only(answer).logprobs, {}),
  }),
  row(['top_logprobs'], 'tells so many of the likeliest', {
    body: { ...CHAT, logprobs: true, top_logprobs: 3 },
    holds: (answer) => toldOfEachToken(answer, 3),
  }),
  row(['functions', 'function_call', 'modalities'], 'that ask for nothing are taken', {
    body: { ...CHAT, functions: [], function_call: 'none', modalities: ['text'] },
    against: CHAT,
    holds: sameText,
  }),
  ...REFUSALS,
];
