import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../../node/common/errors.ts';
import { parseEmbeddingBody } from '../../../protocols/inference/bodies/embedding-body.ts';
import { parseRerankBody } from '../../../protocols/inference/bodies/rerank-body.ts';
import { parseDetokenizeBody, parseTokenizeBody } from '../../../protocols/inference/bodies/tokenize-body.ts';
import fc from '../../support/fc.ts';

const bytes = (body: unknown): Uint8Array => Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));

const PARSERS = {
  embedding: parseEmbeddingBody,
  rerank: parseRerankBody,
  tokenize: parseTokenizeBody,
  detokenize: parseDetokenizeBody,
};
type Kind = keyof typeof PARSERS;

const GOOD: Record<Kind, object> = {
  embedding: { model: 'm', input: 'hi' },
  rerank: { model: 'm', query: 'q', documents: ['a', { text: 'b' }] },
  tokenize: { model: 'm', prompt: 'hi' },
  detokenize: { model: 'm', tokens: [1, 2] },
};

/** The field that the refusal names, `-` for none. */
function refused(kind: Kind, body: unknown): string {
  try {
    PARSERS[kind](bytes(body));
  } catch (error) {
    assert.ok(error instanceof MeshError, String(error));
    assert.equal(error.code, 'invalid_request');
    assert.ok(!error.message.includes('secret'), 'bodies do not belong in errors');
    return error.facts.param ?? '-';
  }
  return 'accepted';
}

test('each wrong field is named the way the client wrote it', () => {
  const wrong: [Kind, string, object][] = [
    ['embedding', 'model', { model: '' }],
    ['embedding', 'model', { model: null }],
    ['embedding', 'input', { input: null }],
    ['embedding', 'input', { input: 5 }],
    ['embedding', 'input', { input: { text: 'secret' } }],
    ['embedding', 'input', { input: '' }],
    ['embedding', 'input', { input: [] }],
    ['embedding', 'input', { input: Array(2049).fill('a') }],
    ['embedding', 'input[1]', { input: ['a', ''] }],
    ['embedding', 'input[1]', { input: ['a', []] }],
    ['embedding', 'input[1]', { input: ['a', 7] }],
    ['embedding', 'input[0]', { input: [null] }],
    ['embedding', 'input[1]', { input: [1, 'secret'] }],
    ['embedding', 'input[1]', { input: [1, -1] }],
    ['embedding', 'input[2]', { input: [1, 2, 0.5] }],
    ['embedding', 'input[0]', { input: [2 ** 31] }],
    ['embedding', 'input[1][2]', { input: [[1], [1, 2, '3']] }],
    ['embedding', 'encoding_format', { encoding_format: 'int8' }],
    ['embedding', 'dimensions', { dimensions: 0 }],
    ['embedding', 'dimensions', { dimensions: 1.5 }],
    ['embedding', 'dimensions', { dimensions: '64' }],
    ['rerank', 'query', { query: '' }],
    ['rerank', 'query', { query: null }],
    ['rerank', 'documents', { documents: [] }],
    ['rerank', 'documents', { documents: 'secret' }],
    ['rerank', 'documents', { documents: Array(2049).fill('a') }],
    ['rerank', 'documents[1]', { documents: ['a', 5] }],
    ['rerank', 'documents[0]', { documents: [{ title: 'secret' }] }],
    ['rerank', 'top_n', { top_n: 0 }],
    ['rerank', 'return_documents', { return_documents: 'yes' }],
    ['tokenize', 'prompt', { prompt: 5 }],
    ['tokenize', 'prompt', { prompt: null }],
    ['tokenize', 'prompt', { messages: [] }],
    ['tokenize', 'prompt', { content: 'secret' }],
    ['tokenize', 'prompt', { prompt: 'a'.repeat(1024 * 1024 + 1) }],
    ['tokenize', 'add_special_tokens', { add_special_tokens: 1 }],
    ['tokenize', 'add_generation_prompt', { add_generation_prompt: false }],
    ['tokenize', 'return_token_strs', { return_token_strs: 'yes' }],
    ['detokenize', 'tokens', { tokens: 5 }],
    ['detokenize', 'tokens[1]', { tokens: [1, 'secret'] }],
    ['detokenize', 'tokens[0]', { tokens: [-1] }],
  ];
  for (const [kind, param, fields] of wrong) {
    assert.equal(refused(kind, { ...GOOD[kind], ...fields }), param, `${kind} ${Object.keys(fields)}`);
  }
});

test('a malformed body is refused without quoting it', () => {
  for (const kind of Object.keys(PARSERS) as Kind[]) {
    for (const body of ['', '{', 'my secret', '"text"', '[]', '5', 'null', '{"secret": "half']) {
      assert.equal(refused(kind, body), '-');
    }
    assert.throws(() => PARSERS[kind](Uint8Array.of(0x22, 0xff, 0x22)), /not valid UTF-8/);
  }
});

test('unknown fields are ignored and explicit nulls are absent', () => {
  const body = { ...GOOD.embedding, user: 'u', dimensions: null, encoding_format: null, whatever: { a: [1] } };
  const { dimensions, encoding_format } = parseEmbeddingBody(bytes(body));
  assert.deepEqual([dimensions, encoding_format], [undefined, undefined]);
});

test('every form of input becomes a list of texts and token lists', () => {
  const forms: [unknown, unknown][] = [
    ['hi', ['hi']],
    [['hi'], ['hi']],
    [
      ['a', 'b'],
      ['a', 'b'],
    ],
    [[1, 2, 3], [[1, 2, 3]]],
    [
      [[1], [2, 3]],
      [[1], [2, 3]],
    ],
    [
      ['a', [1]],
      ['a', [1]],
    ],
  ];
  for (const [input, expected] of forms) {
    assert.deepEqual(parseEmbeddingBody(bytes({ model: 'm', input })).input, expected);
  }
});

test('documents are texts or objects with a text', () => {
  assert.deepEqual(parseRerankBody(bytes(GOOD.rerank)).documents, ['a', 'b']);
});

test('the two forms of tokenize differ in whether the first token is added', () => {
  const parsed = (fields: object): unknown => parseTokenizeBody(bytes({ model: 'm', ...fields }));
  const base = { model: 'm', tokenStrings: false };
  assert.deepEqual(parsed({ prompt: '' }), { ...base, text: '', addSpecial: true });
  assert.deepEqual(parsed({ prompt: 'a', add_special_tokens: false }), { ...base, text: 'a', addSpecial: false });
  assert.deepEqual(parsed({ content: 'a' }), { ...base, text: 'a', addSpecial: false });
  assert.deepEqual(parsed({ content: 'a', add_special: true }), { ...base, text: 'a', addSpecial: true });
  assert.deepEqual(parsed({ messages: [{ role: 'user' }] }), { ...base, text: null, addSpecial: true });
});

test('whatever JSON comes in, it is parsed or refused', () => {
  const kinds = fc.constantFrom(...(Object.keys(PARSERS) as Kind[]));
  const fields = fc.constantFrom(
    'input',
    'documents',
    'query',
    'prompt',
    'content',
    'messages',
    'tokens',
    'dimensions',
  );
  fc.assert(
    fc.property(kinds, fields, fc.jsonValue(), (kind, field, value) => {
      refused(kind, { ...GOOD[kind], [field]: value });
    }),
  );
});
