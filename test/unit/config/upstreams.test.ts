/** The setting `upstreams`: texts and objects, bad ones refused without being quoted, and what the registry makes of them. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { loadConfig } from '../../../node/config.ts';
import { readUpstreams } from '../../../node/config-upstreams.ts';
import { NodeRegistry, openNodeRegistry } from '../../../node/storage/node-registry.ts';
import type { Upstream } from '../../../node/storage/remote-node.ts';
import fc from '../../support/fc.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { plainStore } from '../../support/secret-parts.ts';

const resolve = (text: string): string => path.resolve('/etc/meshnode', text);
const read = (...list: readonly unknown[]): Upstream[] => readUpstreams('upstreams', list, resolve);

test('F-14 an upstream is NAME=URL, or an object with what a backend may have', () => {
  assert.deepEqual(read('vllm=http://127.0.0.1:8000', { name: 'b', url: 'https://b.example' }), [
    { name: 'vllm', url: 'http://127.0.0.1:8000' },
    { name: 'b', url: 'https://b.example' },
  ]);
  const whole = { name: 'c', url: 'http://c', keyEnv: 'C_KEY', boundary: 'public', priority: 3, shared: true };
  assert.deepEqual(read(whole), [whole]);
  assert.deepEqual(read({ name: 'm', manifest: 'status.json' }), [
    { name: 'm', manifest: '/etc/meshnode/status.json' },
  ]);
  assert.deepEqual(read({ name: 'm', manifest: 'file:///a/b' }), [{ name: 'm', manifest: '/a/b' }]);
});

test('D-46 a bad upstream is one line that names what is wrong and quotes no value that could be a key', () => {
  const rows: readonly (readonly [unknown, RegExp])[] = [
    ['v', /^upstreams is "v": expected NAME=URL/],
    ['v=sk-canary', /^upstreams is "v=…"/],
    ['v=http://user:canary@x', /must not hold credentials/],
    ['v=http://169.254.169.254', /link-local/],
    [7, /expected NAME=URL, or an object/],
    [{ url: 'http://x' }, /^upstreams: /],
    [{ name: 'v' }, /Give a URL, or a status manifest/],
    [{ name: 'v', url: 'http://x', key: 'canary' }, /unknown key key: name a variable with keyEnv/],
    [{ name: 'v', url: 'http://x', apiKey: 'canary' }, /unknown key apiKey: name a variable with keyEnv/],
    [{ name: 'v', url: 'http://x', priorty: 1 }, /unknown key priorty; did you mean priority\?/],
    [{ name: 'v', url: 'http://x', keyEnv: 'sk-canary' }, /the name of an environment variable, never the key itself/],
    [{ name: 'v', url: 'http://x', boundary: 'moon' }, /boundary must be one of/],
    [{ name: 'v', url: 'http://x', priority: 1.5 }, /whole number/],
    [{ name: 'v', manifest: 'http://169.254.169.254/x' }, /link-local/],
    [{ name: 'v', manifest: 'http://u:canary@x/' }, /must not hold credentials/],
  ];
  for (const [item, expected] of rows) {
    assert.throws(
      () => read(item),
      (error: Error) => expected.test(error.message) && !error.message.includes('canary') && !/\n/.test(error.message),
      JSON.stringify(item),
    );
  }
  assert.throws(() => read('v=http://x', 'V=http://y'), /"v" is there twice/);
});

test('any JSON as an upstream is read or refused with one line', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (item) => {
      try {
        for (const { name } of read(item)) assert.equal(typeof name, 'string');
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'invalid_request');
      }
    }),
  );
});

test('flags win over the file, and each source says NAME=URL', async (t) => {
  const home = await dir(t);
  const file = path.join(home, 'config.json');
  await writeFile(file, JSON.stringify({ upstreams: ['f=http://f', { name: 'm', manifest: './s.json' }] }));
  const input = { cwd: home, home, hostName: 'x' };
  const from = (flags: Record<string, string[]>, env: Record<string, string> = {}) =>
    loadConfig({ ...input, flags: { config: [file], ...flags }, env }).config.upstreams;
  assert.deepEqual(from({}), [
    { name: 'f', url: 'http://f' },
    { name: 'm', manifest: path.join(home, 's.json') },
  ]);
  assert.deepEqual(from({}, { MESHNODE_UPSTREAM: 'a=http://a,b=http://b' }).length, 2);
  assert.deepEqual(from({ upstream: ['v=http://v'] }), [{ name: 'v', url: 'http://v' }]);
});

async function dir(t: TestContext): Promise<string> {
  const made = await mkdtemp(path.join(tmpdir(), 'meshnode-upstreams-'));
  t.after(() => rm(made, { recursive: true, force: true }));
  return made;
}

test('D-45 servers of the configuration stand after those of the registry, with keys by the name of a variable only', async (t) => {
  const dataDir = await dir(t);
  const env: Record<string, string> = {};
  const registered = await openNodeRegistry(dataDir);
  const first = await registered.add('http://192.168.1.9', { name: 'first' });
  await registered.setKey(first.fingerprint, 'sk-first-key');
  const components = { clock: new ManualClock(), warn: () => {}, env, secrets: plainStore(dataDir) };
  const upstreams = read(
    'First=http://elsewhere.example',
    { name: 'same', url: 'http://192.168.1.9/v1' },
    { name: 'cloud', url: 'https://cloud.example', keyEnv: 'CLOUD_KEY', shared: true },
    'plain=http://127.0.0.1:9',
  );
  const registry = new NodeRegistry(components, { dataDir, upstreams });
  await registry.load();
  await registry.unlock();
  const facts = () =>
    registry.list().map(({ fingerprint, hasKey, origin, shared }) => [fingerprint, hasKey, origin, shared]);
  assert.deepEqual(facts(), [
    ['api:first', true, 'registry', false],
    ['api:cloud', false, 'config', true],
    ['api:plain', false, 'config', false],
  ]);
  assert.equal(registry.keyOf('api:cloud'), null);
  env['CLOUD_KEY'] = ' sk-from-env \n';
  assert.equal(registry.keyOf('api:cloud'), 'sk-from-env');
  env['CLOUD_KEY'] = 'two\nlines';
  assert.equal(registry.keyOf('api:cloud'), null, 'what cannot stand in a header is no key');
  await assert.rejects(registry.remove('cloud'), { message: /"cloud" is set by the configuration/ });
  await assert.rejects(registry.setKey('api:cloud', 'sk-x'), { message: /"cloud" is set by the configuration/ });
  assert.equal(registry.remote('api:cloud').boundary, 'public');
  let changes = 0;
  registry.onChange(() => {
    changes += 1;
  });
  registry.configure(read('plain=http://127.0.0.1:9'));
  registry.configure(read('plain=http://127.0.0.1:9'));
  assert.equal(changes, 1);
  assert.deepEqual(
    facts().map(([fingerprint]) => fingerprint),
    ['api:first', 'api:plain'],
  );
});
