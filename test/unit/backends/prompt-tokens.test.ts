import assert from 'node:assert/strict';
import { test } from 'node:test';
import { promptDigest, promptTokens, type Tokenizer } from '../../../node/backends/llama-cpp/prompt/prompt-tokens.ts';
import { MeshError } from '../../../node/common/errors.ts';

/** One token a character; counts what it was asked to tokenise. */
function characters(leadingToken: number | null = null): Tokenizer & { chars: number } {
  return {
    leadingToken,
    chars: 0,
    tokenize(text) {
      this.chars += text.length;
      return [...text].map((character) => character.codePointAt(0) ?? 0);
    },
  };
}

const failing = (code: string, pattern: RegExp) => (error: unknown) =>
  error instanceof MeshError && error.code === code && pattern.test(error.message);

test('the leading token is added once, where the model wants one', () => {
  const options = { contextTokens: 100, kind: 'completion' } as const;
  const text = (body: string) => [{ text: body, special: true }];
  assert.deepEqual(promptTokens(text('bc'), characters(97), options), [97, 98, 99]);
  assert.deepEqual(promptTokens(text('abc'), characters(97), options), [97, 98, 99]);
  assert.deepEqual(promptTokens([], characters(97), options), [97]);
  assert.throws(() => promptTokens([], characters(), options), failing('invalid_request', /empty/));
});

test('a prompt that leaves no room for an answer is refused with both numbers', () => {
  const segments = [{ text: 'x'.repeat(100), special: true }];
  assert.equal(promptTokens(segments, characters(), { contextTokens: 101, kind: 'chat' }).length, 100);
  assert.throws(
    () => promptTokens(segments, characters(), { contextTokens: 100, kind: 'chat' }),
    failing(
      'context_length_exceeded',
      /^This model's maximum context length is 100 tokens\. However, your messages resulted in 100 tokens\./,
    ),
  );
});

test('a text far beyond the context is not tokenised to its end', () => {
  const tokenizer = characters();
  const segments = [{ text: 'x'.repeat(10_000_000), special: true }];
  assert.throws(
    () => promptTokens(segments, tokenizer, { contextTokens: 100, kind: 'completion' }),
    failing('context_length_exceeded', /your prompt resulted in about 10000000 tokens/),
  );
  assert.ok(tokenizer.chars < 100_000);
});

test('the digest is sha256 over little-endian uint32', () => {
  assert.equal(promptDigest([]), 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
  assert.equal(promptDigest([1]), '67abdd721024f0ff4e0b3f4c2fc13bc5bad42d0b7851d456d88d203d15aaa450');
  assert.notEqual(promptDigest([1, 2]), promptDigest([2, 1]));
});
