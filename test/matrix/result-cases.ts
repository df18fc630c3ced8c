/** The routes that give one result. */
import assert from 'node:assert/strict';
import type { Answer, ResultBody } from '../support/matrix-answer.ts';
import { EMBED, RANK } from '../support/matrix-nodes.ts';
import { TINY_BERT_DIMENSIONS } from '../support/tiny-bert.ts';
import { COMPLETION, type Fields, type MatrixCase, refusals, rowsOf, user } from './matrix-case.ts';

const EMBEDDING: Fields = { model: EMBED, input: 'an owl' };
const RERANK: Fields = { model: RANK, query: 'what is an owl', documents: ['a car', 'an owl is a bird', 'x'] };
const TEXT: Fields = { prompt: COMPLETION.prompt };

function vectors({ result }: Answer): number[][] {
  return result.data.map(({ embedding, index }, position) => {
    assert.equal(index, position);
    const vector = typeof embedding === 'string' ? fromBase64(embedding) : embedding;
    assert.ok(Math.abs(Math.hypot(...vector) - 1) < 1e-4, 'of length 1');
    return vector;
  });
}

function fromBase64(text: string): number[] {
  const bytes = Buffer.from(text, 'base64');
  return Array.from({ length: bytes.length / 4 }, (_, index) => bytes.readFloatLE(4 * index));
}

function near(some: readonly number[][], others: readonly number[][]): void {
  assert.equal(some.length, others.length);
  some.forEach((vector, index) => {
    const other = others[index] ?? [];
    assert.equal(vector.length, other.length);
    const cosine = vector.reduce((sum, value, at) => sum + value * (other[at] ?? 0), 0);
    assert.ok(cosine > 0.9999, `cosine ${cosine}`);
  });
}

const sameVectors: MatrixCase['holds'] = (answer, { plain }) => near(vectors(answer), vectors(plain));
const scores = ({ results }: ResultBody): number[] => results.map((result) => result.relevance_score);

const embedding = rowsOf('embedding');
const EMBEDDING_CASES: readonly MatrixCase[] = [
  embedding(['model', 'input'], 'gives a vector', {
    body: EMBEDDING,
    holds: (answer) => assert.equal(vectors(answer)[0]?.length, TINY_BERT_DIMENSIONS),
  }),
  embedding(['input'], 'of several gives one to each, in order', {
    body: { ...EMBEDDING, input: ['a car', 'an owl'] },
    against: EMBEDDING,
    holds: (answer, { plain }) => {
      const [other = [], same = []] = vectors(answer);
      near([same], vectors(plain));
      assert.notDeepEqual(other, same);
    },
  }),
  embedding(['input'], 'of token ids, one list and several', {
    body: { ...EMBEDDING, input: [[5, 6], [7]] },
    against: { ...EMBEDDING, input: [5, 6] },
    holds: (answer, { plain }) => near(vectors(answer).slice(0, 1), vectors(plain)),
  }),
  embedding(['encoding_format', 'encoding_format=base64'], 'says the same numbers', {
    body: { ...EMBEDDING, encoding_format: 'base64' },
    against: { ...EMBEDDING, encoding_format: 'float' },
    holds: (answer, asked) => {
      assert.equal(typeof answer.result.data[0]?.embedding, 'string');
      sameVectors(answer, asked);
    },
  }),
  embedding(['encoding_format=float'], 'is what it is without', {
    body: { ...EMBEDDING, encoding_format: 'float' },
    against: EMBEDDING,
    holds: (answer, asked) => {
      assert.ok(Array.isArray(answer.result.data[0]?.embedding));
      sameVectors(answer, asked);
    },
  }),
  embedding(['dimensions'], 'gives the first so many, of length 1 again', {
    body: { ...EMBEDDING, dimensions: 8 },
    against: EMBEDDING,
    holds: (answer, { plain }) => {
      const first = (vectors(plain)[0] ?? []).slice(0, 8);
      const length = Math.hypot(...first);
      near(vectors(answer), [first.map((value) => value / length)]);
    },
  }),
  ...refusals('embedding', EMBEDDING, [
    ['model', { model: 7 }],
    ['input', { input: [] }],
    ['input[1]', { input: ['a', 7] }, 'input'],
    ['encoding_format', { encoding_format: 'int8' }],
    ['dimensions', { dimensions: TINY_BERT_DIMENSIONS + 1 }],
  ]),
];

const rerank = rowsOf('rerank');
const RERANK_CASES: readonly MatrixCase[] = [
  rerank(['model', 'query', 'documents'], 'scores all, the best first', {
    body: RERANK,
    against: { ...RERANK, query: 'a car' },
    holds: ({ result }, { plain }) => {
      const given = scores(result);
      assert.equal(given.length, 3);
      assert.deepEqual(
        given,
        given.toSorted((a, b) => b - a),
      );
      assert.notDeepEqual(given, scores(plain.result));
    },
  }),
  rerank(['documents[].text'], 'is another way to write a document', {
    body: { ...RERANK, documents: [{ text: 'a car' }, { text: 'an owl is a bird' }, 'x'] },
    against: RERANK,
    holds: ({ result }, { plain }) => {
      const order = (body: ResultBody): number[] => body.results.map(({ index }) => index);
      assert.deepEqual(order(result), order(plain.result));
    },
  }),
  rerank(['top_n'], 'gives so many of the best', {
    body: { ...RERANK, top_n: 2 },
    against: RERANK,
    holds: ({ result }, { plain }) =>
      assert.deepEqual(
        result.results.map(({ index }) => index),
        plain.result.results.slice(0, 2).map(({ index }) => index),
      ),
  }),
  rerank(['return_documents'], 'repeats them', {
    body: { ...RERANK, return_documents: true },
    holds: ({ result }) => {
      for (const { index, document } of result.results) {
        assert.equal(document?.text, (RERANK['documents'] as string[])[index]);
      }
    },
  }),
  ...refusals('rerank', RERANK, [
    ['model', { model: 7 }],
    ['query', { query: '' }],
    ['documents', { documents: [] }],
    ['top_n', { top_n: 0 }],
    ['return_documents', { return_documents: 'yes' }],
  ]),
];

const tokenize = rowsOf('tokenize');
const sameTokens: MatrixCase['holds'] = ({ result }, { plain }) => {
  assert.ok(result.count > 0 && result.count === result.tokens.length);
  assert.deepEqual(result.tokens, plain.result.tokens);
};
const TOKENIZE_CASES: readonly MatrixCase[] = [
  tokenize(['model', 'prompt'], 'gives the ids that a completion counts', {
    body: TEXT,
    holds: ({ result }, { facts }) => assert.deepEqual(result.tokens, facts.promptTokens),
  }),
  tokenize(['content'], 'is another name of it, without what begins a sequence', {
    body: { content: COMPLETION.prompt },
    against: { ...TEXT, add_special_tokens: false },
    holds: sameTokens,
  }),
  tokenize(['messages'], 'gives the ids of a chat', {
    body: { messages: [user('Hi')] },
    against: { prompt: 'Hi' },
    holds: ({ result }, { plain, facts }) => {
      assert.ok(result.count > plain.result.count);
      assert.ok(result.tokens.includes(facts.endOfTurn));
    },
  }),
  tokenize(['add_special_tokens', 'add_special'], 'are two names of one thing', {
    body: { ...TEXT, add_special: false },
    against: { ...TEXT, add_special_tokens: false },
    holds: sameTokens,
  }),
  tokenize(['add_special_tokens'], 'true is what it is without', {
    body: { ...TEXT, add_special_tokens: true },
    against: TEXT,
    holds: sameTokens,
  }),
  tokenize(['add_generation_prompt'], 'true is what it is without', {
    body: { messages: [user('Hi')], add_generation_prompt: true },
    against: { messages: [user('Hi')] },
    holds: sameTokens,
  }),
  tokenize(['return_token_strs'], 'gives the text of each', {
    body: { ...TEXT, return_token_strs: true },
    holds: ({ result }) => {
      assert.equal(result.token_strs?.length, result.count);
      assert.ok(result.token_strs?.join('').endsWith(COMPLETION.prompt));
    },
  }),
  ...refusals('tokenize', TEXT, [
    ['model', { model: 7 }],
    ['prompt', { prompt: 7 }],
    ['prompt', { content: 'both' }],
    ['messages[0].role', { prompt: undefined, messages: [{ role: 'robot', content: 'x' }] }, 'messages'],
    ['add_generation_prompt', { prompt: undefined, messages: [user('Hi')], add_generation_prompt: false }],
    ['add_special', { add_special: 'yes' }],
  ]),
];

const DETOKENIZE_CASES: readonly MatrixCase[] = [
  rowsOf('detokenize')(['model', 'tokens'], 'gives the text back', {
    body: ({ promptTokens }) => ({ tokens: promptTokens }),
    holds: ({ result }) => assert.equal(result.prompt, COMPLETION.prompt),
  }),
  ...refusals('detokenize', { tokens: [1] }, [
    ['model', { model: 7 }],
    ['tokens[1]', { tokens: [1, -1] }, 'tokens'],
    ['tokens[1]', { tokens: [1, 100_000_000] }, 'tokens'],
  ]),
];

export const RESULT_CASES: readonly MatrixCase[] = [
  ...EMBEDDING_CASES,
  ...RERANK_CASES,
  ...TOKENIZE_CASES,
  ...DETOKENIZE_CASES,
];
