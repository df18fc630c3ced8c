/** The commands as a user runs them, against a server that plays the running node. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { runCli, spawnCli } from '../support/cli-process.ts';
import { ggufBytes } from '../support/gguf.ts';
import { entry, FINGERPRINT, type PlayedNode, playNode, sse } from '../support/played-node.ts';

const root = mkdtempSync(join(tmpdir(), 'meshnode-cli-'));
after(() => rmSync(root, { recursive: true, force: true }));

const newHome = (): string => mkdtempSync(join(root, 'home-'));
const play = (home: string): Promise<PlayedNode> => playNode(join(home, '.local/share/meshnode'));

test('N-13 without a running node each command says how to start one', async () => {
  const home = newHome();
  for (const command of ['status', 'models', 'peers', 'chat']) {
    const { code, out, err } = await runCli([command], { home });
    assert.deepEqual([code, out, err], [1, '', 'meshnode: no node is running here: start one with `meshnode start`\n']);
  }
});

test('status shows this node, its peers and the models of all', async () => {
  const home = newHome();
  await using _node = await play(home);
  const { code, out, err } = await runCli(['status'], { home });
  assert.deepEqual([code, err], [0, '']);
  assert.match(out, /^attic is running, up 1 h 2 min\n/);
  assert.match(out, /API +http:\/\/127\.0\.0\.1:\d+\/v1/);
  assert.ok(out.includes(FINGERPRINT));
  assert.match(out, /^small +attic$/m);
  assert.match(out, /^large +ce\[31mllar$/m);
  const json = JSON.parse((await runCli(['status', '--json'], { home })).out) as {
    node: { name: string };
    peers: object[];
  };
  assert.equal(json.node.name, 'attic');
  assert.equal(json.peers.length, 1);
});

test('models lists where each model is and in which state, without offline peers', async () => {
  const home = newHome();
  await using node = await play(home);
  node.script.peers.push({ ...node.script.peers[0], name: 'gone', status: 'offline', models: [entry('lost')] });
  const { out } = await runCli(['models'], { home });
  assert.match(out, /^MODEL +ON +STATE +CONTEXT +QUANT +SIZE +MEMORY +TOK\/S$/m);
  assert.match(out, /^small +attic \(here\) +resident, pinned +8,192 +Q4_K_M +4\.2 GB +5\.5 GB +41\.3$/m);
  assert.match(out, /^large +\S+ +on-disk +8,192 +Q4_K_M +4\.2 GB +- +-$/m);
  assert.equal(out.includes('lost'), false);
  const { models } = JSON.parse((await runCli(['models', '--json'], { home })).out) as { models: { id: string }[] };
  assert.deepEqual(
    models.map((model) => model.id),
    ['small', 'large'],
  );
});

test('peers shows names without control characters, latency and address', async () => {
  const home = newHome();
  await using _node = await play(home);
  const { out } = await runCli(['peers'], { home });
  assert.match(out, /^ce\[31mllar +online +0\.4 ms +large +12D3K…\S+ +\/ip4\/192\.0\.2\.7\/tcp\/8643$/m);
  for (const character of ['\u001b', '\u202e']) assert.equal(out.includes(character), false);
  assert.equal((JSON.parse((await runCli(['peers', '--json'], { home })).out) as { peers: object[] }).peers.length, 1);
});

test('a node that wants a key is told the one of the key file, and only then answers', async () => {
  const home = newHome();
  await using node = await play(home);
  node.script.key = 'open-sesame';
  writeFileSync(join(home, 'key'), 'open-sesame\n');
  const refused = await runCli(['status'], { home });
  assert.equal(refused.code, 1);
  assert.match(refused.err, /wants a key: pass --api-key-file FILE/);
  assert.equal((await runCli(['status', '--api-key-file', 'key'], { home })).code, 0);
});

test('chat prints the answer to a message or to stdin, with the first model when none is named', async () => {
  const home = newHome();
  await using node = await play(home);
  const asked: object[] = [];
  node.script.chat = (body, response) => {
    asked.push([body.model, body.messages]);
    response.end(`${sse('Hel')}: comment\r\n\r\n${sse('lo')}data: [DONE]\n\n`);
  };
  assert.deepEqual(await runCli(['chat', '--message', 'Hi'], { home }), {
    code: 0,
    signal: null,
    out: 'Hello\n',
    err: '',
  });
  const piped = await runCli(['chat', 'large', '--json'], { home, stdin: 'two\nlines\n' });
  assert.deepEqual(JSON.parse(piped.out), { model: 'large', answer: 'Hello' });
  assert.deepEqual(asked, [
    ['small', [{ role: 'user', content: 'Hi' }]],
    ['large', [{ role: 'user', content: 'two\nlines' }]],
  ]);
});

test('chat fails with one line on an unknown model, a refusal, an error event, a cut answer and a broken connection', async () => {
  const home = newHome();
  await using node = await play(home);
  const run = () => runCli(['chat', '--message', 'Hi'], { home });
  const unknown = await runCli(['chat', 'nope', '--message', 'Hi'], { home });
  assert.deepEqual([unknown.code, unknown.err], [1, 'meshnode: there is no model "nope" in the mesh: small, large\n']);
  assert.equal((await runCli(['chat'], { home, stdin: ' \n' })).code, 2);

  const error = { error: { message: 'too long\u001b[2J', type: 'x', param: null, code: 'x' } };
  node.script.chat = (_, response) => void response.writeHead(400).end(JSON.stringify(error));
  assert.deepEqual([(await run()).code, (await run()).err], [1, 'meshnode: too long[2J\n']);
  node.script.chat = (_, response) => void response.end(`${sse('Hel')}data: ${JSON.stringify(error)}\n\n`);
  const late = await run();
  assert.deepEqual([late.code, late.out, late.err], [1, 'Hel', 'meshnode: too long[2J\n']);
  node.script.chat = (_, response) => void response.end(sse('Hel'));
  assert.match((await run()).err, /the answer was cut off/);
  node.script.chat = (_, response) => {
    response.write(sse('Hel'));
    response.destroy();
  };
  const broken = await run();
  assert.equal(broken.code, 1);
  assert.match(broken.err, /broke in the middle of the answer|closed the connection/);
});

test('Ctrl-C during a piped answer ends it and closes the request', async () => {
  const home = newHome();
  await using node = await play(home);
  const closed = Promise.withResolvers<void>();
  node.script.chat = (_, response) => {
    response.write(sse('on and on'));
    response.once('close', () => closed.resolve());
  };
  const child = spawnCli(['chat', '--message', 'Hi'], { home });
  const exited = once(child, 'exit');
  if (child.stdout === null) throw new Error('no pipe');
  await once(child.stdout, 'data');
  child.kill('SIGINT');
  await closed.promise;
  assert.deepEqual(await exited, [130, null]);
});

test('config shows each value with its source, config path where the file is looked for', async () => {
  const home = newHome();
  mkdirSync(join(home, '.config/meshnode'), { recursive: true });
  writeFileSync(join(home, '.config/meshnode/config.json'), '{"name":"filed"}');
  const env = { MESHNODE_PARALLEL: '2' };
  const { out } = await runCli(['config', 'show', '--port', '0'], { home, env });
  assert.match(out, /^name +filed +file$/m);
  assert.match(out, /^engine\.parallel +2 +env$/m);
  assert.match(out, /^facade\.port +0 +flag$/m);
  assert.match(out, /^log\.level +warn +default$/m);
  assert.equal((await runCli(['config', 'path'], { home })).out, `${home}/.config/meshnode/config.json\n`);
  const json = JSON.parse((await runCli(['config', '--json'], { home, env })).out) as {
    config: { engine: { parallel: number } };
  };
  assert.equal(json.config.engine.parallel, 2);
  assert.equal((await runCli(['config', 'edit'], { home })).code, 2);
});

test('N-16 doctor finds a taken port, a loose data dir and a bad model, each with what to do', async () => {
  const home = newHome();
  const data = join(home, 'data');
  mkdirSync(join(data, 'models'), { recursive: true, mode: 0o777 });
  writeFileSync(join(data, 'models/good.gguf'), ggufBytes());
  writeFileSync(join(data, 'models/bad.gguf'), 'x');
  const args = ['doctor', '--data-dir', data, '--no-mdns'];
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  try {
    const { code, out } = await runCli([...args, '--port', String(port)], { home });
    assert.equal(code, 1);
    assert.match(out, new RegExp(`^problem +port ${port}: taken .* --port N$`, 'm'));
    assert.match(out, /^problem +model: bad\.gguf is not a GGUF file .*: get the file again$/m);
    assert.match(out, /^ok +model: good \(llama, F16\)$/m);
  } finally {
    server.close();
  }
  rmSync(join(data, 'models/bad.gguf'));
  const healthy = await runCli([...args, '--port', '0', '--json'], { home });
  assert.equal(healthy.code, 0);
  assert.equal((JSON.parse(healthy.out) as { ok: boolean }).ok, true);
});

test('what is wrong with the command line is one line on stderr and exit code 2', async () => {
  const home = newHome();
  const rows: readonly (readonly [readonly string[], RegExp])[] = [
    [['start', '--prot', '1'], /^meshnode: unknown flag --prot for start: did you mean --port\?\n$/],
    [['start', '--port'], /^meshnode: --port needs a value: --port N\n$/],
    [['start', '--port', 'x'], /^meshnode: --port is "x": expected a whole number from 0 to 65535\n$/],
    [['start', '--no-mdns=1'], /^meshnode: --no-mdns takes no value\n$/],
    [['start', '--name', '--json'], /^meshnode: --name needs a value/],
    [['start', 'here'], /^meshnode: unexpected argument "here" for start/],
    [['start', '--host', '0.0.0.0'], /^meshnode: --host is 0\.0\.0\.0, .* needs --api-key-file FILE/],
    [['strat'], /^meshnode: unknown command "strat": did you mean start\?\n$/],
    [['status', '--gpu', 'off'], /^meshnode: unknown flag --gpu for status/],
  ];
  for (const [args, expected] of rows) {
    const { code, out, err } = await runCli(args, { home });
    assert.deepEqual([code, out], [2, ''], args.join(' '));
    assert.match(err, expected);
  }
});
