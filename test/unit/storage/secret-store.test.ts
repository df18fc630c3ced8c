import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../../node/common/clock.ts';
import type { MeshError } from '../../../node/common/errors.ts';
import type { Keychain } from '../../../node/storage/keychain.ts';
import { formatSecretFile, parseSecretFile } from '../../../node/storage/secret-file.ts';
import { readPassphrase } from '../../../node/storage/secret-passphrase.ts';
import { keyOfPassphrase, seal, unseal } from '../../../node/storage/secret-seal.ts';
import type { SecretStore } from '../../../node/storage/secret-store.ts';
import fc from '../../support/fc.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { MemoryKeychain, plainStore, secretStore } from '../../support/secret-parts.ts';

const CANARY = 'sk-canary-0123456789';

async function dataDir(t: TestContext): Promise<string> {
  const dir = await mkdtemp(path.join(tmpdir(), 'secret-store-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

const secretsIn = (dir: string): SecretStore => plainStore(dir);

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

const NAME = 'node/api:x';
const PASSPHRASE = 'correct horse battery';
const fileOf = (dir: string): string => path.join(dir, 'secrets.json');
const textOf = (dir: string): Promise<string> => readFile(fileOf(dir), 'utf8');
const isClean = (pattern: RegExp) => (error: MeshError) => {
  assert.equal(error.code, 'invalid_request');
  assert.match(error.message, pattern);
  assert.equal(/canary|horse/.test(error.message), false, error.message);
  return true;
};

test('with a keychain the first secret is sealed by a key that lies there, and the next process reads it', async (t) => {
  const dir = await dataDir(t);
  const keychain = new MemoryKeychain();
  await secretStore(dir, { keychain }).set(NAME, CANARY);
  assert.equal((await textOf(dir)).includes(CANARY), false);
  assert.equal((await stat(fileOf(dir))).mode & 0o777, 0o600);
  assert.equal(keychain.entries.size, 1);
  const later = secretStore(dir, { keychain });
  await later.load();
  assert.deepEqual(later.view(), { kind: 'keychain', choice: 'auto', count: 1 });
  assert.equal(later.has(NAME), true, 'the names are known without the keychain');
  assert.throws(() => later.get(NAME), /unlocked/);
  await later.unlock();
  assert.equal(later.get(NAME), CANARY);
});

test('without a keychain auto keeps a plain file, and says so when it begins and at each start', async (t) => {
  const dir = await dataDir(t);
  const keychain = new MemoryKeychain();
  keychain.problem = 'no desktop session';
  const said: string[] = [];
  const warn = (line: string): void => void said.push(line);
  await secretStore(dir, { keychain, warn }).set(NAME, CANARY);
  assert.ok((await textOf(dir)).includes(CANARY));
  assert.match(said.join(), /no desktop session.*plain file.*meshnode secrets use encrypted/);
  const node = secretStore(dir, { keychain, warn });
  t.after(() => node.stop());
  await node.start();
  assert.equal(node.get(NAME), CANARY);
  assert.match(said[1] ?? '', /plain file.*meshnode secrets use keychain/);
  const chosen = secretStore(dir, { keychain, warn, store: 'plain' });
  t.after(() => chosen.stop());
  await chosen.start();
  assert.equal(said.length, 2, 'who chose it is not told');
});

test('a chosen keychain that does not work is an error, and nothing is kept anywhere else', async (t) => {
  const dir = await dataDir(t);
  const keychain = new MemoryKeychain();
  keychain.problem = 'it is locked';
  await assert.rejects(
    secretStore(dir, { keychain, store: 'keychain' }).set(NAME, CANARY),
    isClean(/it is locked.*secrets.store/),
  );
  await assert.rejects(textOf(dir), { code: 'ENOENT' });
});

test('an encrypted store opens with its passphrase only; names are listed and secrets removed without it', async (t) => {
  const dir = await dataDir(t);
  const parts = { store: 'encrypted', passphrase: PASSPHRASE } as const;
  await secretStore(dir, parts).set(NAME, CANARY);
  assert.equal(/canary|horse/.test(await textOf(dir)), false);
  const right = secretStore(dir, parts);
  t.after(() => right.stop());
  await right.start();
  assert.equal(right.get(NAME), CANARY);
  await assert.rejects(
    secretStore(dir, { ...parts, passphrase: `${PASSPHRASE}!` }).start(),
    isClean(/passphrase is not the one/),
  );
  await assert.rejects(secretStore(dir, { store: 'encrypted' }).start(), isClean(/--passphrase-file/));
  const locked = secretStore(dir);
  await locked.load();
  assert.equal(locked.has(NAME), true);
  assert.equal(await locked.delete(NAME), true);
});

test('moving through every kind of store and back keeps every secret and leaves nothing in the old place', async (t) => {
  const dir = await dataDir(t);
  const keychain = new MemoryKeychain();
  const open = (passphrase = PASSPHRASE): SecretStore => secretStore(dir, { keychain, passphrase });
  const secrets = new Map(Array.from({ length: 9 }, (_, i) => [`node/api:${i}`, `${CANARY}-${i}`]));
  const all = async (store: SecretStore): Promise<Map<string, string | null>> => {
    await store.load();
    await store.unlock();
    return new Map([...secrets.keys()].map((name) => [name, store.get(name)]));
  };
  for (const [name, secret] of secrets) await open().set(name, secret);
  for (const kind of [
    'encrypted',
    'keychain',
    'plain',
    'keychain',
    'encrypted',
    'plain',
    'encrypted',
    'encrypted',
  ] as const) {
    assert.equal((await open().use(kind)).kind, kind);
    assert.deepEqual(await all(open()), secrets, kind);
    assert.equal((await textOf(dir)).includes(CANARY), kind === 'plain', kind);
    assert.equal(keychain.entries.size, kind === 'keychain' ? 1 : 0, kind);
  }
  assert.deepEqual((await readdir(dir)).toSorted(), ['secrets.json'], 'no lock, no copy');
});

test('a move that fails half-way leaves the old store as it was', async (t) => {
  const dir = await dataDir(t);
  await secretStore(dir, { store: 'plain' }).set(NAME, CANARY);
  const before = await textOf(dir);
  const forgetful = new MemoryKeychain();
  forgetful.get = () => Promise.resolve(null);
  await assert.rejects(secretStore(dir, { keychain: forgetful }).use('keychain'), isClean(/give back/));
  await assert.rejects(secretStore(dir).use('encrypted'), isClean(/--passphrase-file/));
  assert.equal(await textOf(dir), before);
});

test('a process that dies while it moves secrets leaves one whole store, wherever it dies', async (t) => {
  const dir = await dataDir(t);
  const keychain = new MemoryKeychain();
  await secretStore(dir, { store: 'plain' }).set(NAME, CANARY);
  for (const step of ['set', 'get', 'delete'] as const) {
    // The process never comes back from this call.
    const reached = Promise.withResolvers<void>();
    const dying: Keychain = {
      get: (account) => (step === 'get' ? hang() : keychain.get(account)),
      set: (account, key) => (step === 'set' ? hang() : keychain.set(account, key)),
      delete: (account) => (step === 'delete' ? hang() : keychain.delete(account)),
      probe: () => keychain.probe(),
    };
    const hang = (): Promise<never> => {
      reached.resolve();
      return new Promise(() => {});
    };
    if (step === 'delete') await secretStore(dir, { keychain }).use('keychain');
    void secretStore(dir, { keychain: dying }).use(step === 'delete' ? 'plain' : 'keychain');
    await reached.promise;
    const later = secretStore(dir, { keychain });
    await later.load();
    await later.unlock();
    assert.deepEqual([later.view().kind, later.get(NAME)], ['plain', CANARY], step);
  }
});

test('a running node follows a move and later changes, and keeps what it knows when the keychain is gone', async (t) => {
  const dir = await dataDir(t);
  const clock = new ManualClock();
  const keychain = new MemoryKeychain();
  const warned: string[] = [];
  let heard = (): void => {};
  const next = (): Promise<void> =>
    new Promise((resolve) => {
      heard = resolve;
    });
  const warn = (line: string): void => {
    warned.push(line);
    heard();
  };
  await secretStore(dir, { store: 'plain' }).set(NAME, CANARY);
  const node = secretStore(dir, { keychain, clock, warn });
  t.after(() => node.stop());
  await node.start();
  node.onChange(() => heard());
  await secretStore(dir, { keychain }).use('keychain');
  const moved = next();
  clock.advance(1000);
  await moved;
  assert.deepEqual([node.view().kind, node.get(NAME)], ['keychain', CANARY]);

  await secretStore(dir, { keychain }).set('node/api:y', `${CANARY}2`);
  keychain.problem = 'it is locked';
  const changed = next();
  clock.advance(1000);
  await changed;
  assert.equal(node.get('node/api:y'), `${CANARY}2`, 'its key was read once');
  keychain.problem = null;
  await secretStore(dir, { keychain, passphrase: PASSPHRASE }).use('encrypted');
  const lost = next();
  clock.advance(1000);
  await lost;
  assert.match(warned.at(-1) ?? '', /--passphrase-file/);
  assert.equal(node.get(NAME), CANARY, 'what it knew stays in force');
});

test('keys in one kind of store while another is chosen stop the start with what to do', async (t) => {
  const dir = await dataDir(t);
  await secretStore(dir, { store: 'plain' }).set(NAME, CANARY);
  const chosen = secretStore(dir, { store: 'keychain' });
  t.after(() => chosen.stop());
  await assert.rejects(chosen.start(), isClean(/meshnode secrets use keychain/));
  await assert.rejects(chosen.set('node/b', CANARY), isClean(/meshnode secrets use keychain/));
  await plainStore(dir).delete(NAME);
  await chosen.set(NAME, CANARY);
  assert.equal(chosen.view().kind, 'keychain', 'an empty store of another kind is in nobody’s way');
});

test('a sealed secret under another name, from another file or with one bit changed does not open', async (t) => {
  const dir = await dataDir(t);
  const keychain = new MemoryKeychain();
  await secretStore(dir, { keychain }).set('node/a', CANARY);
  await secretStore(dir, { keychain }).set('node/b', `${CANARY}b`);
  const file = JSON.parse(await textOf(dir)) as { sealed: Record<string, string> };
  const reject = async (sealed: Record<string, string>): Promise<void> => {
    await writeFile(fileOf(dir), JSON.stringify({ ...file, sealed }));
    await assert.rejects(secretStore(dir, { keychain }).start(), isClean(/"node\/b" .*changed/));
  };
  await reject({ ...file.sealed, 'node/b': file.sealed['node/a'] ?? '' });
  const b = file.sealed['node/b'] ?? '';
  await reject({ ...file.sealed, 'node/b': `${b.startsWith('A') ? 'B' : 'A'}${b.slice(1)}` });
});

test('a file that asks for an unbounded scrypt, or that a later version wrote, is refused', async (t) => {
  const dir = await dataDir(t);
  await secretStore(dir, { store: 'encrypted', passphrase: PASSPHRASE }).set(NAME, CANARY);
  const file = JSON.parse(await textOf(dir)) as { cost: object };
  for (const cost of [{ n: 2 ** 24 }, { n: 1024 }, { r: 64 }, { p: 99 }, { n: 2 ** 17 + 1 }]) {
    await writeFile(fileOf(dir), JSON.stringify({ ...file, cost: { ...file.cost, ...cost } }));
    await assert.rejects(secretStore(dir).load(), isClean(/cost is out of bounds/));
  }
  await writeFile(fileOf(dir), JSON.stringify({ ...file, version: 2 }));
  await assert.rejects(secretStore(dir).load(), isClean(/a later meshnode/));
});

test('many processes that set the first secrets at once keep them all, in one store with one key', async (t) => {
  const dir = await dataDir(t);
  const keychain = new MemoryKeychain();
  const names = Array.from({ length: 8 }, (_, i) => `node/api:${i}`);
  await Promise.all(names.map((name) => secretStore(dir, { keychain }).set(name, CANARY)));
  const later = secretStore(dir, { keychain });
  await later.load();
  await later.unlock();
  assert.deepEqual(
    names.map((name) => later.get(name)),
    names.map(() => CANARY),
  );
  assert.equal(keychain.entries.size, 1, 'the keys that came too late are forgotten');
});

test('the passphrase is the first line of its file, in any Unicode form, and is never quoted', async (t) => {
  const dir = await dataDir(t);
  const file = path.join(dir, 'passphrase');
  await writeFile(file, 'caf\u00e9 au lait\r\nsecond line\n');
  assert.equal(await readPassphrase(systemClock, file), 'caf\u00e9 au lait');
  const salt = Buffer.alloc(16);
  const cost = { n: 2 ** 14, r: 8, p: 1 };
  assert.deepEqual(
    await keyOfPassphrase('caf\u00e9 au lait', salt, cost),
    await keyOfPassphrase('cafe\u0301 au lait', salt, cost),
  );
  await writeFile(file, 'canary\n');
  await assert.rejects(readPassphrase(systemClock, file), isClean(/8 characters/));
  await assert.rejects(readPassphrase(systemClock, path.join(dir, 'absent')), isClean(/ENOENT/));
});

test('what is sealed opens to the same text under its key and name, and to nothing under others', () => {
  const key = fc.uint8Array({ minLength: 32, maxLength: 32 });
  fc.assert(
    fc.property(key, key, fc.string(), fc.string(), fc.string({ unit: 'binary' }), (one, two, name, other, text) => {
      const sealed = seal(one, name, text);
      // Lone surrogates have no UTF-8: secrets are ASCII.
      assert.equal(unseal(one, name, sealed), Buffer.from(text, 'utf8').toString('utf8'));
      if (name !== other) assert.equal(unseal(one, other, sealed), null);
      if (Buffer.compare(one, two) !== 0) assert.equal(unseal(two, name, sealed), null);
    }),
  );
});

test('every file of secrets reads as it was written, and no other text is taken for one', () => {
  const entries = fc.dictionary(fc.stringMatching(/^[\w:./-]{1,40}$/), fc.stringMatching(/^[\x21-\x7e]{1,60}$/));
  fc.assert(
    fc.property(entries, (secrets) => {
      const file = { protection: { kind: 'plain' }, check: null, entries: new Map(Object.entries(secrets)) } as const;
      assert.deepEqual(parseSecretFile(JSON.parse(JSON.stringify(formatSecretFile(file)))), file);
    }),
  );
  fc.assert(
    fc.property(fc.jsonValue(), (json) => {
      assert.throws(() => parseSecretFile(json));
    }),
  );
});
