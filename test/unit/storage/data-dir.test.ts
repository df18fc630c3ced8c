import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { prepareDataDir } from '../../../node/storage/data-dir.ts';
import { readJsonFile, readSecretFile, writePrivateFile } from '../../../node/storage/private-file.ts';
import { findRunningNode, RuntimeFile } from '../../../node/storage/runtime-file.ts';
import { StateFile } from '../../../node/storage/state-file.ts';

const root = mkdtempSync(join(tmpdir(), 'meshnode-data-'));
after(() => rmSync(root, { recursive: true, force: true }));

const fresh = (): string => mkdtempSync(join(root, 'd-'));
const mode = (path: string): number => statSync(path).mode & 0o777;

test('makes the data dir for its owner only, parents included', async () => {
  const dir = join(fresh(), 'share', 'meshnode');
  await prepareDataDir(dir);
  assert.equal(mode(dir), 0o700);
  await prepareDataDir(dir);
});

test('tightens an empty dir, keeps a readable one, refuses one that others may write to', async () => {
  const empty = fresh();
  chmodSync(empty, 0o777);
  await prepareDataDir(empty);
  assert.equal(mode(empty), 0o700);
  writeFileSync(join(empty, 'x'), '');
  chmodSync(empty, 0o755);
  await prepareDataDir(empty);
  chmodSync(empty, 0o770);
  await assert.rejects(prepareDataDir(empty), /other users may write .* chmod 700/);
});

test('a data dir that is a file is refused with a sentence that names --data-dir', async () => {
  const path = join(fresh(), 'file');
  writeFileSync(path, '');
  await assert.rejects(prepareDataDir(path), {
    code: 'invalid_request',
    message: /cannot use the data directory .* --data-dir/,
  });
});

test('private files have mode 0600 and leave nothing else behind', async () => {
  const dir = fresh();
  const path = join(dir, 'x.json');
  await writePrivateFile(path, '{"a":1}');
  await writePrivateFile(path, '{"a":2}');
  assert.equal(mode(path), 0o600);
  assert.deepEqual(await readJsonFile(path, 100), { a: 2 });
  assert.equal(await readJsonFile(path, 3), null);
  assert.deepEqual(readdirSync(dir), ['x.json']);
  mkdirSync(join(dir, 'is-a-dir'));
  await assert.rejects(writePrivateFile(join(dir, 'is-a-dir'), 'x'));
  assert.deepEqual(readdirSync(dir).toSorted(), ['is-a-dir', 'x.json']);
});

test('the state file keeps the port, and damage counts as absent', async () => {
  const dir = fresh();
  const state = new StateFile(dir);
  assert.deepEqual(await state.read(), { listenPort: null });
  await state.write({ listenPort: 8645 });
  assert.deepEqual(await new StateFile(dir).read(), { listenPort: 8645 });
  for (const text of ['', '[]', '{"listenPort":"x"}', '{"listenPort":70000}', 'null']) {
    writeFileSync(join(dir, 'state.json'), text);
    assert.deepEqual(await state.read(), { listenPort: null });
  }
});

test('a key file gives its first line, and a bad one is refused without its content', async () => {
  const path = join(fresh(), 'key');
  writeFileSync(path, '  secret-key-1 \nnotes\n');
  assert.equal(await readSecretFile(path), 'secret-key-1');
  writeFileSync(path, 'hush pst');
  await assert.rejects(
    readSecretFile(path),
    (error: Error) => !error.message.includes('hush') && /first line/.test(error.message),
  );
  await assert.rejects(readSecretFile(`${path}.absent`), /cannot read the key file .*ENOENT/);
});

test('a running node is found only when its process lives and its facade confirms the fingerprint', async () => {
  const dir = fresh();
  const server = createServer((_, response) => response.end(JSON.stringify({ fingerprint: '12D3real' })));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const api = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const file = new RuntimeFile(dir);
  const note = { pid: process.pid, api, fingerprint: '12D3real', startedAt: 1 };
  try {
    assert.equal(await findRunningNode(dir), null);
    await file.write(note);
    assert.deepEqual(await findRunningNode(dir), note);
    assert.equal(mode(join(dir, 'run.json')), 0o600);
    await file.write({ ...note, fingerprint: '12D3other' });
    assert.equal(await findRunningNode(dir), null);
    await file.write({ ...note, pid: 2 ** 22 + 1 });
    assert.equal(await findRunningNode(dir), null);
    await file.write(note);
    await file.remove();
    await file.remove();
    assert.equal(await findRunningNode(dir), null);
  } finally {
    server.closeAllConnections();
    server.close();
  }
  await file.write(note);
  assert.equal(await findRunningNode(dir), null);
});
