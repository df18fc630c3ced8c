/** `meshnode cluster add | list | test | remove` as a person types them, without a node that runs. */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { type CliResult, runCli } from '../support/cli-process.ts';
import { ClusterManager, KEYPAIR } from '../support/cluster-manager/manager.ts';
import { temporaryDir } from '../support/node-process.ts';

const home = temporaryDir();
let manager: ClusterManager;

before(async () => {
  manager = await ClusterManager.start();
  manager.addService('llama-svc', 'big');
});

after(async () => {
  await manager.stop();
  await rm(home, { recursive: true, force: true });
});

const run = (args: readonly string[], stdin = ''): Promise<CliResult> =>
  runCli(['cluster', ...args], { home, stdin, env: { MESHNODE_SECRETS_STORE: 'plain' } });
const add = (name: string, url: string, more: readonly string[] = [], secret = KEYPAIR.secretKey): Promise<CliResult> =>
  run(['add', name, url, '--access-key', KEYPAIR.accessKey, '--secret-stdin', ...more], `${secret}\n`);

test('N-4 C-17 add tries the cluster at once, list and test show how it does, remove forgets it', async () => {
  const added = await add('lab', manager.url, ['--allow-http', '--priority', '2']);
  assert.equal(added.code, 0, added.err);
  assert.match(
    added.out,
    /Registered lab \(cluster:lab\), priority 2\.\nlab: connected, API v8\.20240315, 1 service with models\n {2}llama-svc: big/,
  );
  const listed = await run(['list']);
  assert.match(listed.out, /lab +http:\/\/127\.0\.0\.1:\d+ +connected +2 +no +big/);
  const json = JSON.parse((await run(['list', '--json'])).out) as { clusters: readonly Record<string, unknown>[] };
  const [{ status, apiVersion, services, hasSecret } = {}] = json.clusters;
  const wanted = { status: 'connected', apiVersion: 'v8.20240315', hasSecret: true };
  assert.deepEqual({ status, apiVersion, hasSecret }, wanted);
  assert.deepEqual(services, [{ name: 'llama-svc', models: ['big'], problem: null }]);
  manager.faults.clockOffsetMs = -17 * 60_000;
  const skewed = await run(['test', 'lab']);
  assert.equal(skewed.code, 0);
  assert.match(skewed.out, /lab: clock_skew.*\nproblem: the clock here is 17 min ahead of lab's/);
  manager.faults.clockOffsetMs = 0;
  const wrong = await add('lab', manager.url, ['--allow-http'], 'not-the-secret');
  assert.equal(wrong.code, 1);
  assert.match(wrong.out, /lab: auth_error.*\nproblem: lab answered 401: the signature does not fit.*\nIt is kept/);
  manager.faults.down = true;
  const down = await run(['test', 'LAB', '--json']);
  manager.faults.down = false;
  assert.equal(down.code, 1);
  assert.equal((JSON.parse(down.out) as { probe: { status: string } }).probe.status, 'unreachable');
  const removed = await run(['remove', 'lab']);
  assert.match(removed.out, /lab \(cluster:lab\) is forgotten, and its keys with it\./);
  assert.match((await run(['list'])).out, /^None yet: meshnode cluster add/);
  const said = [added, listed, skewed, wrong, down, removed].map(({ out, err }) => out + err).join('');
  assert.ok(!said.includes(KEYPAIR.secretKey) && !said.includes('not-the-secret'));
});

test('what cannot be registered is a usage error that says what to do', async () => {
  const rows: readonly [Promise<CliResult>, RegExp][] = [
    [add('lab', manager.url), /no TLS.*--allow-http/],
    [add('lab', 'https://manager.example', [], ''), /--secret-stdin: there was none/],
    [run(['add', 'lab', 'https://manager.example']), /both keys are wanted/],
  ];
  for (const [result, message] of rows) {
    const { code, err } = await result;
    assert.equal(code, 2, err);
    assert.match(err, message);
  }
});
