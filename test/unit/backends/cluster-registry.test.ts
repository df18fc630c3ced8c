/** The registered clusters of a node: what is kept, what is refused, and where the secret lies. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../../node/common/clock.ts';
import { ClusterRegistry, type NewCluster, parseClusterUrl } from '../../../node/storage/cluster-registry.ts';
import fc from '../../support/fc.ts';
import { plainStore, type StoreParts, secretStore } from '../../support/secret-parts.ts';

const SECRET = 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY';
const LAB: NewCluster = {
  name: 'Company GPU',
  endpoint: 'https://api.my-cluster.ai/',
  accessKey: 'AKIAIOSFODNN7EXAMPLE',
};

async function opened(context: TestContext, parts?: StoreParts) {
  const dataDir = await mkdtemp(join(tmpdir(), 'meshnode-clusters-'));
  context.after(() => rm(dataDir, { recursive: true, force: true }));
  const again = async (): Promise<ClusterRegistry> => {
    const secrets = parts === undefined ? plainStore(dataDir) : secretStore(dataDir, parts);
    const registry = new ClusterRegistry({ clock: systemClock, warn: () => {}, secrets }, { dataDir });
    await registry.load();
    await registry.unlock();
    return registry;
  };
  return { dataDir, registry: await again(), again };
}

test('a cluster is kept under its slug with its defaults, and found by name, slug and fingerprint', async (context) => {
  const { registry, again } = await opened(context);
  const record = await registry.add(LAB, SECRET);
  const unsaid = { allowHttp: false, priority: 0, share: false, hasSecret: true };
  assert.deepEqual(record, { ...LAB, slug: 'company-gpu', endpoint: 'https://api.my-cluster.ai', ...unsaid });
  const other = await again();
  for (const name of ['company gpu', 'company-gpu', 'cluster:company-gpu']) assert.deepEqual(other.get(name), record);
  assert.equal(other.secretOf('company-gpu'), SECRET);
  assert.throws(() => other.get('nobody'), { code: 'not_found', message: /there are: Company GPU/ });
});

test('C-13 the secret lies in the store of keys and nowhere else, encrypted where the owner wants', async (context) => {
  const { dataDir, registry } = await opened(context, { store: 'encrypted', passphrase: 'correct horse battery' });
  await registry.add(LAB, SECRET);
  for (const file of ['clusters.json', 'secrets.json']) {
    assert.ok(!(await readFile(join(dataDir, file), 'utf8')).includes(SECRET), file);
    assert.equal((await stat(join(dataDir, file))).mode & 0o777, 0o600);
  }
  assert.equal(registry.secretOf('company-gpu'), SECRET);
});

test('the same name again replaces it with its secret, another one of the same letters gets another slug', async (context) => {
  const { registry } = await opened(context);
  await registry.add(LAB, SECRET);
  const changed = await registry.add({ ...LAB, name: 'COMPANY GPU', priority: 7, share: true }, 'another-secret');
  assert.deepEqual([changed.slug, changed.priority, changed.share], ['company-gpu', 7, true]);
  assert.equal(registry.secretOf('company-gpu'), 'another-secret');
  const near = await registry.add({ ...LAB, name: 'Company: GPU' }, SECRET);
  assert.equal(near.slug, 'company-gpu-2');
  await assert.rejects(registry.add({ ...LAB, name: 'company-gpu' }, SECRET), { message: /choose another name/ });
  assert.equal(registry.list().length, 2);
});

test('removing a cluster removes its secret', async (context) => {
  const { registry, again } = await opened(context);
  await registry.add(LAB, SECRET);
  await registry.remove('Company GPU');
  const other = await again();
  assert.deepEqual(other.list(), []);
  assert.equal(other.secretOf('company-gpu'), null);
  await assert.rejects(registry.remove('Company GPU'), { code: 'not_found' });
});

test('what cannot be is refused with a reason, and nothing is kept', async (context) => {
  const { registry } = await opened(context);
  const rows: readonly [Partial<NewCluster>, RegExp][] = [
    [{ endpoint: 'http://10.0.0.5:8091' }, /no TLS.*--allow-http/],
    [{ endpoint: 'nonsense' }, /no URL/],
    [{ endpoint: 'https://u:p@x.example' }, /credentials/],
    [{ endpoint: 'https://169.254.169.254' }, /link-local/],
    [{ name: '' }, /name/],
    [{ name: 'a/b' }, /name/],
    [{ name: 'x'.repeat(41) }, /name/],
    [{ accessKey: 'a:b' }, /access key/],
    [{ priority: 0.5 }, /priority/],
  ];
  for (const [more, message] of rows) {
    await assert.rejects(registry.add({ ...LAB, ...more }, SECRET), { code: 'invalid_request', message });
  }
  await assert.rejects(registry.add(LAB, 'two words'), { code: 'invalid_request' });
  assert.deepEqual(registry.list(), []);
});

test('a file that lost a flag to a typing error is refused whole, and never quoted', async (context) => {
  const { dataDir, registry } = await opened(context);
  const good = { slug: 'lab', ...LAB };
  const bad = [
    { ...good, endpoint: 'http://x.example' },
    { ...good, allowHttp: 'true' },
    { ...good, share: 1 },
    { ...good, slug: '../lab' },
    { ...good, accessKey: '' },
    { ...good, priority: '7' },
    7,
  ];
  for (const item of bad) {
    await writeFile(join(dataDir, 'clusters.json'), JSON.stringify({ clusters: [item] }));
    await assert.rejects(registry.load(), { code: 'invalid_request', message: /clusters\.json cannot be used/ });
  }
  await writeFile(join(dataDir, 'clusters.json'), JSON.stringify({ clusters: [good, good] }));
  await assert.rejects(registry.load(), { message: /same slug/ });
});

test('a change by another process is seen, and told', async (context) => {
  const { registry, again } = await opened(context);
  await (await again()).add(LAB, SECRET);
  let told = 0;
  registry.onChange(() => {
    told += 1;
  });
  await registry.load();
  assert.ok(told > 0);
  assert.equal(registry.list().length, 1);
});

test('without leave no URL but an https one is taken, whatever it looks like', () => {
  const text = fc.oneof(
    fc.webUrl(),
    fc.string(),
    fc.stringMatching(/^(http|https|HTTP|ftp):\/?\/?[a-z0-9.:/@-]{0,30}$/),
  );
  fc.assert(
    fc.property(text, (url) => {
      let taken: URL | null = null;
      try {
        taken = parseClusterUrl(url, { allowHttp: false });
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'invalid_request');
      }
      if (taken !== null) assert.equal(taken.protocol, 'https:');
    }),
  );
});
