/** The commands about routing as a user runs them, against a real facade. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { explanation } from '../../cli/commands/explain.ts';
import { systemClock } from '../../node/common/clock.ts';
import { ConfigWatch, configSource } from '../../node/config-watch.ts';
import type { RequestRecord } from '../../node/routing/request-record.ts';
import { ServiceState } from '../../node/routing/service-state.ts';
import { DEFAULT_LOAD_BALANCING } from '../../node/routing/settings.ts';
import { prepareDataDir } from '../../node/storage/data-dir.ts';
import { RuntimeFile } from '../../node/storage/runtime-file.ts';
import { type CliResult, runCli } from '../support/cli-process.ts';
import { answering } from '../support/scripted-backend.ts';
import { OTHER_NODE, peerStatus, type ScriptedFacade, startFacade } from '../support/scripted-facade.ts';

const root = mkdtempSync(join(tmpdir(), 'meshnode-cli-routing-'));
after(() => rmSync(root, { recursive: true, force: true }));

const CELLAR = `12D3KooW${'c'.repeat(44)}`;
const ATTIC = `12D3KooW${'a'.repeat(44)}`;
const KEY = 'sk-KEY-CANARY-0123456789';

const RECORD: RequestRecord = {
  requestId: 'a'.repeat(32),
  label: 'trace/7',
  kind: 'chat',
  model: 'm',
  stream: true,
  boundary: 'mesh',
  strategy: 'priority',
  startedAt: 1_760_000_000_000,
  durationMs: 120,
  candidates: [
    {
      backend: CELLAR,
      kind: 'peer',
      state: 'resident',
      priority: 5,
      activeRequests: 1,
      reportedLoad: 0,
      firstTokenMs: 12,
      skipped: 'already_failed',
    },
    {
      backend: '12D3KooWHere',
      kind: 'engine',
      state: 'resident',
      priority: 0,
      activeRequests: 0,
      reportedLoad: null,
      firstTokenMs: null,
      skipped: null,
    },
  ],
  attempts: [
    {
      backend: CELLAR,
      startedMs: 0,
      firstTokenMs: null,
      endedMs: 20,
      outcome: 'peer_unreachable',
      reason: 'priority: 5 is the highest',
    },
    {
      backend: '12D3KooWHere',
      startedMs: 21,
      firstTokenMs: 40,
      endedMs: 120,
      outcome: 'ok',
      reason: 'the only one left',
    },
  ],
  outcome: 'ok',
};

interface Home extends AsyncDisposable {
  readonly home: string;
  readonly dataDir: string;
  readonly facade: ScriptedFacade;
  run(args: readonly string[], stdin?: string): Promise<CliResult>;
}

/** A home directory in which a node runs. */
async function withNode(): Promise<Home> {
  const home = mkdtempSync(join(root, 'home-'));
  const dataDir = join(home, '.local/share/meshnode');
  mkdirSync(join(home, '.config/meshnode'), { recursive: true });
  await prepareDataDir(dataDir);
  const source = configSource({ flags: {}, env: {}, cwd: home, home, hostName: 'attic' });
  const watch = new ConfigWatch({ clock: systemClock, source, warn: () => {} }, DEFAULT_LOAD_BALANCING, { pollMs: 50 });
  watch.start();
  const facade = await startFacade(
    { m: answering(1) },
    {},
    {
      service: new ServiceState(),
      loadBalancing: () => ({ ...watch.loadBalancing(), failureThreshold: 3, resetTimeoutSecs: 60 }),
      requestRecord: (id) => (id === RECORD.label ? RECORD : null),
      peers: () => [
        peerStatus({ fingerprint: CELLAR, name: 'cellar' }),
        peerStatus({ fingerprint: ATTIC, name: 'attic' }),
        peerStatus({ fingerprint: `${ATTIC.slice(0, -1)}b`, name: 'Attic' }),
        peerStatus({ fingerprint: OTHER_NODE }),
      ],
    },
  );
  await new RuntimeFile(dataDir).write({
    pid: process.pid,
    api: facade.url,
    fingerprint: '12D3KooWHere',
    startedAt: 1,
  });
  return {
    home,
    dataDir,
    facade,
    run: (args, stdin = '') => runCli(args, { home, stdin }),
    async [Symbol.asyncDispose]() {
      watch.stop();
      await facade.stop();
    },
  };
}

/** A port at which nothing listens. */
async function closedPort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

const read = (path: string): unknown => JSON.parse(readFileSync(path, 'utf8'));

test('D-15 config set changes the strategy of the node that runs, without a restart', async () => {
  await using node = await withNode();
  const { code, out } = await node.run(['config', 'set', 'loadBalancing.strategy', 'fastest']);
  assert.equal(code, 0);
  assert.match(out, /^loadBalancing\.strategy = fastest: .*config\.json\nThe running node has taken it over\.\n$/);
  const now = (await (await fetch(`${node.facade.url}/api/v1/config/load-balancing`)).json()) as { strategy: string };
  assert.equal(now.strategy, 'fastest');
  assert.equal((await node.run(['config', 'get', 'loadBalancing.strategy'])).out, 'fastest\n');
  assert.match((await node.run(['config', 'set', 'facade.port', '0'])).out, /when it is started again/);
  assert.match((await node.run(['config', 'unset', 'loadBalancing.strategy'])).out, /taken it over/);
  assert.deepEqual(read(join(node.home, '.config/meshnode/config.json')), { facade: { port: 0 } });
});

test('a table is set and shown as the JSON that it is', async () => {
  await using node = await withNode();
  const table = '{"gpt-4o-mini":["small","large"]}';
  const { code, out } = await node.run(['config', 'set', 'models.aliases', table]);
  assert.equal(code, 0);
  assert.ok(out.startsWith(`models.aliases = ${table}: `), out);
  assert.match(out, /takes it over within a second/);
  assert.equal((await node.run(['config', 'get', 'models.aliases'])).out, `${table}\n`);
});

test('D-10 D-15 config set refuses an unknown strategy or key with one line, and changes nothing', async () => {
  await using node = await withNode();
  const rows: readonly (readonly [readonly string[], RegExp])[] = [
    [['loadBalancing.strategy', 'random'], /"random": expected priority, round-robin, least-loaded, fastest\n$/],
    [['loadBalancing.stratgy', 'fastest'], /did you mean loadBalancing\.strategy\?\n$/],
    [['loadBalancing.strategy'], /something is missing: meshnode config set KEY VALUE/],
  ];
  for (const [args, expected] of rows) {
    const { code, out, err } = await node.run(['config', 'set', ...args]);
    assert.deepEqual([code, out], [2, '']);
    assert.match(err, expected);
  }
  const overridden = await runCli(['config', 'set', 'loadBalancing.strategy', 'fastest'], {
    home: node.home,
    env: { MESHNODE_STRATEGY: 'priority' },
  });
  assert.match(overridden.out, /MESHNODE_STRATEGY is set here and wins over the file/);
});

test('D-11 D-45 D-46 peers set keeps a priority and a key for a peer by its name, and never shows the key', async () => {
  await using node = await withNode();
  const said = await node.run(['peers', 'set', 'cellar', '--priority', '-5', '--key-stdin'], `${KEY}\n`);
  assert.equal(said.code, 0);
  assert.match(said.err, /^(no keychain can be used .*plain file.*\n)?$/);
  assert.match(said.out, /^cellar \(12D3K….*\): priority -5, with a key\n$/);
  const nodes = (read(join(node.dataDir, 'nodes.json')) as { nodes: { fingerprint: string; priority: number }[] })
    .nodes;
  assert.deepEqual(
    nodes.map(({ fingerprint, priority }) => [fingerprint, priority]),
    [[CELLAR, -5]],
  );
  assert.doesNotMatch(readFileSync(join(node.dataDir, 'nodes.json'), 'utf8'), /CANARY/);
  assert.equal(statSync(join(node.dataDir, 'secrets.json')).mode & 0o777, 0o600);
  for (const args of [['nodes'], ['nodes', '--json'], ['peers', '--json'], ['pool', '--json']])
    assert.doesNotMatch((await node.run(args)).out, /CANARY/);
  assert.match((await node.run(['peers', 'set', 'cellar', '--remove-key'])).out, /priority -5, no key/);
});

test('D-11 peers set refuses a name that is unknown or ambiguous, a bad priority and a missing key; nothing changes', async () => {
  await using node = await withNode();
  const rows: readonly (readonly [readonly string[], RegExp, string?])[] = [
    [['nobody', '--priority', '1'], /there is no peer "nobody": cellar \(12D3/],
    [['attic', '--priority', '1'], /"attic" are several: attic \(.*Attic \(/],
    [['cellar', '--priority', '1001'], /--priority is "1001": expected a whole number from -1000 to 1000/],
    [['cellar', '--priority', '1.5'], /--priority is "1\.5"/],
    [['cellar'], /nothing to set: give --priority N, --key-stdin or --remove-key/],
    [['cellar', '--key-stdin'], /there was none on standard input/],
    [['cellar', '--key-stdin'], /visible ASCII without spaces/, 'two CANARY words\n'],
    [['cellar', '--key-stdin', '--remove-key'], /contradict/],
    [['--priority', '1'], /something is missing: meshnode peers set NAME/],
  ];
  for (const [args, expected, stdin] of rows) {
    const { code, out, err } = await node.run(['peers', 'set', ...args], stdin);
    assert.notEqual(code, 0, args.join(' '));
    assert.equal(out, '');
    assert.match(err, expected);
    assert.doesNotMatch(err, /CANARY/);
  }
  assert.match((await node.run(['nodes'])).out, /^None yet/);
});

test('D-3 D-37 D-38 N-1 N-4 N-5 N-16 nodes add registers an HTTP server, tries it at once and keeps it when it does not answer', async () => {
  await using node = await withNode();
  await using other = await withNode();
  const url = other.facade.url;
  const added = await node.run(['nodes', 'add', `${url}/v1/`, '--name', 'box', '--priority', '7'], KEY);
  assert.deepEqual([added.code, added.err], [0, '']);
  assert.match(added.out, /^Registered box \(api:box\), priority 7, boundary mesh\.\nbox: it answers with 1 model\n/);
  assert.match((await node.run(['nodes', 'test', 'box'])).out, /it answers with 1 model/);
  const gone = await node.run(['nodes', 'add', `http://127.0.0.1:${await closedPort()}`, '--name', 'gone', '--json']);
  const said = JSON.parse(gone.out) as { node: { fingerprint: string }; probe: { ok: boolean; detail: string } };
  assert.deepEqual([gone.code, said.node.fingerprint, said.probe.ok], [0, 'api:gone', false]);
  assert.match(said.probe.detail, /nothing listens there/);
  assert.equal((await node.run(['nodes', 'test', 'gone'])).code, 1);
  assert.match((await node.run(['nodes', 'list'])).out, /^box +http:\/\/127\.0\.0\.1:\d+ +7 +mesh +no +api:box$/m);
  assert.match((await node.run(['nodes', 'remove', 'gone'])).out, /is forgotten/);
  assert.match((await node.run(['nodes', 'remove', 'gone'])).err, /There is no node "gone"; there are: box/);
});

test('N-5 nodes add refuses what is no URL of a model server, and changes nothing', async () => {
  await using node = await withNode();
  const rows: readonly (readonly [readonly string[], RegExp])[] = [
    [['ftp://x'], /Only http and https/],
    [['http://user:CANARY@192.0.2.1'], /must not hold credentials/],
    [['http://169.254.169.254'], /link-local, multicast or metadata/],
    [['nonsense'], /no URL/],
    [['http://192.0.2.1', '--boundary', 'moon'], /--boundary is "moon": expected mesh, private-cluster or public/],
    [['http://192.0.2.1', '--priority', '5000'], /from -1000 to 1000/],
    [[], /something is missing: meshnode nodes add URL/],
  ];
  for (const [args, expected] of rows) {
    const { code, out, err } = await node.run(['nodes', 'add', ...args]);
    assert.deepEqual([code, out], [2, ''], args.join(' '));
    assert.match(err, expected);
    assert.doesNotMatch(err, /CANARY/);
  }
  assert.match((await node.run(['nodes'])).out, /^None yet/);
  assert.match((await node.run(['nodes', 'lsit'])).err, /unknown command "nodes lsit": did you mean list\?/);
});

test('D-48 N-15 keys create prints a key once, keys list its limits, and keys revoke ends it', async () => {
  await using node = await withNode();
  const limits = ['--tokens-per-minute', '1000', '--in-flight', '2', '--expires', '30'];
  const made = await node.run(['keys', 'create', 'cellar', ...limits]);
  assert.equal(made.code, 0);
  const key = made.out.trim();
  assert.match(key, /^mk_[\w-]{43}$/);
  assert.match(made.err, /shown this once/);
  const list = await node.run(['keys']);
  assert.match(list.out, /^[0-9a-f]{8} +cellar +in use +1000 +2 +\d{4}-/m);
  for (const text of [list.out, readFileSync(join(node.dataDir, 'keys.json'), 'utf8')]) assert.ok(!text.includes(key));
  assert.equal((await node.run(['keys', 'create', 'cellar'])).code, 2);
  assert.match((await node.run(['keys', 'create', 'x', '--expires', '0'])).err, /from 1 to/);
  assert.match((await node.run(['keys', 'revoke', 'cellar'])).out, /is refused from now on/);
  assert.match((await node.run(['keys', 'revoke', 'cellar'])).err, /no key in use has this id or name/);
  assert.match((await node.run(['keys', 'list'])).out, /cellar +revoked/);
  assert.match((await node.run(['keys', 'clear'])).out, /every node of the mesh may use/);
  assert.match((await node.run(['keys', 'list'])).out, /No keys/);
});

test('drain, pause and resume say what the node does from now on', async () => {
  await using node = await withNode();
  assert.match((await node.run(['pause'])).out, /no work of other nodes/);
  assert.deepEqual(JSON.parse((await node.run(['drain', '--json'])).out), { state: 'draining' });
  assert.equal((await fetch(`${node.facade.url}/health`)).status, 503);
  assert.equal((await node.run(['status'])).code, 0);
  assert.match((await node.run(['resume'])).out, /takes work/);
  assert.equal((await fetch(`${node.facade.url}/health`)).status, 200);
});

test('explain shows candidates, why each was passed over, and what each attempt did', async () => {
  await using node = await withNode();
  const { code, out } = await node.run(['explain', 'trace/7']);
  assert.equal(code, 0);
  assert.match(out, /^trace\/7: chat with m, streamed, answered after 120 ms$/m);
  assert.match(out, /^strategy priority, boundary mesh, /m);
  assert.match(out, /^cellar +peer +resident +5 +1 +0 +12 ms +it had failed$/m);
  assert.match(
    out,
    /^1\. cellar: asked at 0\.0 ms, failed \(peer_unreachable\) at 20 ms\n {3}priority: 5 is the highest$/m,
  );
  assert.match(out, /^2\. here \(here\): asked at 21 ms, first token 40 ms, answered at 120 ms\n/m);
  assert.deepEqual(JSON.parse((await node.run(['explain', 'trace/7', '--json'])).out), RECORD);
  const missing = await node.run(['explain', 'nope']);
  assert.deepEqual([missing.code, missing.out], [1, '']);
  assert.match(missing.err, /No request "nope" is remembered here/);
});

test('D-33 D-34 D-36 N-12 pool status and pool stats show what the two endpoints say', async () => {
  await using node = await withNode();
  const status = await node.run(['pool']);
  assert.match(status.out, /^strategy least-loaded, 4 of 4 nodes online$/m);
  assert.match(status.out, /^other +online +5 +12 ms +far\/model +12D3KooWOther$/m);
  const stats = await node.run(['pool', 'stats']);
  assert.match(stats.out, /^other +150 +147 +3 +2 +43 ms +closed +12D3KooWOther$/m);
  assert.match(stats.out, /^150 requests, 147 ok, 3 failed$/m);
  for (const [word, path] of [
    ['status', 'distributed-status'],
    ['stats', 'routing-stats'],
  ] as const) {
    const over = await (await fetch(`${node.facade.url}/api/v1/pool/${path}`)).json();
    assert.deepEqual(JSON.parse((await node.run(['pool', word, '--json'])).out), over);
  }
  writeFileSync(join(node.home, '.config/meshnode/config.json'), '{"loadBalancing":{"enabled":false}}');
  const off = await node.run(['config', 'set', 'loadBalancing.enabled', 'false']);
  assert.match(off.out, /taken it over/);
  assert.match((await node.run(['pool'])).out, /^Load balancing is off/);
});

test('explain shows ranks where targets have them, and no such column elsewhere', () => {
  const [first, ...others] = RECORD.candidates;
  assert.ok(first !== undefined);
  const named = (backend: string): string => backend.slice(-4);
  const ranked = explanation({ ...RECORD, candidates: [{ ...first, rank: 2 }, ...others] }, named).join('\n');
  assert.match(ranked, /STATE +RANK +PRIORITY/);
  assert.match(ranked, /resident +2 +5/);
  assert.match(ranked, /resident +- +0/);
  assert.doesNotMatch(explanation(RECORD, named).join('\n'), /RANK/);
});
