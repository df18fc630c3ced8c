import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../../node/common/clock.ts';
import type { MeshError } from '../../../node/common/errors.ts';
import { SecretFile } from '../../../node/storage/secret-file.ts';

const CANARY = 'sk-canary-0123456789';

async function dataDir(t: TestContext): Promise<string> {
  const dir = await mkdtemp(path.join(tmpdir(), 'secret-file-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

const secretsIn = (dir: string): SecretFile => new SecretFile({ clock: systemClock, warn: () => {} }, { dataDir: dir });

test('D-45 a secret is kept in a file of mode 0600 and found by the next process', async (t) => {
  const dir = await dataDir(t);
  await secretsIn(dir).set('node/api:x', CANARY);
  assert.equal((await stat(path.join(dir, 'secrets.json'))).mode & 0o777, 0o600);
  const later = secretsIn(dir);
  await later.load();
  assert.equal(later.get('node/api:x'), CANARY);
  assert.equal(await later.delete('node/api:x'), true);
  assert.equal(await later.delete('node/api:x'), false);
  assert.equal((await readFile(path.join(dir, 'secrets.json'), 'utf8')).includes(CANARY), false);
});

test('D-46 what cannot stand in a header is refused without being quoted', async (t) => {
  const secrets = secretsIn(await dataDir(t));
  for (const secret of [`${CANARY}\n`, `${CANARY} x`, `${CANARY}é`, '', CANARY.repeat(300)]) {
    await assert.rejects(secrets.set('node/api:x', secret), (error: MeshError) => {
      assert.equal(error.code, 'invalid_request');
      assert.equal(error.message.includes('canary'), false);
      return true;
    });
  }
  assert.equal(secrets.has('node/api:x'), false);
});

test('D-46 a damaged file is refused by name, its content is neither quoted nor overwritten', async (t) => {
  const dir = await dataDir(t);
  const file = path.join(dir, 'secrets.json');
  await writeFile(file, `{"secrets": {"a": "${CANARY}"`);
  const isClean = (error: MeshError): boolean =>
    error.code === 'invalid_request' && error.message.includes('secrets.json') && !error.message.includes('canary');
  await assert.rejects(secretsIn(dir).load(), isClean);
  await assert.rejects(secretsIn(dir).set('b', 'another-secret'), isClean);
  assert.ok((await readFile(file, 'utf8')).includes(CANARY));
});

test('names that are members of every object are names like others', async (t) => {
  const dir = await dataDir(t);
  assert.equal(secretsIn(dir).get('constructor'), null);
  await secretsIn(dir).set('__proto__', CANARY);
  const later = secretsIn(dir);
  await later.load();
  assert.equal(later.get('__proto__'), CANARY);
});
