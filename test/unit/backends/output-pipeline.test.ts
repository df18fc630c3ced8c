import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OutputPipeline } from '../../../node/backends/llama-cpp/output/output-pipeline.ts';
import fc from '../../support/fc.ts';

const plain = (stops: readonly string[]): OutputPipeline =>
  new OutputPipeline(
    { detokenize: bytes, tagTokens: new Map() },
    {
      stops,
      dialect: null,
      parseTools: false,
      parallelTools: true,
      callIdSeed: 'seed',
      startsInReasoning: false,
    },
  );

/** Every token is one byte, so that characters span tokens in the worst way. */
const bytes = (tokens: readonly number[]): string => Buffer.from(tokens).toString('utf8');
const tokensOf = (text: string): number[] => [...Buffer.from(text, 'utf8')];

/** All that comes out of a run, piece by piece. */
function run(tokens: readonly number[], stops: readonly string[]): { pieces: string[]; stopped: boolean } {
  const pipeline = plain(stops);
  const pieces: string[] = [];
  for (const token of tokens) {
    const { text, finish } = pipeline.push(token);
    pieces.push(text);
    if (finish === 'stop') return { pieces, stopped: true };
  }
  const { text, finish } = pipeline.end('stop');
  pieces.push(text);
  assert.equal(finish, 'stop');
  return { pieces, stopped: false };
}

const text = fc.string({ unit: 'grapheme', maxLength: 40 });
const stop = fc.string({ unit: fc.constantFrom('a', 'b', 'é', '🦉'), minLength: 1, maxLength: 4 });
const chatty = fc.string({ unit: fc.constantFrom('a', 'b', 'é', '🦉', ' '), maxLength: 40 });

test('without stop strings the pieces are the text, and no piece shows half a character', () => {
  fc.assert(
    fc.property(text, (whole) => {
      const { pieces } = run(tokensOf(whole), []);
      assert.equal(pieces.join(''), whole.toWellFormed());
      assert.ok(pieces.every((piece) => !piece.includes('\uFFFD') || whole.toWellFormed().includes('\uFFFD')));
    }),
  );
});

test('nothing of a stop string is shown, whatever tokens it comes in, and all before it is', () => {
  fc.assert(
    fc.property(chatty, fc.array(stop, { minLength: 1, maxLength: 3 }), (whole, stops) => {
      const { pieces, stopped } = run(tokensOf(whole), stops);
      const shown = pieces.join('');
      assert.ok(whole.startsWith(shown));
      assert.equal(
        stopped,
        stops.some((one) => whole.includes(one)),
      );
      assert.ok(stops.every((one) => !shown.includes(one)));
      if (stopped) assert.ok(stops.some((one) => whole.slice(shown.length).startsWith(one)));
      else assert.equal(shown, whole);
    }),
  );
});

test('a replay of the emitted tokens shows the same text and goes on alike', () => {
  fc.assert(
    fc.property(chatty, fc.array(stop, { maxLength: 3 }), fc.nat(60), (whole, stops, cut) => {
      const tokens = tokensOf(whole);
      const unbroken = run(tokens, stops);
      const replayed = plain(stops);
      const first = tokens.slice(0, cut).map((token) => replayed.push(token).text);
      assert.deepEqual(first.slice(0, unbroken.pieces.length), unbroken.pieces.slice(0, first.length));
      const rest = tokens.slice(cut).map((token) => replayed.push(token).text);
      assert.equal([...first, ...rest, replayed.end('stop').text].join(''), unbroken.pieces.join(''));
    }),
  );
});

test('a beginning of a stop string that comes to nothing is shown at the end', () => {
  assert.deepEqual(run(tokensOf('ok<|im'), ['<|im_end|>']).pieces.join(''), 'ok<|im');
});

test('bytes that are no character are shown as such instead of being held for ever', () => {
  const pipeline = plain([]);
  const shown = Array.from({ length: 20 }, () => pipeline.push(0xf0).text).join('');
  assert.ok(shown.length >= 8, 'comes out while it runs');
});

test('a character cut off at the end is shown as U+FFFD', () => {
  assert.equal(run([0x61, 0xf0, 0x9f], []).pieces.join(''), 'a\uFFFD');
});
