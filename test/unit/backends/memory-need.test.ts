import assert from 'node:assert/strict';
import { test } from 'node:test';
import { mayUseGpu } from '../../../node/backends/llama-cpp/memory/gpu-hint.ts';
import { loadPlan } from '../../../node/backends/llama-cpp/memory/load-plan.ts';
import { memoryNeed } from '../../../node/backends/llama-cpp/memory/memory-need.ts';
import { type GgufValue, modelShape } from '../../../node/storage/gguf-shape.ts';
import type { ModelFile } from '../../../node/storage/model-file.ts';
import fc from '../../support/fc.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** Metadata of an 8-billion llama, with grouped key and value heads. */
const LLAMA_8B: Readonly<Record<string, GgufValue>> = {
  'llama.block_count': 32,
  'llama.embedding_length': 4096,
  'llama.feed_forward_length': 14_336,
  'llama.attention.head_count': 32,
  'llama.attention.head_count_kv': 8,
};

const shape = (metadata: Readonly<Record<string, GgufValue>> = LLAMA_8B, architecture = 'llama') =>
  modelShape(new Map(Object.entries(metadata)), architecture, 128_256);

const file = (over: Partial<ModelFile> = {}): ModelFile => ({
  id: 'm',
  path: '/m.gguf',
  sizeBytes: 5 * GIB,
  digest: null,
  architecture: 'llama',
  quantization: null,
  trainedContext: 131_072,
  shape: shape(),
  ...over,
});

test('keys and values are counted by grouped heads, for every sequence', () => {
  const { contextBytes } = memoryNeed(file(), { contextTokens: 8192, parallel: 4 });
  assert.equal(contextBytes, 4 * GIB);
  assert.equal(memoryNeed(file(), { contextTokens: 8192, parallel: 1 }).contextBytes, GIB);
});

test('layers differ: none, one or all heads, a sliding window, a compressed state', () => {
  const of = (more: Readonly<Record<string, GgufValue>>, architecture = 'llama') => {
    const metadata = Object.entries({ ...LLAMA_8B, ...more }).map(([key, value]) => [
      key.replace('llama.', `${architecture}.`),
      value,
    ]);
    const model = file({ shape: shape(Object.fromEntries(metadata), architecture) });
    return memoryNeed(model, { contextTokens: 8192, parallel: 1 }).contextBytes / MIB;
  };
  const everyOther = Array.from({ length: 32 }, (_, layer) => (layer % 2 === 0 ? 8 : 0));
  assert.equal(of({ 'llama.attention.head_count_kv': everyOther }), 512);
  assert.equal(of({ 'llama.attention.key_length': 256, 'llama.attention.value_length': 256 }), 2048);
  // Half of the layers look back 512 tokens: 1024 cells for each of them.
  assert.equal(of({ 'llama.attention.sliding_window': 512 }, 'gemma2'), 512 + 64);
  assert.equal(of({ 'llama.attention.kv_lora_rank': 448, 'llama.rope.dimension_count': 64 }), 256);
});

test('a file that tells nothing of its shape counts with its size, and the child decides on the context', () => {
  const { shape: _, ...bare } = file();
  assert.equal(memoryNeed(bare, { contextTokens: 8192, parallel: 4 }).contextBytes, 0);
  const plan = loadPlan(bare, { contextTokens: null, parallel: 4, mayUseGpu: false }, 64 * GIB);
  assert.equal(plan.contextTokens, null);
});

test('unasked, the largest context that fits is chosen; asked for, it is kept', () => {
  const wish = { contextTokens: null, parallel: 4, mayUseGpu: false };
  const chosen = (limitGib: number) => loadPlan(file(), wish, limitGib * GIB).contextTokens;
  assert.deepEqual([chosen(16), chosen(8), chosen(6), chosen(1)], [8192, 4096, 1024, 512]);
  const asked = loadPlan(file(), { ...wish, contextTokens: 8192 }, GIB);
  assert.equal(asked.contextTokens, 8192);
  assert.ok(asked.roomBytes > 9 * GIB);
});

test('where a GPU may take a part, the child decides, and nothing is refused for its size', () => {
  const plan = loadPlan(file(), { contextTokens: null, parallel: 4, mayUseGpu: true }, GIB);
  assert.deepEqual([plan.contextTokens, plan.roomBytes], [null, GIB]);
  const linux = (path: string | null) => ({ platform: 'linux' as const, exists: (each: string) => each === path });
  assert.equal(mayUseGpu('auto', linux('/dev/nvidiactl')), true);
  assert.equal(mayUseGpu('auto', linux(null)), false);
  assert.equal(mayUseGpu('off', linux('/dev/nvidiactl')), false);
  assert.equal(mayUseGpu('auto', { platform: 'darwin', exists: () => false }), true);
});

test('more context never needs less, whatever a file says of itself', () => {
  const number = fc.oneof(fc.nat(200), fc.nat(2 ** 32 - 1), fc.bigInt(0n, 2n ** 64n - 1n), fc.constantFrom(null, 'x'));
  const value: fc.Arbitrary<GgufValue> = fc.oneof(number, fc.array(fc.nat(2 ** 32 - 1), { maxLength: 50 }));
  const keys = Object.keys(LLAMA_8B).concat('llama.attention.sliding_window', 'llama.attention.sliding_window_pattern');
  const metadata = fc.dictionary(fc.constantFrom(...keys), value);
  fc.assert(
    fc.property(metadata, fc.integer({ min: 64, max: 100_000 }), fc.nat(100_000), (said, tokens, more) => {
      const model = file({ shape: shape(said) });
      const small = memoryNeed(model, { contextTokens: tokens, parallel: 2 });
      const large = memoryNeed(model, { contextTokens: tokens + more, parallel: 2 });
      assert.ok(Number.isFinite(small.totalBytes) && small.totalBytes >= model.sizeBytes);
      assert.ok(large.totalBytes >= small.totalBytes);
    }),
  );
});
