import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fittingContext, weightsFit } from '../../../node/backends/llama-cpp/memory/context-fit.ts';
import { MeshError } from '../../../node/common/errors.ts';

const MIB = 2 ** 20;
/** 1 MiB for a thousand tokens. */
const need = async (tokens: number) => ({ ramBytes: (tokens / 1_000) * MIB, vramBytes: 0 });
const fit = (requestedTokens: number | null, trainedTokens: number, freeMib: number): Promise<number> =>
  fittingContext({
    requestedTokens,
    trainedTokens,
    parallel: 4,
    free: { ramBytes: freeMib * MIB, vramBytes: 0 },
    need,
  });
const outOfMemory = (pattern: RegExp) => (error: unknown) =>
  error instanceof MeshError && error.code === 'out_of_memory' && pattern.test(error.message);

test('unasked, a context is what the model was trained for, up to 8192', async () => {
  assert.equal(await fit(null, 512, 100), 512);
  assert.equal(await fit(null, 131_072, 100), 8_192);
});

test('unasked, a context shrinks until it fits', async () => {
  assert.equal(await fit(null, 131_072, 5), 4_096);
  await assert.rejects(fit(null, 131_072, 0.1), outOfMemory(/512 tokens for 4 requests/));
});

test('a context that was asked for is taken or refused, never shrunk', async () => {
  assert.equal(await fit(20_000, 4_096, 100), 20_000);
  await assert.rejects(fit(20_000, 4_096, 10), outOfMemory(/20000 tokens .* 20 MiB .* 10 MiB .*--context/));
});

test('the memory that an absurd context needs is not estimated to the end', async () => {
  let largest = 0;
  const counted = (tokens: number) => {
    largest = Math.max(largest, tokens);
    return need(tokens);
  };
  const free = { ramBytes: 100 * MIB, vramBytes: 0 };
  const question = { requestedTokens: 500_000_000, trainedTokens: 512, parallel: 4, free, need: counted };
  await assert.rejects(fittingContext(question), outOfMemory(/500000000 tokens/));
  assert.ok(largest < 1_000_000);
});

test('weights beyond the memory are refused with both sizes', () => {
  assert.throws(
    () => weightsFit({ ramBytes: 100 * MIB, vramBytes: 0 }, { ramBytes: 50 * MIB, vramBytes: 0 }),
    outOfMemory(/100 MiB .* 50 MiB/),
  );
});
