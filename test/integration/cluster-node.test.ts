/** A whole node beside a Backend.AI cluster: its models are used like any other, and every fault has its row. */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { silentLogger } from '../../node/common/logger.ts';
import { loadConfig } from '../../node/config.ts';
import { type Boundary, openRegistry } from '../../node/index.ts';
import { MeshNode } from '../../node/mesh-node.ts';
import type { NodeEvent } from '../../node/node-event.ts';
import { runCli } from '../support/cli-process.ts';
import { clusterAnswer } from '../support/cluster-manager/app-proxy.ts';
import { ClusterManager, KEYPAIR, type ManagerOptions } from '../support/cluster-manager/manager.ts';
import { eventData } from '../support/event-stream.ts';
import { temporaryDir } from '../support/node-process.ts';
import { DONE, delta, json, OpenAiServer, opened, sse } from '../support/openai-server.ts';
import { ScriptedEngine } from '../support/scripted-engine.ts';

const MINUTE = 60_000;
const dataDir = temporaryDir();
let node: MeshNode;
let api = '';
let manager: ClusterManager;
/** Of the test's own cluster: what one test did to a breaker is not the next one's affair. */
let slug = 'lab';
let clusters = 0;

before(async () => {
  manager = await ClusterManager.start();
  const flags = { 'data-dir': [dataDir], port: ['0'], 'no-mdns': ['true'], listen: ['/ip4/127.0.0.1/tcp/0'] };
  const plain = { 'secrets-store': ['plain'], strategy: ['priority'] };
  const input = { flags: { ...flags, ...plain }, env: {}, cwd: dataDir, home: dataDir, hostName: 'here' };
  const { config } = loadConfig(input);
  node = new MeshNode(config, {
    logger: silentLogger,
    engine: ({ fingerprint }) => new ScriptedEngine({ fingerprint, models: ['small'], tokenDelayMs: 0 }),
  });
  const ready = new Promise<Extract<NodeEvent, { event: 'ready' }>>((resolve) => {
    node.onEvent((event) => {
      if (event.event === 'ready') resolve(event);
    });
  });
  await node.start();
  api = (await ready).api;
});

after(async () => {
  await node.stop();
  await manager.stop();
  await rm(dataDir, { recursive: true, force: true, maxRetries: 3 });
});

type Json = Record<string, unknown>;

interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Json;
}

async function asked(
  method: string,
  path: string,
  body?: object,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const sent = body === undefined ? {} : { body: JSON.stringify(body) };
  const type = body === undefined ? {} : { 'content-type': 'application/json' };
  const response = await fetch(`${api}${path}`, { method, ...sent, headers: { ...type, ...headers } });
  return { status: response.status, headers: response.headers, body: (await response.json()) as Json };
}

const question = (model: string, more: object = {}) => ({
  model,
  messages: [{ role: 'user', content: 'hi' }],
  ...more,
});
const chat = (model: string, headers: Record<string, string> = {}) =>
  asked('POST', '/v1/chat/completions', question(model), headers);
const textOf = ({ body }: Answer): unknown =>
  (body['choices'] as readonly { message: { content: string } }[] | undefined)?.[0]?.message.content;
const register = (more: Json = {}) =>
  asked('POST', '/api/v1/clusters', {
    name: slug.toUpperCase(),
    endpoint: manager.url,
    ...KEYPAIR,
    allowHttp: true,
    ...more,
  });
const modelIds = async (): Promise<readonly string[]> =>
  ((await asked('GET', '/v1/models')).body['data'] as readonly { id: string }[]).map(({ id }) => id);
const clusterView = async (): Promise<Json> =>
  ((await asked('GET', '/api/v1/clusters')).body['clusters'] as readonly Json[])[0] ?? {};
const peer = async (fingerprint: string): Promise<Json | undefined> =>
  ((await asked('GET', '/api/v1/peers')).body['peers'] as readonly Json[]).find(
    (each) => each['fingerprint'] === fingerprint,
  );

/** Looks again whenever the event loop comes by; the runner's bound ends what never comes. */
async function until(isSo: () => Promise<boolean> | boolean): Promise<void> {
  while (!(await isSo())) await new Promise((resolve) => setTimeout(resolve, 20));
}

const listed = (id: string, isThere = true) => until(async () => (await modelIds()).includes(id) === isThere);

/** As `meshnode nodes add` does; the node sees it within a second. */
async function addNode(url: string, name: string, priority: number, boundary: Boundary = 'mesh') {
  const flags = { 'data-dir': [dataDir], 'secrets-store': ['plain'] };
  const { config } = loadConfig({ flags, env: {}, cwd: dataDir, home: dataDir, hostName: 'here' });
  const registry = await openRegistry(config, { warn: () => {} });
  const { fingerprint } = await registry.add(url, { name, boundary, priority });
  const remove = async (): Promise<void> => {
    await registry.remove(fingerprint);
    await until(async () => (await peer(fingerprint)) === undefined);
  };
  return { fingerprint, remove };
}

/** A cluster in place of that of the test before; not registered yet. */
async function another(options: ManagerOptions = {}): Promise<void> {
  await asked('DELETE', `/api/v1/clusters/${slug}`);
  await manager.stop();
  manager = await ClusterManager.start(options);
  clusters += 1;
  slug = `lab${clusters}`;
}

/** One that is registered, and whose models are listed. */
async function fresh(...services: readonly (readonly [string, string])[]): Promise<void> {
  await another();
  for (const [name, model] of services) manager.addService(name, model);
  const { status, body } = await register();
  assert.equal(status, 201, JSON.stringify(body));
  for (const [, model] of services) await listed(model);
}

test('C-1 C-7 C-8 C-9 C-11 C-12 N-4 a registered cluster shows its models at once, and they answer like any other', async () => {
  manager.addService('llama-svc', 'big');
  const { status, body } = await register({ priority: 3 });
  assert.equal(status, 201);
  const { id, models, status: state } = body;
  assert.deepEqual({ id, models, state }, { id: 'lab', models: ['big'], state: 'connected' });
  assert.ok(!JSON.stringify(body).includes(KEYPAIR.secretKey));
  await listed('big');
  assert.deepEqual(new Set(await modelIds()), new Set(['small', 'big']));
  const answer = await chat('big');
  assert.equal(textOf(answer), clusterAnswer('big', 'hi'));
  assert.equal(answer.headers.get('x-meshnode-node'), 'cluster:lab/llama-svc');
  const here = await chat('small');
  assert.notEqual(here.headers.get('x-meshnode-node'), 'cluster:lab/llama-svc');
  const service = await peer('cluster:lab/llama-svc');
  const { kind, status: online, boundary, priority, hasKey } = service ?? {};
  const wanted = { kind: 'cluster', online: 'online', boundary: 'private-cluster', priority: 3, hasKey: true };
  assert.deepEqual({ kind, online, boundary, priority, hasKey }, wanted);
  assert.equal((await peer('cluster:lab'))?.['status'], 'online');
  const stats = (await asked('GET', '/api/v1/pool/routing-stats')).body['nodes'] as readonly Json[];
  const own = stats.find(({ fingerprint }) => fingerprint === 'cluster:lab/llama-svc');
  assert.deepEqual([own?.['totalRequests'], own?.['successCount'], own?.['circuitOpen']], [1, 1, false]);
  const view = await clusterView();
  assert.deepEqual([view['status'], view['services'], view['models']], ['connected', ['llama-svc'], ['big']]);
  assert.equal(view['apiVersion'], 'v8.20240315');
  assert.equal(view['problem'], null);
});

test('C-7 explain tells that the cluster was chosen, and where it is', async () => {
  await fresh(['llama-svc', 'big']);
  const answer = await chat('big');
  const { status, body } = await asked('GET', `/api/v1/requests/${answer.headers.get('x-request-id')}`);
  assert.equal(status, 200);
  assert.match(JSON.stringify(body), new RegExp(`cluster:${slug}/llama-svc`));
});

test('C-16 a request that must stay in the mesh never reaches the cluster, and one that must stay private never leaves it', async (context) => {
  await fresh(['llama-svc', 'big']);
  const elsewhere = await OpenAiServer.start();
  elsewhere.models = json(200, { object: 'list', data: [{ id: 'big', object: 'model' }] });
  context.after(() => elsewhere.stop());
  const before = manager.app.asked.length;
  const refused = await chat('big', { 'x-meshnode-boundary': 'mesh' });
  assert.equal(refused.status, 503);
  assert.equal(manager.app.asked.filter(({ method }) => method === 'POST').length, 0);
  assert.ok(manager.app.asked.length - before < 5);
  assert.equal((await chat('big', { 'x-meshnode-boundary': 'private-cluster' })).status, 200);
  // Failover is under the same limit: the service fails, and a public server has the model.
  const { fingerprint, remove } = await addNode(elsewhere.url, 'elsewhere', -1, 'public');
  context.after(remove);
  await until(async () => (await peer(fingerprint))?.['status'] === 'online');
  manager.app.faults.status = 500;
  const kept = await chat('big', { 'x-meshnode-boundary': 'private-cluster' });
  assert.equal(kept.status, 500);
  assert.equal(elsewhere.inferences.length, 0);
  assert.equal((await chat('big')).status, 200);
  assert.equal(elsewhere.inferences.length, 1);
});

test('C-17 a wrong secret, an unknown key and a missing permission are shown, and the right one heals', async () => {
  const bare = { accessKey: 'AKIABARE', secretKey: 'of-the-bare-key', forbids: ['services'] };
  await another({ keypairs: [KEYPAIR, bare] });
  manager.addService('llama-svc', 'big');
  const rows: readonly [Json, RegExp][] = [
    [{ secretKey: 'another-secret' }, /secret key is wrong/],
    [{ accessKey: 'AKIANOBODY' }, /does not know the access key/],
    [bare, /ask its owner for the permission/],
  ];
  for (const [keys, problem] of rows) {
    const { body } = await register({
      accessKey: KEYPAIR.accessKey,
      secretKey: KEYPAIR.secretKey,
      ...keys,
      forbids: undefined,
    });
    assert.equal(body['status'], 'auth_error');
    assert.match(String(body['problem']), problem);
    await until(async () => (await clusterView())['status'] === 'auth_error');
    assert.equal((await peer(`cluster:${slug}`))?.['status'], 'unauthorized');
    assert.deepEqual(await modelIds(), ['small']);
  }
  assert.equal((await register()).body['status'], 'connected');
  await listed('big');
});

test('a clock 16 minutes off is corrected and shown, in both directions', async () => {
  for (const [minutes, problem] of [
    [16, /16 min behind LAB\d's/],
    [-16, /16 min ahead of LAB\d's/],
  ] as const) {
    await another();
    manager.faults.clockOffsetMs = minutes * MINUTE;
    manager.addService('llama-svc', 'big');
    const { body } = await register();
    assert.equal(body['status'], 'clock_skew');
    assert.match(String(body['problem']), problem);
    await listed('big');
    assert.equal((await clusterView())['status'], 'clock_skew');
    assert.equal((await chat('big')).status, 200);
  }
});

test('a token that expired is replaced in the middle of the request that found out, once for all of them', async () => {
  await fresh(['llama-svc', 'big']);
  const before = manager.services.issued;
  manager.services.revokeTokens();
  const answers = await Promise.all(Array.from({ length: 8 }, () => chat('big')));
  for (const answer of answers) assert.equal(textOf(answer), clusterAnswer('big', 'hi'));
  for (const answer of answers) assert.equal(answer.headers.get('x-meshnode-attempts'), '1');
  assert.equal(manager.services.issued - before, 1);
  manager.services.rules.maxTokenMs = 1;
  manager.services.revokeTokens();
  const { status } = await chat('big');
  assert.equal(status, 401, 'tokens that are void at once end in the refusal');
});

test('a public service gets no token', async () => {
  await fresh();
  manager.addService('open-svc', 'open', { isPublic: true });
  const issued = manager.services.issued;
  await register();
  await listed('open');
  assert.equal((await chat('open')).status, 200);
  assert.equal(manager.services.issued, issued);
  assert.ok(manager.app.asked.every(({ headers }) => headers.authorization === undefined));
});

test('a service scaled to zero under load leaves the list at its first 503, its requests go to another, and it comes back', async () => {
  await fresh(['one-svc', 'big'], ['two-svc', 'big']);
  const service = (name: string) => manager.services.all.find((each) => each.name === name) ?? assert.fail(name);
  manager.app.faults.chunkMs = 2;
  let isOver = false;
  const statuses: number[] = [];
  const client = async (): Promise<void> => {
    while (!isOver) statuses.push((await chat('big')).status);
  };
  const clients = Array.from({ length: 4 }, client);
  await until(() => statuses.length >= 8);
  manager.services.scale(service('one-svc'), 0);
  const one = `cluster:${slug}/one-svc`;
  await until(async () => (await peer(one)) === undefined);
  const soFar = statuses.length;
  await until(() => statuses.length >= soFar + 8);
  isOver = true;
  await Promise.all(clients);
  assert.deepEqual(new Set(statuses), new Set([200]));
  manager.services.scale(service('two-svc'), 0);
  assert.equal((await chat('big')).status, 503);
  await listed('big', false);
  assert.equal((await chat('big')).status, 503);
});

test('a manager that is down takes no models away while their services live', async () => {
  await fresh(['llama-svc', 'big']);
  manager.faults.down = true;
  const { body } = await register({ priority: 1 });
  assert.equal(body['status'], 'unreachable');
  manager.faults.down = false;
  await register({ priority: 1 });
  await listed('big');
  manager.faults.down = true;
  // One 503 makes the node ask the manager, which does not answer; then the service's own word counts.
  manager.app.faults.status = 503;
  assert.equal((await chat('big')).status, 503);
  manager.app.faults.status = null;
  await until(async () => (await clusterView())['status'] === 'unreachable');
  assert.match(String((await clusterView())['problem']), /cannot be reached/);
  assert.notEqual((await peer(`cluster:${slug}`))?.['status'], 'online');
  await listed('big');
  assert.equal(textOf(await chat('big')), clusterAnswer('big', 'hi'));
  manager.faults.down = false;
  await until(async () => (await clusterView())['status'] === 'connected');
});

test('C-17 what the command line registers is followed by the node that runs, and so is its removal', async () => {
  await another();
  manager.addService('llama-svc', 'big');
  const flags = ['--data-dir', dataDir, '--json'];
  const options = { home: dataDir, env: { MESHNODE_SECRETS_STORE: 'plain' } };
  const add = [
    'cluster',
    'add',
    slug,
    manager.url,
    '--access-key',
    KEYPAIR.accessKey,
    '--secret-stdin',
    '--allow-http',
  ];
  const { code, out, err } = await runCli([...add, ...flags], { ...options, stdin: KEYPAIR.secretKey });
  assert.equal(code, 0, err);
  assert.equal((JSON.parse(out) as { probe: Json }).probe['status'], 'connected');
  await listed('big');
  assert.equal((await chat('big')).status, 200);
  assert.equal((await runCli(['cluster', 'remove', slug, ...flags], options)).code, 0);
  await listed('big', false);
});

async function streamed(model: string): Promise<readonly string[]> {
  const body = JSON.stringify(question(model, { stream: true }));
  const headers = { 'content-type': 'application/json' };
  return eventData(await (await fetch(`${api}/v1/chat/completions`, { method: 'POST', headers, body })).text());
}

test('a cluster that is gone in the middle of a stream ends it by one clean error, without [DONE]', async () => {
  await fresh(['llama-svc', 'big']);
  manager.app.faults.cutAfterChunks = 2;
  const data = await streamed('big');
  assert.ok(!data.includes('[DONE]'));
  const last = JSON.parse(data.at(-1) ?? '') as { error?: { code?: string } };
  assert.equal(typeof last.error?.code, 'string');
  assert.match(data.join(''), /big in the cluster|"content":"big /);
});

test('a cluster that is gone in the middle of a stream is gone on from by a local server that can', async (context) => {
  await fresh(['llama-svc', 'big']);
  const whole = clusterAnswer('big', 'hi');
  const twin = await OpenAiServer.start();
  context.after(() => twin.stop());
  twin.models = (response, { path }) =>
    (path === '/props'
      ? json(200, { default_generation_settings: {}, build_info: 'b1' })
      : path === '/version'
        ? json(404, {})
        : json(200, { object: 'list', data: [{ id: 'big', object: 'model', owned_by: 'llamacpp' }] }))(response, {
      ...{ method: 'GET', path, headers: {}, body: '' },
    });
  twin.reply = async (response, { body }) => {
    const { messages } = JSON.parse(body) as { messages: readonly { role: string; content: string }[] };
    const begun = messages.at(-1)?.role === 'assistant' ? (messages.at(-1)?.content ?? '') : '';
    const pieces = whole
      .slice(begun.length)
      .split(/(?<= )/)
      .map((word) => delta(word));
    const usage = { prompt_tokens: 7, completion_tokens: pieces.length };
    await opened([...pieces, delta(null, 'stop'), sse({ choices: [], usage }), DONE])(response, {
      method: 'POST',
      path: '',
      headers: {},
      body,
    });
    response.end();
  };
  const added = await addNode(twin.url, 'twin', -5);
  context.after(added.remove);
  await until(async () => (await peer(added.fingerprint))?.['status'] === 'online');
  await until(() => twin.asked.some(({ path }) => path === '/props'));
  manager.app.faults.cutAfterChunks = 3;
  const data = await streamed('big');
  assert.equal(data.at(-1), '[DONE]');
  const chunks = data.slice(0, -1).map(
    (line) =>
      JSON.parse(line) as {
        choices: readonly { delta: { content?: string } }[];
        x_meshnode?: { resumed: number; nodes: readonly string[] };
      },
  );
  assert.equal(chunks.map(({ choices }) => choices[0]?.delta.content ?? '').join(''), whole);
  const told = chunks.find(({ x_meshnode: said }) => said !== undefined)?.x_meshnode;
  assert.deepEqual(told, { resumed: 1, nodes: [`cluster:${slug}/llama-svc`, added.fingerprint] });
});

test('removing a cluster takes its models and its secret away; a bad request changes nothing', async () => {
  await fresh(['llama-svc', 'big']);
  const bad: readonly [Json, RegExp][] = [
    [{ endpoint: 'nonsense' }, /no URL/],
    [{ allowHttp: false }, /no TLS/],
    [{ endpoint: 'http://169.254.169.254' }, /link-local/],
    [{ accessKey: 'a:b' }, /access key/],
    [{ name: 'a/b' }, /name/],
    [{ secretKey: 17 }, /secretKey is missing/],
    [{ secretKey: 'two words' }, /visible ASCII/],
    [{ priority: 5000 }, /priority/],
    [{ oops: 1 }, /no field/],
  ];
  for (const [more, message] of bad) {
    const { status, body } = await register(more);
    assert.equal(status, 400, JSON.stringify(body));
    assert.match(JSON.stringify(body), message);
    assert.ok(!JSON.stringify(body).includes('17'));
  }
  assert.equal((await asked('DELETE', '/api/v1/clusters/nobody')).status, 404);
  assert.equal((await asked('DELETE', `/api/v1/clusters/${slug.toUpperCase()}`)).status, 200);
  await listed('big', false);
  assert.deepEqual((await asked('GET', '/api/v1/clusters')).body, { clusters: [] });
});
