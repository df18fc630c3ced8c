import assert from 'node:assert/strict';
import { chmod, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { generateKeyPair, privateKeyToProtobuf } from '@libp2p/crypto/keys';
import { silentLogger } from '../../../node/common/logger.ts';
import { loadIdentity } from '../../../node/storage/identity.ts';
import { KnownPeers } from '../../../node/storage/known-peers.ts';
import { ManualClock } from '../../support/manual-clock.ts';

async function withDir(body: (dir: string) => Promise<void>): Promise<void> {
  const dir = await mkdtemp(path.join(tmpdir(), 'meshnode-identity-'));
  try {
    await body(dir);
  } finally {
    await rm(dir, { recursive: true });
  }
}

test('the identity is made once, private, and stays the same', async () => {
  await withDir(async (dir) => {
    const keys = await Promise.all(Array.from({ length: 8 }, () => loadIdentity(dir)));
    keys.push(await loadIdentity(dir));
    assert.equal(new Set(keys.map((key) => key.publicKey.toString())).size, 1);
    assert.deepEqual(await readdir(dir), ['identity.key']);
    assert.equal((await stat(path.join(dir, 'identity.key'))).mode & 0o777, 0o600);
  });
});

test('a key that others can read is refused with the way out', async () => {
  await withDir(async (dir) => {
    await loadIdentity(dir);
    await chmod(path.join(dir, 'identity.key'), 0o640);
    await assert.rejects(loadIdentity(dir), { code: 'invalid_request', message: /chmod 600/ });
  });
});

test('a damaged key, or one of another kind, is refused and left as it is', async () => {
  await withDir(async (dir) => {
    const file = path.join(dir, 'identity.key');
    for (const bytes of [Buffer.from('not a key'), privateKeyToProtobuf(await generateKeyPair('secp256k1'))]) {
      await writeFile(file, bytes, { mode: 0o600 });
      await assert.rejects(loadIdentity(dir), { code: 'invalid_request', message: /no Ed25519 key/ });
    }
  });
});

test('known peers survive a restart, most recently seen first and bounded', async () => {
  await withDir(async (dir) => {
    const components = { clock: new ManualClock(), logger: silentLogger };
    const peers = new KnownPeers(components, { dataDir: dir, limit: 3 });
    await peers.start();
    for (const fingerprint of ['A', 'B', 'C', 'A', 'D'])
      peers.seen({ fingerprint, addresses: ['/ip4/10.0.0.1/tcp/1'] });
    peers.seen({ fingerprint: 'nowhere', addresses: [] });
    await peers.stop();
    assert.equal((await stat(path.join(dir, 'peers.json'))).mode & 0o777, 0o600);
    const again = new KnownPeers(components, { dataDir: dir, limit: 3 });
    await again.start();
    assert.deepEqual(
      again.list().map(({ fingerprint }) => fingerprint),
      ['D', 'A', 'C'],
    );
  });
});

test('a damaged list of known peers is an empty one', async () => {
  await withDir(async (dir) => {
    for (const text of ['{', '[]', '{"peers":[1,null,{"fingerprint":5,"addresses":[]},{"fingerprint":"A"}]}']) {
      await writeFile(path.join(dir, 'peers.json'), text);
      const peers = new KnownPeers({ clock: new ManualClock(), logger: silentLogger }, { dataDir: dir });
      await peers.start();
      assert.deepEqual(peers.list(), []);
      await peers.stop();
    }
  });
});
