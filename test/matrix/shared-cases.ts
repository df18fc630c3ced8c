/** The fields that chats and completions share. */
import assert from 'node:assert/strict';
import { DEMO } from '../support/matrix-nodes.ts';
import {
  CHAT,
  COMPLETION,
  type Fields,
  type MatrixCase,
  only,
  otherText,
  refusals,
  rowsOf,
  sameText,
  texts,
  user,
} from './matrix-case.ts';

export function sharedCases(route: 'chat' | 'completion'): MatrixCase[] {
  const greedy: Fields = route === 'chat' ? CHAT : COMPLETION;
  const hot: Fields = { ...greedy, temperature: 2, seed: 11, top_k: 0 };
  // Long and wild enough for a push to show.
  const story: Fields = {
    ...greedy,
    ...(route === 'chat' ? { messages: [user('Tell me a story.')] } : { prompt: 'Once upon a time' }),
    temperature: 2,
    top_k: 0,
    seed: 7,
    max_tokens: 60,
  };
  const row = rowsOf(route);
  const likeGreedy = (field: string, fields: Fields): MatrixCase =>
    row(field, `as far as it goes leaves the likeliest: ${JSON.stringify(fields)}`, {
      body: { ...hot, ...fields },
      against: greedy,
      holds: sameText,
    });
  const changes = (field: string, fields: Fields): MatrixCase =>
    row(field, `changes what is said: ${JSON.stringify(fields)}`, {
      body: { ...story, ...fields },
      against: story,
      holds: otherText,
    });
  return [
    row('model', 'is named in every part of the answer', {
      body: greedy,
      holds: ({ events }) => {
        for (const { model } of events) assert.equal(model, DEMO);
      },
    }),
    row('stream', 'makes it events, and is nothing else than absent when null', {
      body: greedy,
      holds: ({ headers, events, choices }, { stream }) => {
        const type = stream ? 'text/event-stream' : 'application/json';
        assert.ok(headers.get('content-type')?.startsWith(type));
        assert.ok(stream ? events.length > 3 : events.length === 1);
        for (const { finishes } of choices) assert.equal(finishes.length, 1);
      },
    }),
    {
      route,
      fields: ['stream_options', 'stream_options.include_usage'],
      says: 'adds one chunk without choices at the end, with usage and timings; a whole answer refuses it',
      body: { ...greedy, stream_options: { include_usage: true } },
      refuses: ({ stream }) => (stream ? null : 'stream_options'),
      holds: ({ events }) => {
        const last = events.at(-1);
        assert.deepEqual(last?.choices, []);
        assert.ok((last.usage?.completion_tokens ?? 0) > 0 && (last.timings?.['predicted_n'] ?? 0) > 0);
        for (const { choices, usage } of events.slice(0, -1)) {
          assert.equal(choices.length, 1);
          assert.equal(usage, null);
        }
      },
    },
    row('stream_options', 'absent: no chunk is without a choice or tells usage', {
      body: { ...greedy, stream_options: undefined },
      holds: ({ events }, { stream }) => {
        for (const { choices, usage } of events) {
          assert.equal(choices.length, 1);
          if (stream) assert.equal(usage, undefined);
        }
      },
    }),
    row('timings', 'are told beside usage, and both count alike', {
      body: greedy,
      holds: ({ usage, timings }) => {
        assert.equal(timings?.['predicted_n'], usage?.completion_tokens);
        assert.equal((timings?.['cache_n'] ?? 0) + (timings?.['prompt_n'] ?? 0), usage?.prompt_tokens);
        assert.equal((usage?.prompt_tokens ?? 0) + (usage?.completion_tokens ?? 0), usage?.total_tokens);
      },
    }),
    row('temperature', 'above 0 samples', { body: hot, against: greedy, holds: otherText }),
    likeGreedy('temperature', { temperature: 0 }),
    likeGreedy('top_p', { top_p: 0.000_001 }),
    likeGreedy('top_k', { top_k: 1 }),
    likeGreedy('min_p', { min_p: 1 }),
    changes('repeat_penalty', { repeat_penalty: 3 }),
    changes('frequency_penalty', { frequency_penalty: 2 }),
    changes('presence_penalty', { presence_penalty: 2 }),
    row('seed', 'repeats the answer', { body: hot, against: hot, holds: sameText }),
    row('seed', 'another one gives another answer', { body: { ...hot, seed: -5 }, against: hot, holds: otherText }),
    row('stop', 'ends the answer before it', {
      body: ({ greedy: text }) => ({ ...greedy, stop: text[route].slice(3, 7) }),
      holds: (answer, { facts }) => {
        const text = facts.greedy[route];
        assert.equal(only(answer).text, text.slice(0, text.indexOf(text.slice(3, 7))));
        assert.deepEqual(only(answer).finishes, ['stop']);
      },
    }),
    row('stop', 'of several the first that comes', {
      body: ({ greedy: text }) => ({
        ...greedy,
        stop: ['neverneverland', text[route].slice(6, 8), text[route].slice(3, 5)],
      }),
      holds: (answer, { facts }) => {
        const text = facts.greedy[route];
        const ends = [text.indexOf(text.slice(6, 8)), text.indexOf(text.slice(3, 5))];
        assert.equal(only(answer).text, text.slice(0, Math.min(...ends)));
      },
    }),
    row('n', 'gives so many answers, each of its own', {
      body: { ...hot, n: 3 },
      holds: (answer) => {
        assert.equal(answer.choices.length, 3);
        assert.equal(new Set(texts(answer)).size, 3);
        for (const { finishes } of answer.choices) assert.equal(finishes.length, 1);
      },
    }),
    row('n', 'gives the likeliest answer as often as asked, and counts each', {
      body: { ...greedy, n: 2 },
      against: greedy,
      holds: (answer, { plain }) => {
        assert.deepEqual(texts(answer), [only(plain).text, only(plain).text]);
        assert.equal(answer.usage?.completion_tokens, 2 * (plain.usage?.completion_tokens ?? 0));
        assert.equal(answer.usage?.prompt_tokens, plain.usage?.prompt_tokens);
      },
    }),
    row('logit_bias', '-100 forbids a token', {
      body: ({ first }) => ({ ...greedy, logit_bias: { [String(first[route])]: -100 } }),
      holds: (answer, { facts }) => {
        const start = facts.greedy[route].slice(0, 1);
        assert.ok(start === ' ' || !only(answer).text.startsWith(start), only(answer).text);
        assert.notEqual(only(answer).text, facts.greedy[route]);
      },
    }),
    row('logit_bias', '100 demands it', {
      body: ({ first }) => ({ ...greedy, max_tokens: 3, logit_bias: { [String(first[route])]: 100 } }),
      holds: (answer) => {
        const { text } = only(answer);
        const part = text.slice(0, text.length / 3);
        assert.equal(text, part.repeat(3));
      },
    }),
    ...refusals(route, greedy, [
      ['temperature', { temperature: 7 }],
      ['top_p', { top_p: 2 }],
      ['top_k', { top_k: -1 }],
      ['min_p', { min_p: 2 }],
      ['repeat_penalty', { repeat_penalty: -1 }],
      ['frequency_penalty', { frequency_penalty: 3 }],
      ['presence_penalty', { presence_penalty: -3 }],
      ['seed', { seed: 'x' }],
      ['stop[1]', { stop: ['a', 7] }, 'stop'],
      ['n', { n: 0 }],
      ['logit_bias', { logit_bias: { owl: 1 } }],
      ['model', { model: 7 }],
    ]),
  ];
}
