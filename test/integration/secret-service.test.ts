/** The store of keys on a real Secret Service. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { systemClock } from '../../node/common/clock.ts';
import { OsKeychain } from '../../node/storage/keychain.ts';
import { type CliResult, runCli } from '../support/cli-process.ts';
import { NodeProcess } from '../support/node-process.ts';
import { OpenAiServer } from '../support/openai-server.ts';
import { secretStore } from '../support/secret-parts.ts';
import { missingSecretService, SecretService } from '../support/secret-service.ts';

const CANARY = 'sk-canary-in-the-keychain';
const missing = missingSecretService();

describe('with a real Secret Service', { skip: missing ?? false }, () => {
  let service: SecretService;
  let server: OpenAiServer;
  let home: string;
  const keychain = (options = {}): OsKeychain =>
    new OsKeychain({ clock: systemClock }, { env: service.env, ...options });
  const cli = (args: readonly string[], more: { stdin?: string } = {}): Promise<CliResult> => {
    const { HOME: _, ...env } = service.env;
    return runCli([...args, '--data-dir', path.join(home, 'node')], { home, env, ...more });
  };

  before(async () => {
    service = await SecretService.start();
    server = await OpenAiServer.start();
    home = mkdtempSync(path.join(tmpdir(), 'secret-home-'));
  });
  after(async () => {
    await service.stop();
    await server.stop();
    rmSync(home, { recursive: true, force: true });
  });

  test('an entry is set, read, replaced and deleted; the probe leaves none behind', async () => {
    const entries = keychain();
    assert.equal(await entries.get('x'), null);
    await entries.set('x', CANARY);
    await entries.set('x', `${CANARY}2`);
    assert.equal(await keychain().get('x'), `${CANARY}2`);
    await entries.delete('x');
    await entries.delete('x');
    assert.equal(await entries.get('x'), null);
    assert.equal(await entries.probe(), null);
  });

  test('a key given to one command is found by the next and by a node, and lies in no file', async () => {
    const added = await cli(['nodes', 'add', server.url, '--name', 'box', '--key-stdin'], { stdin: `${CANARY}\n` });
    assert.deepEqual([added.code, added.err], [0, '']);
    const asked = await cli(['nodes', 'test', 'box']);
    assert.equal(asked.code, 0, asked.err);
    assert.equal(server.asked.at(-1)?.headers.authorization, `Bearer ${CANARY}`);
    const dir = path.join(home, 'node');
    for (const file of readdirSync(dir))
      assert.equal(readFileSync(path.join(dir, file), 'utf8').includes(CANARY), false);

    for (const _restart of [1, 2]) {
      const { HOME: _, ...env } = service.env;
      const node = new NodeProcess({ dataDir: dir, env, flags: ['--no-mdns', '--listen', '/ip4/127.0.0.1/tcp/0'] });
      try {
        const { api } = await node.ready();
        const before = server.asked.length;
        const { secrets } = (await (await fetch(`${api}/api/v1/node`)).json()) as { secrets: object };
        assert.deepEqual(secrets, { kind: 'keychain', choice: 'auto', count: 1 });
        const body = JSON.stringify({ model: 'm', messages: [{ role: 'user', content: 'Hi' }] });
        const answer = await fetch(`${api}/v1/chat/completions`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body,
        });
        assert.equal(answer.status, 200, await answer.text());
        const { asked } = server;
        assert.ok(asked.length > before);
        assert.ok(asked.slice(before).every(({ headers }) => headers.authorization === `Bearer ${CANARY}`));
        assert.equal(
          node.events.some(({ event }) => event === 'warning'),
          false,
        );
        assert.match((await cli(['status'])).out, /secrets +1 key, sealed by the keychain of this system/);
      } finally {
        await node.kill();
      }
    }
    const { findings } = JSON.parse((await cli(['doctor', '--json'])).out) as {
      findings: { check: string; detail: string }[];
    };
    assert.match(
      findings.find(({ check }) => check === 'keys of other nodes')?.detail ?? '',
      /1 key, sealed .*it opens/,
    );
  });

  test('keys move from the keychain into an encrypted file, a plain one, and back', async () => {
    const stdin = 'a long enough passphrase\n';
    for (const kind of ['encrypted', 'plain', 'keychain']) {
      const moved = await cli(['secrets', 'use', kind, '--json'], { stdin });
      assert.equal(moved.code, 0, moved.err);
      assert.deepEqual(JSON.parse(moved.out), { kind, choice: 'auto', count: 1 });
      const text = readFileSync(path.join(home, 'node', 'secrets.json'), 'utf8');
      assert.equal(text.includes(CANARY), kind === 'plain');
    }
    assert.equal((await cli(['nodes', 'test', 'box'])).code, 0);
    assert.equal(server.asked.at(-1)?.headers.authorization, `Bearer ${CANARY}`);
  });

  test('one that hangs is given up in time, without holding the event loop, and nothing is lost', async () => {
    service.pause();
    try {
      let ticks = 0;
      const timer = setInterval(() => {
        ticks += 1;
      }, 20);
      assert.match((await keychain({ probeMs: 600 }).probe()) ?? '', /did not answer in time/);
      clearInterval(timer);
      assert.ok(ticks > 3, `the event loop went on (${ticks} ticks)`);
      const store = secretStore(path.join(home, 'node'), { keychain: keychain({ callMs: 300 }) });
      await assert.rejects(store.start(), /keychain does not give the key.*in time.*unlock it/);
      await store.stop();
    } finally {
      service.resume();
    }
    assert.equal((await cli(['nodes', 'test', 'box'])).code, 0);
  });

  test('a locked collection is an error that says so, at once or in time; doctor reports it', async () => {
    service.lock();
    await assert.rejects(
      keychain({ callMs: 3_000 })
        .get('secrets/x')
        .then(() => keychain({ callMs: 3_000 }).set('y', 'z')),
      {
        code: 'invalid_request',
        message: /locked/,
      },
    );
    const { code, out } = await cli(['doctor', '--json']);
    assert.equal(code, 1);
    assert.match(out, /keychain does not give the key of secrets\.json[^"]*locked[^"]*unlock it/);
    const refused = await cli(['start', '--no-mdns', '--port', '0', '--listen', '/ip4/127.0.0.1/tcp/0']);
    assert.equal(refused.code, 1);
    assert.match(refused.err, /keychain does not give the key/);
    assert.equal((await cli(['nodes', 'list'])).code, 0, 'listing needs no key');
  });

  test('a daemon that died is an error; one that comes back has everything', async () => {
    await service.killKeyring();
    assert.match((await keychain().probe()) ?? '', /./);
    const failed = await cli(['nodes', 'test', 'box']);
    assert.equal(failed.code, 1);
    assert.match(failed.err, /keychain does not give the key/);
    await service.startKeyring();
    assert.equal((await cli(['nodes', 'test', 'box'])).code, 0);
  });
});

test('without any session the keychain is refused in words that help', async () => {
  const keychain = new OsKeychain({ clock: systemClock }, { env: { PATH: process.env['PATH'], HOME: tmpdir() } });
  if (process.platform === 'linux') assert.match((await keychain.probe()) ?? '', /no desktop session/);
});
