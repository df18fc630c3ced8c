/** `meshnode backends …` and `upstreams` beside a node that runs: what changes is in force within a second or two. */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { runCli } from '../support/cli-process.ts';
import { usable, type WholeNode, wholeNode } from '../support/mesh-node-pair.ts';
import { json, OpenAiServer } from '../support/openai-server.ts';

const KEY = 'sk-live-canary-0123456789';

test('F-1 F-14 F-15 backends come and go while the node runs: by command and by config file, and a bad file keeps the old one', async (t) => {
  const servers = await Promise.all(['one', 'two', 'three'].map((id) => named(id)));
  t.after(() => Promise.all(servers.map((server) => server.stop())));
  const [one, two, three] = servers.map(({ url }) => url);
  const node = await wholeNode(t, { models: ['own'], flags: { upstream: [] } });
  const meshnode = command(node);

  assert.match(await meshnode(['backends', 'add', 'first', `${one}/v1`, '--key-stdin', '--priority', '4'], KEY), /one/);
  await usable(node, ['own', 'one']);
  assert.equal((await node.chat('one')).status, 200);

  const file = (text: string): Promise<void> => writeFile(node.configFile, text);
  await mkdir(path.dirname(node.configFile), { recursive: true });
  await file(JSON.stringify({ upstreams: [`second=${two}`, { name: 'third', url: three, shared: true }] }));
  await usable(node, ['own', 'one', 'two', 'three']);

  for (const bad of ['{', '{"upstreams": ["x=http://169.254.169.254"]}', '{"upstreams": [{"name": "x"}]}']) {
    const warnings = (): number => node.events.filter(({ event }) => event === 'warning').length;
    const before = warnings();
    await file(bad);
    while (warnings() === before) await new Promise((resolve) => setTimeout(resolve, 20));
    await usable(node, ['own', 'one', 'two', 'three']);
  }
  assert.match(JSON.stringify(node.events), /the config file is not used, what was set before stays/);

  await file(JSON.stringify({ upstreams: [`second=${two}`] }));
  await usable(node, ['own', 'one', 'two']);
  const listed = await meshnode(['backends', 'list']);
  assert.match(listed, /^NAME +URL +PRIORITY +BOUNDARY +KEY +SHARED +FROM$/m);
  assert.match(listed, /^first +http:\S+ +4 +mesh +yes +no +backends add$/m);

  assert.match(
    await meshnode(['backends', 'remove', 'first']),
    /first \(api:first\) is forgotten, and its key with it/,
  );
  await usable(node, ['own', 'two']);
  assert.doesNotMatch(await readFile(path.join(node.dataDir, 'secrets.json'), 'utf8'), /canary/);
  assert.doesNotMatch(JSON.stringify(node.events), /canary/);
});

test('F-3 backends add, list, test and remove refuse what cannot be, in one line, and never show a key', async (t) => {
  const home = await mkdtemp(path.join(tmpdir(), 'meshnode-backends-'));
  t.after(() => rm(home, { recursive: true, force: true }));
  const server = await named('m');
  t.after(() => server.stop());
  const run = (args: readonly string[], stdin = '', env: Record<string, string> = {}) =>
    runCli(['backends', ...args], { home, stdin, env });
  const rows: readonly (readonly [readonly string[], RegExp])[] = [
    [['add', 'x'], /something is missing: meshnode backends add NAME URL/],
    [['add', 'x', 'http://h', '--key-env', 'sk-canary'], /the name of an environment variable, never the key itself/],
    [['add', 'x', 'http://h', '--key-env', 'V', '--key-stdin'], /--key-env and --key-stdin contradict/],
    [['add', 'x', '--manifest', 'http://[fe80::1]/s'], /link-local/],
  ];
  for (const [args, expected] of rows) {
    const { code, out, err } = await run(args);
    assert.deepEqual([code, out], [2, ''], args.join(' '));
    assert.match(err, expected);
    assert.doesNotMatch(err, /canary/);
  }
  const env = { BOX_KEY: KEY };
  const added = await run(['add', 'box', server.url, '--key-env', 'BOX_KEY', '--share', '--json'], '', env);
  const { node } = JSON.parse(added.out) as { node: Record<string, unknown> };
  assert.deepEqual([node['shared'], node['keyEnv'], node['hasKey']], [true, 'BOX_KEY', true]);
  assert.equal(server.asked.at(-1)?.headers.authorization, `Bearer ${KEY}`);
  assert.match((await run(['list'])).out, /^box .* \$BOX_KEY \(not set here\) +yes +backends add$/m);
  assert.equal((await run(['test', 'box'], '', env)).code, 0);
  assert.match((await run(['test', 'nobody'])).err, /there is no node "nobody": box/);
  // Nodes and backends are one registry.
  assert.match((await runCli(['nodes', 'remove', 'box'], { home })).out, /is forgotten/);
  const flagged = await run(['list', '--upstream', `up=${server.url}`]);
  assert.match(flagged.out, /^up +http:\S+ +0 +mesh +no +no +configuration$/m);
  for (const { out, err } of [added, flagged]) assert.doesNotMatch(out + err, /canary/);
});

async function named(id: string): Promise<OpenAiServer> {
  const server = await OpenAiServer.start();
  server.models = json(200, { data: [{ id }] });
  return server;
}

/** A command beside the node; its output. */
function command(node: WholeNode): (args: readonly string[], stdin?: string) => Promise<string> {
  const home = path.dirname(node.dataDir);
  return async (args, stdin = '') => {
    const place = ['--data-dir', node.dataDir];
    const env = { MESHNODE_SECRETS_STORE: 'plain' };
    const { code, out, err } = await runCli([...args, ...place], { home, stdin, env });
    assert.equal(code, 0, err);
    return out;
  };
}
