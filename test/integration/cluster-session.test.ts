/** Sessions, services and folders of a cluster, against the strict stand-in: calls, and the commands over them. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { clusterFolders } from '../../cli/commands/cluster-folders.ts';
import { clusterProvision } from '../../cli/commands/cluster-provision.ts';
import { clusterService } from '../../cli/commands/cluster-service.ts';
import { clusterSession } from '../../cli/commands/cluster-session.ts';
import { commandHelp } from '../../cli/help.ts';
import { ManagerClient } from '../../node/backends/cluster/manager-client.ts';
import { ComputeSessions, type ExecutionEvent } from '../../node/backends/cluster-sessions/compute-sessions.ts';
import { ModelServices } from '../../node/backends/cluster-sessions/model-services.ts';
import { resourceDemand } from '../../node/backends/cluster-sessions/resource-demand.ts';
import { systemClock } from '../../node/common/clock.ts';
import type { MeshError } from '../../node/common/errors.ts';
import { type CliResult, runCli } from '../support/cli-process.ts';
import { ClusterManager, KEYPAIR, type ManagerOptions } from '../support/cluster-manager/manager.ts';

const { signal } = new AbortController();

interface Bench {
  readonly manager: ClusterManager;
  readonly sessions: ComputeSessions;
  readonly services: ModelServices;
}

async function bench(context: TestContext, options: ManagerOptions = {}): Promise<Bench> {
  const manager = await ClusterManager.start(options);
  const { accessKey, secretKey } = KEYPAIR;
  const known = { endpoint: manager.url, accessKey, secretKey: () => secretKey, allowHttp: true, name: 'lab' };
  const client = new ManagerClient({ clock: systemClock }, known);
  context.after(async () => {
    client.close();
    await manager.stop();
  });
  const parts = { manager: client, cluster: 'lab' };
  return {
    manager,
    sessions: new ComputeSessions({ ...parts, clock: systemClock }),
    services: new ModelServices(parts),
  };
}

const template = (name: string, more: { mounts?: string[]; command?: string } = {}) => {
  return { ...resourceDemand('python:3.11', {}), name, mounts: [], command: null, ...more };
};

const refused = (work: Promise<unknown>): Promise<MeshError> =>
  work.then(
    () => assert.fail('it was done'),
    (error: MeshError) => error,
  );

async function run(sessions: ComputeSessions, name: string, code: string): Promise<ExecutionEvent[]> {
  return await Array.fromAsync(sessions.execute(name, code, signal));
}

for (const version of ['v8.20240315', 'v4.20190615']) {
  test(`C-14 a session is made, awaited, given code, read and destroyed under ${version}`, async (context) => {
    const { manager, sessions } = await bench(context, { version });
    const created = await sessions.create(template('tuning', { mounts: ['data'] }), signal);
    assert.deepEqual([created.name, created.status, created.image], ['tuning', 'PENDING', 'python:3.11']);
    const seen: string[] = [];
    const wait = {
      target: 'RUNNING',
      boundMs: 20_000,
      onStatus: ({ status }: { status: string }) => seen.push(status),
    } as const;
    assert.equal((await sessions.waitUntil('tuning', wait, signal)).status, 'RUNNING');
    assert.equal(seen.at(-1), 'RUNNING');
    const events = await run(sessions, 'tuning', 'print("one")\nprint("two")\nprint("three")\n');
    assert.equal(events.map((event) => (event.type === 'output' ? event.text : '')).join(''), 'one\ntwo\nthree\n');
    assert.deepEqual(events.at(-1), { type: 'end', exitCode: 0 });
    const failed = await run(sessions, 'tuning', 'raise ValueError');
    assert.deepEqual(failed.at(-1), { type: 'end', exitCode: 1 });
    assert.match(await sessions.logs('tuning', signal), /is ready\none\ntwo\nthree\n/);
    assert.deepEqual(
      (await sessions.list({ all: false }, signal)).map(({ name }) => name),
      ['tuning'],
    );
    await sessions.destroy('tuning', { forced: false }, signal);
    await sessions.waitUntil('tuning', { ...wait, target: 'TERMINATED' }, signal);
    assert.deepEqual(await sessions.list({ all: false }, signal), []);
    assert.deepEqual(
      (await sessions.list({ all: true }, signal)).map(({ status }) => status),
      ['TERMINATED'],
    );
    const prefix = version.startsWith('v4') ? '/kernel' : '/session';
    const [asked] = manager.calls('POST', prefix);
    assert.equal(asked?.path, version.startsWith('v4') ? '/kernel/create' : '/session');
    const body = JSON.parse(asked?.body ?? '{}') as { enqueueOnly: boolean; config: { mounts: string[] } };
    assert.deepEqual([body.enqueueOnly, body.config.mounts], [true, ['data']]);
  });
}

test('C-14 a batch session runs its command and ends', async (context) => {
  const { sessions } = await bench(context);
  await sessions.create(template('batch-1', { command: 'python train.py' }), signal);
  const wait = { target: 'TERMINATED', boundMs: 20_000, onStatus: () => {} } as const;
  assert.equal((await sessions.waitUntil('batch-1', wait, signal)).status, 'TERMINATED');
  assert.match(await sessions.logs('batch-1', signal), /python train\.py/);
});

test('a wait has a bound and ends at an error; an unknown session and a taken name are told apart', async (context) => {
  const { manager, sessions } = await bench(context);
  manager.sessions.rules.stuckAt = 'PENDING';
  await sessions.create(template('stuck'), signal);
  const wait = { target: 'RUNNING', boundMs: 300, onStatus: () => {} } as const;
  const late = await refused(sessions.waitUntil('stuck', wait, signal));
  assert.deepEqual([late.code, /still PENDING/.test(late.message)], ['request_timeout', true]);
  assert.equal((await refused(sessions.create(template('stuck'), signal))).code, 'invalid_request');
  manager.sessions.rules.stuckAt = 'ERROR';
  await sessions.create(template('broken'), signal);
  const ended = await sessions.waitUntil('broken', { ...wait, boundMs: 20_000 }, signal);
  assert.equal(ended.status, 'ERROR');
  for (const work of [sessions.logs('nosuch', signal), sessions.destroy('nosuch', { forced: true }, signal)]) {
    assert.equal((await refused(work)).code, 'not_found');
  }
  assert.equal((await refused(run(sessions, 'stuck', 'print("x")'))).code, 'invalid_request');
  for (const name of ['abc', 'two words', 'a/b/../c']) {
    assert.equal((await refused(sessions.create(template(name), signal))).facts.param, 'name');
  }
});

test('C-5 C-6 services are made from a model folder, scaled and deleted; folders are listed with their use', async (context) => {
  const { manager, services } = await bench(context);
  assert.deepEqual(
    (await services.folders(signal)).map(({ name, usage }) => [name, usage]),
    [
      ['llama-3-70b', 'model'],
      ['data', 'general'],
    ],
  );
  const wished = {
    ...resourceDemand('vllm', {}),
    name: 'big-one',
    folder: 'llama-3-70b',
    replicas: 1,
    isPublic: false,
  };
  const created = await services.create(wished, signal);
  assert.equal(created.name, 'big-one');
  await services.scale(created.id, 3, signal);
  assert.equal((await services.find('big-one', signal))?.desired, 3);
  assert.equal((await services.get(created.id, signal)).name, 'big-one');
  const wrong = await refused(services.create({ ...wished, name: 'other', folder: 'data' }, signal));
  assert.match(wrong.message, /no model folder/);
  manager.services.rules.maxReplicas = 3;
  const quota = await refused(services.scale(created.id, 4, signal));
  assert.equal(quota.facts.httpStatus, 412);
  assert.match((await refused(services.get('nosuch', signal))).message, /there are: big-one/);
  await services.delete(created.id, signal);
  assert.equal(await services.find('big-one', signal), null);
});

let home = '';
let cluster: ClusterManager;

before(async () => {
  home = await mkdtemp(join(tmpdir(), 'meshnode-cluster-'));
  cluster = await ClusterManager.start();
  const keys = ['--access-key', KEYPAIR.accessKey, '--secret-stdin', '--allow-http'];
  await mkdir(join(home, '.config'));
  const added = await runCli(['cluster', 'add', 'lab', cluster.url, ...keys], {
    home,
    stdin: `${KEYPAIR.secretKey}\n`,
  });
  assert.equal(added.code, 0, added.err);
});

after(async () => {
  await cluster.stop();
  await rm(home, { recursive: true, force: true });
});

const cli = (line: string, stdin = ''): Promise<CliResult> => runCli(['cluster', ...line.split(' ')], { home, stdin });

test('C-14 the commands follow a session to its end, in words and in JSON', async () => {
  const created = await cli('session create lab tuning --image python:3.11 --mount data');
  assert.equal(created.code, 0, created.err);
  assert.match(created.err, /tuning: RUNNING \(\d+ s\)/);
  assert.match(created.out, /tuning runs: meshnode cluster session exec lab tuning FILE/);
  await writeFile(join(home, 'train.py'), 'print("loss 0.1")\nraise SystemExit\n');
  const [piped, fromFile] = await Promise.all([
    cli('session exec lab tuning', 'print("hello")'),
    cli('session exec lab tuning train.py --json'),
  ]);
  assert.deepEqual([piped.code, piped.out], [0, 'hello\n']);
  assert.equal(fromFile.code, 1, 'the code failed');
  const { exitCode, output } = JSON.parse(fromFile.out) as { exitCode: number; output: { text: string }[] };
  assert.deepEqual([exitCode, output[0]?.text], [1, 'loss 0.1\n']);
  const [logs, list] = await Promise.all([cli('session logs lab tuning'), cli('session list lab --json')]);
  assert.match(logs.out, /loss 0\.1/);
  const [row] = (JSON.parse(list.out) as { sessions: { name: string; status: string }[] }).sessions;
  assert.deepEqual([row?.name, row?.status], ['tuning', 'RUNNING']);
  assert.equal((await cli('session destroy lab tuning')).code, 0);
});

test('commands say what is wrong and what to do', async () => {
  const cases: readonly [string, number, RegExp][] = [
    ['session logs lab nosuch', 1, /no session "nosuch".*see meshnode cluster session list lab/],
    ['session create lab tuning', 2, /which image\? --image/],
    ['session lst lab', 2, /did you mean list\?/],
    ['service create lab big-one --image vllm', 2, /which vFolder\?.*meshnode cluster folders lab/],
    ['service scale lab big-one many', 2, /expected 0 to 64/],
    ['provision lab data --image vllm', 2, /not for models: "data".*llama-3-70b/],
  ];
  const results = await Promise.all(cases.map(([line]) => cli(line)));
  for (const [index, [line, code, message]] of cases.entries()) {
    const { code: exit, err } = results[index] ?? { code: null, err: '' };
    assert.match(err, message, line);
    assert.equal(exit, code, line);
    assert.equal(err.trim().split('\n').length, 1, 'one line');
  }
});

test('every help page of the groups fits a screen', () => {
  const groups = [clusterSession, clusterService].flatMap((each) => [each, ...(each.subcommands ?? [])]);
  for (const command of [...groups, clusterFolders, clusterProvision]) {
    const lines = commandHelp(command);
    assert.ok(lines.length <= 24 && lines.every((line) => line.length <= 80), lines.join('\n'));
  }
});
