import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { systemClock } from '../../../node/common/clock.ts';
import { IssuedKeys, type NewKey } from '../../../node/storage/issued-keys.ts';
import { parseKeyFile } from '../../../node/storage/key-file.ts';
import { ManualClock } from '../../support/manual-clock.ts';

/** `node` is what the node has open, `cli` another process' view of the same file. */
async function setUp(context: TestContext) {
  const dataDir = await mkdtemp(join(tmpdir(), 'meshnode-keys-'));
  context.after(() => rm(dataDir, { recursive: true, force: true }));
  const clock = new ManualClock();
  let unix = 1_000_000;
  const open = (): IssuedKeys => new IssuedKeys({ clock, unixNow: () => unix }, { dataDir });
  const [node, cli] = [open(), open()];
  const look = (): Promise<void> => {
    clock.advance(1000);
    return node.refresh();
  };
  const at = (ms: number): void => {
    unix = ms;
  };
  return { path: join(dataDir, 'keys.json'), clock, node, cli, look, at };
}

test('D-48 a key is made once, kept as a hash only, private, and verified by what it is', async (context) => {
  const { path, node, cli, look } = await setUp(context);
  const { key, view } = await cli.create('anna', { tokensPerMinute: 1000, inFlight: 2 });
  assert.match(key, /^mk_[A-Za-z0-9_-]{43}$/);
  const hash = createHash('sha256').update(key).digest('hex');
  assert.equal(view.id, hash.slice(0, 8));
  assert.deepEqual(view.scopes, ['inference']);
  assert.deepEqual(view.limits, { tokensPerMinute: 1000, inFlight: 2 });
  assert.equal(view.createdAt, 1_000_000);
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  const text = await readFile(path, 'utf8');
  assert.ok(text.includes(hash));
  for (const form of forms(key)) assert.ok(!text.includes(form));
  const shown = JSON.stringify(await cli.list());
  assert.ok(!shown.includes(hash) && !shown.includes(key));

  await look();
  const { id, name, scopes, limits } = view;
  assert.deepEqual(node.verify(key), { id, name, scopes, limits });
  for (const wrong of ['', 'mk_', key.slice(0, -1), `${key}x`, `${key} `, key.toUpperCase(), hash, view.id, 'anna']) {
    assert.equal(node.verify(wrong), null);
  }
});

/** A key as it might leak. */
function forms(key: string): string[] {
  const bytes = Buffer.from(key);
  return [key, key.slice(3), bytes.toString('base64'), bytes.toString('hex')];
}

test('a node demands keys once there is one, also when all are revoked, until they are cleared', async (context) => {
  const { node, cli, look } = await setUp(context);
  assert.equal(node.required(), true, 'nobody is let in before the file was looked at');
  await look();
  assert.equal(node.required(), false);
  const { key, view } = await cli.create('anna');
  await look();
  assert.equal(node.required(), true);
  assert.equal(node.verify(key)?.name, 'anna');
  assert.equal((await cli.revoke('anna')).revokedAt, 1_000_000);
  await look();
  assert.equal(node.verify(key), null);
  assert.equal(node.required(), true);
  assert.deepEqual(
    (await cli.list()).map(({ id, revokedAt }) => [id, revokedAt]),
    [[view.id, 1_000_000]],
  );
  await cli.clear();
  await look();
  assert.equal(node.required(), false);
});

test('a change by another process counts within a second, and its own at once', async (context) => {
  const { node, cli, clock } = await setUp(context);
  await node.refresh();
  const { key } = await cli.create('anna');
  clock.advance(999);
  await node.refresh();
  assert.equal(node.verify(key), null);
  clock.advance(1);
  await Promise.all([node.refresh(), node.refresh()]);
  assert.equal(node.verify(key)?.name, 'anna');
  await node.revoke('anna');
  await node.refresh();
  assert.equal(node.verify(key), null);
});

test('a change that leaves the length of the file as it was is seen, too', async (context) => {
  const { node, cli, look, path } = await setUp(context);
  const { key } = await cli.create('anna');
  await look();
  const text = await readFile(path, 'utf8');
  const hash = createHash('sha256').update(key).digest('hex');
  await writeFile(path, text.replace(hash, createHash('sha256').update('other').digest('hex')));
  await look();
  assert.equal(node.verify(key), null);
  assert.equal(node.verify('other')?.name, 'anna');
});

test('a key is refused from its expiry on', async (context) => {
  const { node, cli, look, at } = await setUp(context);
  const { key } = await cli.create('anna', { expiresAt: 1_000_500 });
  await look();
  at(1_000_499);
  assert.notEqual(node.verify(key), null);
  at(1_000_500);
  assert.equal(node.verify(key), null);
});

test('keys are revoked by id or name, and a revoked name can be given again', async (context) => {
  const { node, cli, look } = await setUp(context);
  const first = await cli.create('anna');
  assert.equal(first.view.revokedAt, null);
  const other = await cli.create('bert');
  await assert.rejects(cli.create('anna'), { code: 'invalid_request', message: /taken/ });
  await cli.revoke(first.view.id);
  const second = await cli.create('anna');
  await look();
  assert.equal(node.verify(first.key), null);
  assert.equal(node.verify(second.key)?.id, second.view.id);
  assert.equal(node.verify(other.key)?.name, 'bert');
  assert.equal((await cli.revoke('anna')).id, second.view.id);
  assert.deepEqual(
    (await cli.list()).map(({ name }) => name),
    ['anna', 'bert', 'anna'],
  );
  await assert.rejects(cli.revoke('anna'), { code: 'not_found', message: /there are: bert$/ });
  await assert.rejects(cli.revoke(first.view.id), { code: 'not_found' });
  await cli.revoke('bert');
  await assert.rejects(cli.revoke('x'), { code: 'not_found', message: /there are none$/ });
});

test('keys made at the same time, by several processes, are all kept', async (context) => {
  const { cli, path } = await setUp(context);
  const open = (): IssuedKeys => new IssuedKeys({ clock: systemClock }, { dataDir: dirname(path) });
  const several = [open(), open(), open()];
  await Promise.all(several.flatMap((keys, at) => [1, 2, 3].map((index) => keys.create(`key ${at} ${index}`))));
  assert.equal((await cli.list()).length, 9);
});

test('what makes no sense is refused and changes nothing', async (context) => {
  const { cli, path } = await setUp(context);
  await cli.create('anna');
  const before = await readFile(path, 'utf8');
  for (const name of ['', ' x', '-x', 'a/b', 'a\nb', 'x'.repeat(65), '01234567', `mk_${'x'.repeat(43)}`]) {
    await assert.rejects(cli.create(name), { code: 'invalid_request' }, JSON.stringify(name));
  }
  const wrong: object[] = [
    { tokensPerMinute: 0 },
    { tokensPerMinute: 1.5 },
    { inFlight: -1 },
    { inFlight: Number.NaN },
    { expiresAt: 1_000_000 },
    { expiresAt: Number.NaN },
    { scopes: [] },
    { scopes: ['root'] },
  ];
  for (const options of wrong) {
    await assert.rejects(cli.create('x', options as NewKey), { code: 'invalid_request' }, JSON.stringify(options));
  }
  assert.equal(await readFile(path, 'utf8'), before);
});

test('a damaged or unreadable file lets nobody in, and is not written over', async (context) => {
  const { node, cli, look, path } = await setUp(context);
  const { key } = await cli.create('anna');
  await look();
  for (const text of [
    '',
    '{',
    '[]',
    '{"version":2,"keys":[]}',
    '{"version":1,"keys":[{}]}',
    '{"version":1,"keys":[null]}',
  ]) {
    await writeFile(path, text);
    await look();
    assert.equal(node.required(), true, text);
    assert.equal(node.verify(key), null, text);
    await assert.rejects(cli.create('bert'), { code: 'invalid_request', message: /keys\.json/ });
    await assert.rejects(cli.list(), { code: 'invalid_request' });
    assert.equal(await readFile(path, 'utf8'), text);
  }
  if (process.getuid?.() !== 0) {
    await chmod(path, 0o000);
    await look();
    assert.equal(node.required(), true);
  }
  await rm(path);
  await cli.create('bert');
  await look();
  assert.equal(node.required(), true);
});

test('a key file never becomes more generous than it says: odd values make it damaged', () => {
  const sha256 = 'ab'.repeat(32);
  const limits = { tokensPerMinute: 1, inFlight: null };
  const good = { id: 'abababab', name: 'x', scopes: [], limits, createdAt: 1, expiresAt: 2, revokedAt: null, sha256 };
  const parse = (entry: object): unknown => parseKeyFile(JSON.parse(JSON.stringify({ version: 1, keys: [entry] })));
  const isRefused = (entry: object): void => assert.throws(() => parse(entry), /number 1 is damaged/);
  assert.deepEqual(parse(good), [{ ...omit(good, 'sha256'), hash: Buffer.from(sha256, 'hex') }]);
  for (const field of Object.keys(good)) {
    const odd = [undefined, true, [1], {}, ...(/^(id|name)$/.test(field) ? [] : ['not hex'])];
    for (const value of odd) isRefused({ ...good, [field]: value });
  }
  for (const value of [undefined, '1', true, []]) isRefused({ ...good, limits: { ...limits, tokensPerMinute: value } });
});

function omit(value: object, field: string): object {
  return Object.fromEntries(Object.entries(value).filter(([name]) => name !== field));
}
