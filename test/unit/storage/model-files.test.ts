import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { ModelFiles, type ModelFilesOptions } from '../../../node/storage/model-files.ts';
import { readFileName } from '../../../node/storage/model-scan.ts';
import { ggufBytes } from '../../support/gguf.ts';
import { untilChange } from '../../support/until-change.ts';

const root = mkdtempSync(join(tmpdir(), 'meshnode-models-'));
after(() => rmSync(root, { recursive: true, force: true }));

function place(): string {
  const dir = mkdtempSync(join(root, 'p-'));
  mkdirSync(join(dir, 'models'));
  return dir;
}

function put(path: string, bytes: Uint8Array = ggufBytes()): string {
  writeFileSync(path, bytes);
  return path;
}

function open(dir: string, options: Partial<ModelFilesOptions> = {}): { files: ModelFiles; warnings: string[] } {
  const warnings: string[] = [];
  const files = new ModelFiles(
    { warn: (message) => warnings.push(message) },
    { dataDir: dir, files: [], dir: join(dir, 'models'), demoPath: null, ...options },
  );
  return { files, warnings };
}

const ids = (files: ModelFiles): string[] =>
  files
    .list()
    .map((file) => file.id)
    .toSorted();

const hashed = (files: ModelFiles): Promise<void> =>
  untilChange(files, () => files.list().every((file) => file.digest !== null));

test('lists the files below the models dir by their stems, with what their headers say', async () => {
  const dir = place();
  mkdirSync(join(dir, 'models/deep'));
  const path = put(join(dir, 'models/deep/tiny-f16.gguf'));
  put(join(dir, 'models/notes.txt'));
  const { files } = open(dir);
  await files.start();
  assert.deepEqual(
    files.list().map(({ digest, shape, ...rest }) => rest),
    [
      {
        id: 'tiny-f16',
        path,
        sizeBytes: statSync(path).size,
        architecture: 'llama',
        quantization: 'F16',
        trainedContext: 512,
      },
    ],
  );
  await files.stop();
});

test('digests come in the background, are those of the bytes, and are not computed twice', async () => {
  const dir = place();
  const path = put(join(dir, 'models/a.gguf'));
  const { files } = open(dir);
  await files.start();
  await hashed(files);
  assert.equal(files.list()[0]?.digest, createHash('sha256').update(readFileSync(path)).digest('hex'));
  await files.stop();
  assert.equal(statSync(join(dir, 'digests.json')).mode & 0o777, 0o600);
  const again = open(dir);
  await again.files.start();
  assert.notEqual(again.files.list()[0]?.digest, null);
  await again.files.stop();
});

test('N-9 a file that appears is listed, one that goes is dropped', async () => {
  const dir = place();
  const { files } = open(dir);
  await files.start();
  assert.deepEqual(ids(files), []);
  put(join(dir, 'models/new.gguf'));
  await untilChange(files, () => ids(files).includes('new'));
  rmSync(join(dir, 'models/new.gguf'));
  await untilChange(files, () => ids(files).length === 0);
  await files.stop();
});

test('a file in a new subdirectory is seen too', async () => {
  const dir = place();
  const { files } = open(dir);
  await files.start();
  mkdirSync(join(dir, 'models/sub'));
  put(join(dir, 'models/sub/late.gguf'));
  await untilChange(files, () => ids(files).includes('late'));
  await files.stop();
});

test('a bad named file is a start error, a bad file in the dir is skipped with a warning', async () => {
  const dir = place();
  const bad = put(join(dir, 'models/bad.gguf'), Buffer.from('not a model'));
  put(join(dir, 'models/good.gguf'));
  const { files, warnings } = open(dir);
  await files.start();
  assert.deepEqual(ids(files), ['good']);
  assert.equal(warnings.length, 1);
  assert.match(warnings[0] ?? '', /bad\.gguf is not a GGUF file/);
  await files.stop();
  const strict = open(dir, { files: [{ id: null, path: bad }] });
  await assert.rejects(strict.files.start(), { code: 'invalid_request', message: /bad\.gguf is not a GGUF file/ });
  await strict.files.stop();
  const absent = open(dir, { files: [{ id: null, path: join(dir, 'no.gguf') }] });
  await assert.rejects(absent.files.start(), /there is no file .*no\.gguf/);
  await absent.files.stop();
});

test('an explicitly named file wins its id, and is not listed again from the dir', async () => {
  const dir = place();
  const inDir = put(join(dir, 'models/a.gguf'));
  const named = put(join(dir, 'other.gguf'), ggufBytes({ dataBytes: 352 }));
  put(join(dir, 'models/b.gguf'));
  const { files, warnings } = open(dir, {
    files: [
      { id: 'a', path: named },
      { id: 'mine', path: join(dir, 'models/b.gguf') },
    ],
  });
  await files.start();
  assert.deepEqual(ids(files), ['a', 'mine']);
  assert.equal(files.list().find((file) => file.id === 'a')?.path, named);
  assert.match(warnings.join(), new RegExp(`${inDir} is not served`));
  await files.stop();
});

test('of two files in the dir with one id the first by path is served, the other is warned about', async () => {
  const dir = place();
  for (const sub of ['b', 'a']) {
    mkdirSync(join(dir, 'models', sub));
    put(join(dir, 'models', sub, 'same.gguf'));
  }
  const { files, warnings } = open(dir);
  await files.start();
  assert.deepEqual(
    files.list().map((file) => file.path),
    [join(dir, 'models/a/same.gguf')],
  );
  assert.match(warnings.join(), /b\/same\.gguf is not served: .*a\/same\.gguf has the same id/);
  await files.stop();
});

test('a split model is listed once by its name without the shard, and only when it is whole', async () => {
  const dir = place();
  put(join(dir, 'models/big-00001-of-00002.gguf'));
  const { files, warnings } = open(dir);
  await files.start();
  assert.deepEqual(ids(files), []);
  assert.match(warnings.join(), /big-00001-of-00002\.gguf lacks its part 2 of 2/);
  put(join(dir, 'models/big-00002-of-00002.gguf'));
  await untilChange(files, () => ids(files).includes('big'));
  assert.equal(files.list().length, 1);
  assert.equal(files.list()[0]?.sizeBytes, 2 * ggufBytes().length);
  await files.stop();
  const part = open(dir, { files: [{ id: null, path: join(dir, 'models/big-00002-of-00002.gguf') }] });
  await assert.rejects(part.files.start(), /is part 2 of a split model: name its first part/);
  await part.files.stop();
});

test('the demo model is there only while there is no other', async () => {
  const dir = place();
  const demoPath = put(join(dir, 'meshnode-demo.gguf'));
  const { files } = open(dir, { demoPath });
  await files.start();
  assert.deepEqual(ids(files), ['meshnode-demo']);
  put(join(dir, 'models/real.gguf'));
  await untilChange(files, () => ids(files).join() === 'real');
  rmSync(join(dir, 'models/real.gguf'));
  await untilChange(files, () => ids(files).join() === 'meshnode-demo');
  await files.stop();
});

test('links to files are followed to the file, dangling ones are skipped', async () => {
  const dir = place();
  const target = put(join(dir, 'blob'));
  symlinkSync(target, join(dir, 'models/link.gguf'));
  symlinkSync(join(dir, 'nothing'), join(dir, 'models/dangling.gguf'));
  const { files, warnings } = open(dir);
  await files.start();
  assert.deepEqual(
    files.list().map((file) => [file.id, file.path]),
    [['link', target]],
  );
  assert.match(warnings.join(), /there is no file .*dangling\.gguf/);
  await files.stop();
});

test('a missing models dir is a start error unless it lies in the data dir', async () => {
  const dir = place();
  const { files } = open(dir, { dir: join(root, 'absent') });
  await assert.rejects(files.start(), /there is no models directory .*--models-dir/);
  await files.stop();
  const inside = open(dir, { dir: join(dir, 'made') });
  await inside.files.start();
  await inside.files.stop();
  assert.ok(statSync(join(dir, 'made')).isDirectory());
});

test('stops while it hashes, stops twice, and starts again', async () => {
  const dir = place();
  put(join(dir, 'models/long.gguf'), ggufBytes({ dataBytes: 64 * 1024 * 1024 }));
  const { files } = open(dir);
  await files.stop();
  await files.start();
  await files.stop();
  await files.stop();
  await files.start();
  await hashed(files);
  await files.stop();
});

test('names of files are ids only where they can be', () => {
  assert.deepEqual(readFileName('/x/Qwen2.5-7B-Q4_K_M.gguf'), { id: 'Qwen2.5-7B-Q4_K_M', shard: 1, shards: 1 });
  assert.deepEqual(readFileName('/x/m-00002-of-00003.GGUF'), { id: 'm', shard: 2, shards: 3 });
  for (const name of ['.hidden.gguf', '-x.gguf', 'a\u0000b.gguf', 'a\nb.gguf', `${'x'.repeat(257)}.gguf`, 'ü.gguf']) {
    assert.equal(readFileName(`/x/${name}`), null);
  }
});
