import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../../node/common/clock.ts';
import type { MeshError } from '../../../node/common/errors.ts';
import { NodeRegistry, openNodeRegistry } from '../../../node/storage/node-registry.ts';
import { boundaryOf, isForbiddenAddress, parseNodeUrl } from '../../../node/storage/node-url.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { plainStore } from '../../support/secret-parts.ts';

const CANARY = 'sk-canary-0123456789';
const PEER = '12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo';

async function dataDir(t: TestContext): Promise<string> {
  const dir = await mkdtemp(path.join(tmpdir(), 'node-registry-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

const refused = (pattern: RegExp, code = 'invalid_request') => ({ code, message: pattern });

test('N-5 D-37 an HTTP server is registered by URL and gets the fingerprint api:<slug>', async (t) => {
  const dir = await dataDir(t);
  const registry = await openNodeRegistry(dir);
  const named = await registry.add('http://192.168.1.20:8000/v1/', { name: 'The Big Box', priority: 10 });
  assert.deepEqual(named, {
    fingerprint: 'api:the-big-box',
    name: 'The Big Box',
    url: 'http://192.168.1.20:8000',
    priority: 10,
    boundary: 'mesh',
    shared: false,
    manifest: null,
    keyEnv: null,
    hasKey: false,
    origin: 'registry',
  });
  const unnamed = await registry.add('https://api.example.com/openai');
  assert.equal(unnamed.fingerprint, 'api:api-example-com');
  assert.equal(unnamed.boundary, 'public');
  const twin = await registry.add('https://api.example.com:444');
  assert.equal(twin.fingerprint, 'api:api-example-com-2');
  assert.deepEqual((await openNodeRegistry(dir)).list(), [named, unnamed, twin]);
  assert.equal((await stat(path.join(dir, 'nodes.json'))).mode & 0o777, 0o600);
});

test('D-38 a URL with credentials, a query, another scheme or no host is refused without being quoted', async (t) => {
  const registry = await openNodeRegistry(await dataDir(t));
  const urls = [
    `http://user:${CANARY}@127.0.0.1`,
    `http://127.0.0.1/?key=${CANARY}`,
    `file:///${CANARY}`,
    `http//${CANARY}`,
    `http://127.0.0.1/${CANARY.repeat(200)}`,
  ];
  for (const url of urls) {
    await assert.rejects(registry.add(url), (error: MeshError) => {
      assert.equal(error.code, 'invalid_request');
      assert.equal(error.message.includes('canary'), false, error.message);
      return true;
    });
  }
  assert.deepEqual(registry.list(), []);
});

test('N-5 link-local and metadata addresses are refused in every spelling', () => {
  const urls = [
    'http://169.254.169.254/latest',
    'http://2852039166',
    'http://0xa9fea9fe',
    'http://0251.0376.0251.0376',
    'http://[::ffff:169.254.169.254]',
    'http://[64:ff9b::169.254.169.254]',
    'http://[fe80::1]',
    'http://[fd00:ec2::254]',
    'http://metadata.google.internal',
    'http://METADATA.google.internal.',
    'http://0.0.0.0:8000',
    'http://[::]',
  ];
  for (const url of urls) assert.throws(() => parseNodeUrl(url), refused(/address/), url);
  assert.equal(isForbiddenAddress('fe80::1%eth0'), true);
  for (const address of ['127.0.0.1', '10.0.0.1', '::1', '8.8.8.8']) assert.equal(isForbiddenAddress(address), false);
});

test('N-5 what is near is mesh and everything else public, until the owner says otherwise', () => {
  const near = [
    '127.0.0.1',
    'localhost',
    '10.1.2.3',
    '172.31.0.1',
    '192.168.0.9',
    '[::1]',
    '[fd12::1]',
    'box',
    'box.local',
  ];
  const far = ['8.8.8.8', '172.32.0.1', 'example.com', '[2001:db8::1]', 'local.example.com'];
  for (const host of near) assert.equal(boundaryOf(new URL(`http://${host}`)), 'mesh', host);
  for (const host of far) assert.equal(boundaryOf(new URL(`http://${host}`)), 'public', host);
});

test('D-45 a key lies apart from the registry and is shown as hasKey only', async (t) => {
  const dir = await dataDir(t);
  const registry = await openNodeRegistry(dir);
  const { fingerprint } = await registry.add('http://127.0.0.1:1');
  const withKey = await registry.setKey(fingerprint, CANARY);
  assert.equal(withKey.hasKey, true);
  assert.equal(registry.keyOf(fingerprint), CANARY);
  assert.equal(JSON.stringify(registry.list()).includes(CANARY), false);
  assert.equal((await readFile(path.join(dir, 'nodes.json'), 'utf8')).includes(CANARY), false);
  assert.equal((await registry.setKey(fingerprint, null)).hasKey, false);
  await registry.setKey(PEER, CANARY);
  await registry.remove(PEER);
  assert.equal((await readFile(path.join(dir, 'secrets.json'), 'utf8')).includes(CANARY), false);
});

test('N-1 a peer keeps its priority and boundary by fingerprint, others have the defaults', async (t) => {
  const registry = await openNodeRegistry(await dataDir(t));
  await registry.set(PEER, { priority: -1000 });
  await registry.set(PEER, { boundary: 'private-cluster' });
  const { priority, boundary } = registry.remote(PEER);
  assert.deepEqual([priority, boundary], [-1000, 'private-cluster']);
  assert.equal(registry.remote('12D3KooWother').priority, 0);
  assert.equal(registry.remote('12D3KooWother').boundary, 'mesh');
  assert.equal(registry.remote('api:gone').boundary, 'public');
});

test('D-46 N-5 bad priorities, boundaries, names and strangers are refused, the registry stays as it was', async (t) => {
  const dir = await dataDir(t);
  const registry = await openNodeRegistry(dir);
  const { fingerprint } = await registry.add('http://127.0.0.1:1', { name: 'Box' });
  const before = await readFile(path.join(dir, 'nodes.json'), 'utf8');
  for (const priority of [1001, -1001, 0.5, Number.NaN]) {
    await assert.rejects(registry.set(fingerprint, { priority }), refused(/-1000 to 1000/));
  }
  await assert.rejects(registry.set(fingerprint, { boundary: 'moon' as 'mesh' }), refused(/local, mesh/));
  for (const name of ['', 'a\nb', 'x'.repeat(65), ' a', 'api:x', PEER]) {
    await assert.rejects(registry.set(fingerprint, { name }), refused(/A name is/));
  }
  await assert.rejects(registry.add('http://127.0.0.1:2', { name: 'BOX' }), refused(/another node/));
  await assert.rejects(registry.add('http://127.0.0.1:1/v1'), refused(/registered already, as "Box"/));
  await assert.rejects(registry.set('api:none', {}), refused(/there are: Box/, 'not_found'));
  await assert.rejects(registry.remove('none'), refused(/there are: Box/, 'not_found'));
  assert.equal(await readFile(path.join(dir, 'nodes.json'), 'utf8'), before);
});

test('N-5 the registry holds 256 nodes', async (t) => {
  const dir = await dataDir(t);
  const nodes = Array.from({ length: 256 }, (_, i) => ({ fingerprint: `api:n${i}`, url: `http://127.0.0.1:${i + 1}` }));
  await writeFile(path.join(dir, 'nodes.json'), JSON.stringify({ nodes }));
  const registry = await openNodeRegistry(dir);
  assert.equal(registry.list().length, 256);
  await assert.rejects(registry.add('http://127.0.0.1:1000'), refused(/full/));
});

test('N-5 a running node takes over what another process changed, and keeps the old when the file is damaged', async (t) => {
  const dir = await dataDir(t);
  const clock = new ManualClock();
  const warnings: string[] = [];
  let onWarning = (): void => {};
  const warn = (message: string): void => {
    warnings.push(message);
    onWarning();
  };
  const secrets = plainStore(dir, { clock, warn });
  const registry = new NodeRegistry({ clock, warn, secrets }, { dataDir: dir });
  await registry.start();
  t.after(() => registry.stop());
  const changed = (): Promise<void> =>
    new Promise((resolve) => {
      const off = registry.onChange(() => {
        off();
        resolve();
      });
    });

  const other = await openNodeRegistry(dir);
  const { fingerprint } = await other.add('http://127.0.0.1:1', { priority: 5 });
  const added = changed();
  clock.advance(1000);
  await added;
  assert.equal(registry.remote(fingerprint).priority, 5);
  await other.setKey(fingerprint, CANARY);
  const keyed = changed();
  clock.advance(1000);
  await keyed;
  assert.equal(registry.keyOf(fingerprint), CANARY);

  await writeFile(path.join(dir, 'nodes.json'), '{"nodes": [{"fingerprint": "api:x"}]}');
  const warned = new Promise<void>((resolve) => {
    onWarning = resolve;
  });
  clock.advance(1000);
  await warned;
  assert.match(warnings[0] ?? '', /nodes\.json cannot be used .*node 1/);
  assert.equal(registry.remote(fingerprint).priority, 5);
});

test('N-5 edits of many processes at once all count', async (t) => {
  const dir = await dataDir(t);
  const registries = await Promise.all(Array.from({ length: 5 }, () => openNodeRegistry(dir)));
  await Promise.all(
    registries.flatMap((registry, i) => [1, 2].map((j) => registry.add(`http://127.0.0.1:${10 * (i + 1) + j}`))),
  );
  assert.equal((await openNodeRegistry(dir)).list().length, 10);
});

test('N-5 a lock that a killed process left is taken over', async (t) => {
  const dir = await dataDir(t);
  const lock = path.join(dir, 'nodes.json.lock');
  await writeFile(lock, '');
  await utimes(lock, new Date(0), new Date(0));
  const registry = new NodeRegistry(
    {
      clock: systemClock,
      warn: () => {},
      secrets: plainStore(dir),
    },
    { dataDir: dir },
  );
  await registry.add('http://127.0.0.1:1');
  assert.equal(registry.list().length, 1);
});
