import assert from 'node:assert/strict';
import { test } from 'node:test';
import { byteLevel } from '../../../node/backends/llama-cpp/child/native-vocabulary.ts';

/** The alphabet as it is defined: what prints is itself, the rest follows from U+0100 on. */
function alphabet(): string[] {
  const prints = (byte: number): boolean =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  let hidden = 0;
  return Array.from({ length: 256 }, (_, byte) => {
    if (prints(byte)) return String.fromCodePoint(byte);
    hidden += 1;
    return String.fromCodePoint(0xff + hidden);
  });
}

test('every byte is read from its character in the byte-level alphabet', () => {
  const letters = alphabet();
  assert.equal(new Set(letters).size, 256);
  for (const [byte, letter] of letters.entries()) assert.deepEqual(byteLevel(letter), [byte], letter);
  assert.deepEqual(byteLevel('Ġhi'), [0x20, 0x68, 0x69]);
  assert.deepEqual(byteLevel('ðŁ¦ī'), [...Buffer.from('🦉')]);
});

test('what is not spelt in that alphabet is not read', () => {
  for (const spelt of ['▁the', '🦉', ' ', '\n', '\u{144}']) assert.equal(byteLevel(spelt), null, spelt);
});
