import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { demoModelPath } from '../../../node/backends/llama-cpp/demo/demo-model.ts';
import { LlamaEngine } from '../../../node/backends/llama-cpp/engine.ts';
import { systemClock } from '../../../node/common/clock.ts';
import { silentLogger } from '../../../node/common/logger.ts';
import { readGgufHeader } from '../../../node/storage/gguf-header.ts';
import { ModelFiles } from '../../../node/storage/model-files.ts';
import fc from '../../support/fc.ts';
import { type GgufParts, ggufBytes, TINY_METADATA } from '../../support/gguf.ts';
import { ggufLies } from '../../support/gguf-lies.ts';

const dir = mkdtempSync(join(tmpdir(), 'meshnode-gguf-'));
after(() => rmSync(dir, { recursive: true, force: true }));

const path = join(dir, 'tiny.gguf');

function read(bytes: Uint8Array) {
  writeFileSync(path, bytes);
  return readGgufHeader(path);
}

const tensor = (over: object): GgufParts => ({
  tensors: [{ name: 't', dimensions: [32], type: 0, offset: 0, ...over }],
});

test('reads what a file says about itself, in versions 2 and 3', async () => {
  for (const version of [2, 3]) {
    assert.deepEqual(await read(ggufBytes({ version })), {
      architecture: 'llama',
      name: 'Tiny',
      trainedContext: 512,
      quantization: 'F16',
      hasChatTemplate: true,
      tensorCount: 2,
      shardCount: 1,
      shape: {
        layers: 0,
        embeddingLength: 0,
        feedForwardLength: 0,
        expertsUsed: 0,
        vocabularySize: 3,
        heads: 0,
        kvHeads: [],
        keyLength: 0,
        valueLength: 0,
        latentLength: 0,
        slidingWindow: 0,
        slidingLayers: [],
        recurrentLength: 0,
      },
    });
  }
});

test('reads the shape of the bundled model, which its memory needs are computed from', async () => {
  const { shape } = await readGgufHeader(demoModelPath());
  assert.deepEqual([shape.layers, shape.embeddingLength, shape.heads], [5, 192, 6]);
  assert.deepEqual(shape.kvHeads, [6, 6, 6, 6, 6]);
  assert.ok(shape.vocabularySize > 256);
});

test('none of more than 200 lies is believed, nor listed as a model, nor known to the engine', async () => {
  const lies = ggufLies();
  assert.ok(lies.length >= 200, `${lies.length} lies`);
  assert.equal(new Set(lies.map(({ name }) => name)).size, lies.length, 'each has a name of its own');
  const home = join(dir, 'lies');
  mkdirSync(join(home, 'models'), { recursive: true });
  for (const { name, bytes } of lies) writeFileSync(join(home, 'models', `${name}.gguf`), bytes);
  writeFileSync(join(home, 'models', 'honest.gguf'), ggufBytes());
  const before = process.memoryUsage.rss();
  for (const { name } of lies) {
    await assert.rejects(
      readGgufHeader(join(home, 'models', `${name}.gguf`)),
      (error: { code?: string; message: string }) => {
        assert.equal(error.code, 'invalid_request', `${name}: ${error.message}`);
        assert.ok(error.message.startsWith(`${name}.gguf `) && !error.message.includes('\n'), error.message);
        return true;
      },
      name,
    );
  }
  assert.ok(process.memoryUsage.rss() - before < 100 * 1024 * 1024);
  const said: string[] = [];
  const files = new ModelFiles(
    { warn: (message) => said.push(message) },
    { dataDir: home, files: [], dir: join(home, 'models'), demoPath: null },
  );
  await files.start();
  after(() => files.stop());
  assert.deepEqual(
    files.list().map(({ id }) => id),
    ['honest'],
  );
  assert.equal(said.length, lies.length);
  const engine = new LlamaEngine(
    { fingerprint: 'test', models: files, clock: systemClock, logger: silentLogger },
    { gpu: 'off', contextTokens: null, parallel: 1 },
  );
  engine.start();
  const { signal } = new AbortController();
  for (const { name } of lies) {
    const request = { requestId: '', kind: 'chat', model: name, body: Buffer.from('{}'), seed: 1 } as const;
    await assert.rejects(engine.infer(request, { signal }).next(), { code: 'model_not_loaded' });
    assert.throws(() => engine.residency.loadModel(name), { code: 'model_not_loaded' });
  }
  assert.equal(engine.children().size, 0);
  await engine.stop(AbortSignal.timeout(1_000));
});

test('reads a long template and a long vocabulary without keeping them', async () => {
  const metadata = {
    ...TINY_METADATA,
    'tokenizer.chat_template': { type: 'text', value: 'x'.repeat(1_000_000) },
    'tokenizer.ggml.tokens': { type: 'texts', value: Array.from({ length: 100_000 }, (_, index) => `token${index}`) },
    'split.count': { type: 'u16', value: 3 },
  } as const;
  const header = await read(ggufBytes({ metadata }));
  assert.equal(header.hasChatTemplate, true);
  assert.equal(header.shardCount, 3);
});

test('each lie of a header is one sentence that names the file', async () => {
  const huge = 2n ** 63n;
  const rows: readonly (readonly [Uint8Array, RegExp])[] = [
    [Buffer.alloc(0), /^tiny\.gguf is not a GGUF file/],
    [Buffer.from('GGU'), /is not a GGUF file/],
    [Buffer.from('PK\u0003\u0004 a zip file'), /is not a GGUF file/],
    [ggufBytes({ version: 1 }), /is GGUF version 1; versions 2 and 3/],
    [ggufBytes({ version: 0x03000000 }), /is GGUF version/],
    [ggufBytes({ claimedTensors: huge }), /claims 9223372036854775808 tensors, at most 65536/],
    [ggufBytes({ claimedEntries: 2n ** 40n }), /claims 1099511627776 metadata entries/],
    [ggufBytes(tensor({ dimensions: [2n ** 60n, 2n ** 60n] })), /tensor "t" has an impossible size/],
    [ggufBytes(tensor({ dimensions: [0] })), /impossible size/],
    [ggufBytes(tensor({ dimensions: [1, 1, 1, 1, 1] })), /has 5 dimensions/],
    [ggufBytes(tensor({ offset: 2n ** 62n })), /is truncated: it names tensors up to byte \d+, the file has \d+/],
    [ggufBytes(tensor({ offset: 7 })), /is not aligned/],
    [ggufBytes(tensor({ type: 2, dimensions: [33] })), /rows that do not fit its type/],
    [ggufBytes({ dataBytes: 319 }), /is truncated: it names tensors up to byte \d+, the file has \d+/],
    [ggufBytes({ metadata: {} }), /does not say which architecture/],
    [
      ggufBytes({ metadata: { ...TINY_METADATA, 'general.alignment': { type: 'u32', value: 0 } } }),
      /claims an alignment of 0/,
    ],
  ];
  for (const [bytes, expected] of rows) {
    await assert.rejects(read(bytes), (error: { code?: string; message: string }) => {
      assert.equal(error.code, 'invalid_request');
      assert.match(error.message, expected);
      assert.equal(error.message.includes('\n'), false);
      return true;
    });
  }
  await assert.rejects(readGgufHeader(join(dir, 'absent.gguf')), /there is no file/);
  await assert.rejects(readGgufHeader(dir), /is not a file|cannot read/);
});

test('an unknown tensor type is let through when its offset lies within the file', async () => {
  assert.equal((await read(ggufBytes(tensor({ type: 999 })))).tensorCount, 1);
  await assert.rejects(read(ggufBytes(tensor({ type: 999, offset: 320 }))), /is truncated/);
});

test('arrays nested without end are refused', async () => {
  const whole = ggufBytes({ metadata: { a: { type: 'u32', value: 0 } }, tensors: [] });
  const start = 4 + 4 + 8 + 8 + 8 + 1;
  const nested = Buffer.alloc(12 * 1000);
  for (let depth = 0; depth < 1000; depth++) {
    nested.writeUInt32LE(9, depth * 12);
    nested.writeBigUInt64LE(1n, depth * 12 + 4);
  }
  const bytes = Buffer.concat([whole.subarray(0, start), Buffer.from([9, 0, 0, 0]), nested]);
  await assert.rejects(read(bytes), /nested deeper than 4/);
});

test('a file cut anywhere before its end is refused', async () => {
  const whole = ggufBytes();
  for (let part = 0; part < 64; part++) {
    writeFileSync(path, whole);
    truncateSync(path, Math.floor((whole.length * part) / 64));
    await assert.rejects(readGgufHeader(path), { code: 'invalid_request' });
  }
});

test('no mutation makes it throw anything else or take much memory', async () => {
  const whole = ggufBytes();
  const headerBytes = whole.length - 320;
  const before = process.memoryUsage.rss();
  const mutations = fc.array(
    fc.tuple(fc.nat(headerBytes - 1), fc.oneof(fc.constantFrom(0, 255, 127, 128, 9, 8), fc.nat(255))),
    {
      minLength: 1,
      maxLength: 6,
    },
  );
  await fc.assert(
    fc.asyncProperty(mutations, fc.option(fc.nat(whole.length)), async (changes, cut) => {
      const bytes = Buffer.from(whole);
      for (const [at, value] of changes) bytes[at] = value;
      try {
        await read(bytes.subarray(0, cut ?? undefined));
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'invalid_request', String(error));
      }
    }),
    { numRuns: 10_000 },
  );
  assert.ok(process.memoryUsage.rss() - before < 100 * 1024 * 1024);
});
