/** The same as canary.test.ts for services beyond the mesh: every key that one of them is trusted with, and every route. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders, request, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { Canaries } from '../support/canaries.ts';
import { ClusterManager } from '../support/cluster-manager/manager.ts';
import { GlobusStandIn } from '../support/globus-stand-in.ts';
import { firstFunction } from '../support/globus-stand-in-functions.ts';
import { ENDPOINT, endpointFixture, FUNCTION, MODEL } from '../support/globus-stand-in-site.ts';
import { DONE, delta, json, OpenAiServer, type Reply, raw, reset, streamed } from '../support/openai-server.ts';
import {
  API_KEY,
  echo,
  PASSPHRASE,
  PROMPT,
  processes,
  readQuietly,
  WatchedNode,
  type WatchedOptions,
} from '../support/watched-node.ts';

const KEYS = {
  API_KEY,
  PASSPHRASE,
  BOX_KEY: 'sk-box.canary-5Tg6Yh7Uj8',
  ENV_KEY: 'sk-env+canary/4Rf=5Tg~6Y',
  MANIFEST_KEY: 'sk-manifest+canary/9Ol=0P~',
  UNUSED_MANIFEST_KEY: 'sk-unused-canary-2Ws3Ed4',
  DIRECT_KEY: 'sk-direct+canary/8Ik=9Ol~',
  DIRECT_ENV_KEY: 'sk-direct-env-canary-1Qa2Ws',
  CLUSTER_SECRET: 'wJalrXUt+canary/K7MDENG=bPx',
  GLOBUS_SECRET: 'k3-Secret+canary/of=the~account',
  STREAMING_SECRET: 'streaming+canary/7Uj=8Ik~',
};
const CLUSTER = { accessKey: 'AKIAIOSFODNN7EXAMPLE', secretKey: KEYS.CLUSTER_SECRET };
const ACCOUNT = { id: '5a1f9c3e-0000-4000-8000-00000000acc1', secret: KEYS.GLOBUS_SECRET };
const ENDPOINT_ID = 'production-endpoint-of-the-manifest';
const FEDERATED = 'anywhere';
const LINUX = process.platform === 'linux';

/** Every GET route, by file and by how it is written there, as it can be asked; empty: looked at elsewhere in this test. */
const ROUTES: Readonly<Record<string, readonly string[]>> = {
  "batches.ts '/v1/batches'": ['/v1/batches', '/v1/batches?after=batch_x'],
  "batches.ts '/v1/batches/:id'": ['/v1/batches/BATCH'],
  'clusters.ts PATH': ['/api/v1/clusters'],
  "events.ts '/api/v1/mesh/events'": [],
  "files.ts '/v1/files'": ['/v1/files'],
  "files.ts '/v1/files/:id'": ['/v1/files/ERRORS'],
  "files.ts '/v1/files/:id/content'": ['/v1/files/ERRORS/content', '/v1/files/INPUT/content'],
  'load-balancing.ts PATH': ['/api/v1/config/load-balancing'],
  'models.ts `${prefix}/models`': ['/v1/models', '/api/v1/inference/models'],
  'models.ts `${prefix}/models/*`': ['/v1/models/box-m', `/v1/models/${MODEL}`, '/v1/models/nowhere'],
  "node.ts '/'": ['/'],
  "node.ts '/health'": ['/health'],
  "node.ts '/metrics'": ['/metrics'],
  "node.ts '/api/v1/node'": ['/api/v1/node'],
  "node.ts '/api/v1/peers'": ['/api/v1/peers'],
  "pool.ts '/api/v1/inference/status'": ['/api/v1/inference/status'],
  "pool.ts '/api/v1/pool/distributed-status'": ['/api/v1/pool/distributed-status'],
  "pool.ts '/api/v1/pool/routing-stats'": ['/api/v1/pool/routing-stats'],
  "requests.ts '/api/v1/requests/*'": ['/api/v1/requests/try-1', '/api/v1/requests/nowhere'],
  'residency.ts PATH': ['/api/v1/residency'],
  "resource-server.ts '/health'": ['/resource_server/health'],
  "resource-server.ts '/status'": ['/resource_server/status'],
  "resource-server.ts '/list-endpoints'": ['/resource_server/list-endpoints'],
  "resource-server.ts '/whoami'": ['/resource_server/whoami'],
  "resource-server.ts '/:cluster/jobs'": ['cloud', 'sophia', 'mesh', 'x'].map(
    (name) => `/resource_server/${name}/jobs`,
  ),
  'resource-server.ts path': ['/resource_server/v1/batches', '/resource_server/v1/batches/x'],
};

/** Passes requests on, keeps what authorised them and every token in the answers, and repeats it all when told to. */
class Recorder {
  readonly seen = new Set<string>();
  echoes = false;
  readonly #server: Server;

  constructor(target: () => string) {
    this.#server = createServer((asked, response) => {
      response.on('error', () => {});
      const { headers, method, url: route } = asked;
      this.#keep(headers);
      if (this.echoes) {
        asked.resume();
        const { authorization = '' } = headers;
        const forms = [authorization, encodeURIComponent(authorization), btoa(authorization)].join(' ');
        return json(
          400,
          { error: forms, reason: forms, message: forms },
          { 'x-echo': authorization },
        )(response, {
          ...{ method: method ?? '', path: route ?? '', headers, body: '' },
        });
      }
      const passed = request(target() + route, { method, headers }, (answer) => {
        response.writeHead(answer.statusCode ?? 500, answer.headers);
        answer.on('data', (piece: Buffer) => {
          const token = /"access_token":"([^"]+)"/.exec(piece.toString())?.[1];
          if (token !== undefined) this.seen.add(token);
        });
        answer.pipe(response);
      });
      passed.on('error', () => response.destroy());
      asked.pipe(passed);
    });
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.listen(0, '127.0.0.1', resolve);
    });
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  stop(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  #keep({ authorization = '' }: IncomingHttpHeaders): void {
    const token = /^Bearer (.+)$/.exec(authorization)?.[1];
    if (token !== undefined) this.seen.add(token);
  }
}

const dir = mkdtempSync(path.join(tmpdir(), 'canary-services-'));
const servers = new Map<string, OpenAiServer>();
const taskTokens = new Set<string>();
let globus: GlobusStandIn;
let recorder: Recorder;
let manager: ClusterManager;

/** A server with one model, of which both have the name. */
async function server(name: string): Promise<OpenAiServer> {
  const made = await OpenAiServer.start();
  made.models = json(200, { object: 'list', data: [{ id: name }] });
  servers.set(name, made);
  return made;
}

const at = (name: string): OpenAiServer => servers.get(name) ?? assert.fail(name);

before(async () => {
  for (const name of ['box-m', 'env-m', 'manifest-m', 'direct-m', 'direct-env-m', 'remote']) await server(name);
  globus = await GlobusStandIn.start({ requests: 10_000 });
  globus.accounts.set(ACCOUNT.id, ACCOUNT.secret);
  globus.endpoints.set(ENDPOINT, { status: 'online', managers: 1, allowed: [FUNCTION] });
  globus.functions.set(FUNCTION, honest);
  recorder = new Recorder(() => globus.url);
  await recorder.start();
  manager = await ClusterManager.start({ keypairs: [CLUSTER] });
  manager.addService('chat-service', 'cluster-m');
});
after(async () => {
  recorder?.stop();
  await Promise.all([...servers.values()].map((each) => each.stop()));
  await Promise.all([globus?.stop(), manager?.stop()]);
  rmSync(dir, { recursive: true, force: true });
});

/** FIRST's function, watched. */
async function honest(args: readonly unknown[]): Promise<unknown> {
  const { model_params: params } = args[0] as { model_params: Record<string, unknown> };
  if (typeof params['stream_task_token'] === 'string') taskTokens.add(params['stream_task_token']);
  return await firstFunction({ streamingSecret: KEYS.STREAMING_SECRET })(args);
}

/** One whose model server quotes what it was asked. */
async function indiscreet(args: readonly unknown[]): Promise<unknown> {
  await honest(args).catch(() => {});
  const { model_params: params } = args[0] as { model_params: Record<string, unknown> };
  const error = { message: `no such parameter: stream_task_token=${String(params['stream_task_token'])}` };
  throw new Error(`API request failed with status code: 400\nResponse text: ${JSON.stringify({ error })}`);
}

function fixtures(): object[] {
  const openai = { openai_endpoints: ['chat/completions', 'completions', 'embeddings'] };
  const kind = 'resource_server_async.cluster';
  const direct = (pk: number, model: string, keyName: string | null): object => ({
    model: 'resource_server_async.endpoint',
    pk,
    fields: {
      ...{ endpoint_slug: `cloud-api-${model}`, cluster: 'cloud', framework: 'api', model },
      endpoint_adapter: 'resource_server_async.endpoints.direct_api.DirectAPIEndpoint',
      config: { api_url: `${at(model).url}/v1`, api_key_env_name: keyName },
    },
  });
  const target = { cluster: 'cloud', framework: 'api', model: 'direct-m', endpoint_slug: 'cloud-api-direct-m' };
  return [
    {
      ...{ model: kind, pk: 1 },
      fields: {
        ...{ ...openai, cluster_name: 'sophia', frameworks: ['vllm'] },
        ...{ cluster_adapter: 'x.GlobusComputeCluster', config: {} },
      },
    },
    endpointFixture(Number(new URL(at('remote').url).port)),
    {
      ...{ model: kind, pk: 2 },
      fields: {
        ...{ ...openai, cluster_name: 'cloud', frameworks: ['api'] },
        ...{ cluster_adapter: 'x.DirectAPICluster', config: { status_url: `${at('direct-m').url}/status` } },
      },
    },
    direct(2, 'direct-m', null),
    direct(3, 'direct-env-m', 'DIRECT_ENV_KEY'),
    {
      ...{ model: 'resource_server.federatedendpoint', pk: 4 },
      fields: {
        ...{ name: 'F', slug: 'federated', target_model_name: FEDERATED, description: '' },
        targets: [target],
      },
    },
  ];
}

function watchedOptions(port: number): WatchedOptions {
  const places = { GLOBUS_SDK_SERVICE_URL_AUTH: recorder.url, GLOBUS_SDK_SERVICE_URL_COMPUTE: recorder.url };
  return { port, env: { ...places, BOX_ENV: KEYS.ENV_KEY, DIRECT_ENV_KEY: KEYS.DIRECT_ENV_KEY } };
}

async function freePort(): Promise<number> {
  const probe = await OpenAiServer.start();
  const { port } = new URL(probe.url);
  await probe.stop();
  return Number(port);
}

/** Registers everything, each key the way its owner would give it. */
async function register(node: WatchedNode): Promise<void> {
  const manifest = path.join(dir, 'status.json');
  const url = `${at('manifest-m').url}/v1`;
  const entry = { status: 'Live', model: 'M', experts: ['manifest-m'], url, endpoint_id: ENDPOINT_ID };
  writeFileSync(manifest, JSON.stringify({ one: entry }));
  const file = path.join(dir, 'fixtures.json');
  writeFileSync(file, JSON.stringify(fixtures()));
  const ofManifest = JSON.stringify({ [ENDPOINT_ID]: KEYS.MANIFEST_KEY, other: KEYS.UNUSED_MANIFEST_KEY });
  const { url: boxUrl } = at('box-m');
  const cluster = ['cluster', 'add', 'lab', manager.url, '--access-key', CLUSTER.accessKey, '--secret-stdin'];
  const account = ['fixtures', 'credentials', '--id', ACCOUNT.id, '--key-stdin'];
  const steps: [string[], string][] = [
    [['backends', 'add', 'box', boxUrl, '--key-stdin'], KEYS.BOX_KEY],
    [['backends', 'add', 'envbox', at('env-m').url, '--key-env', 'BOX_ENV'], ''],
    [['backends', 'add', 'listed', '--manifest', manifest, '--key-stdin'], ofManifest],
    [['fixtures', 'load', file], ''],
    [account, ACCOUNT.secret],
    [['fixtures', 'credentials', 'cloud-api-direct-m', '--key-stdin'], KEYS.DIRECT_KEY],
    [[...cluster, '--allow-http'], CLUSTER.secretKey],
    // What is wrong with a command must not be said by quoting what stands on its input.
    [['backends', 'add', 'broken', boxUrl, '--key-stdin'], `${KEYS.BOX_KEY} and more`],
    [['backends', 'add', 'broken', boxUrl, '--key-env', KEYS.BOX_KEY], ''],
  ];
  for (const [args, stdin] of steps) {
    const isTyped = args.includes(KEYS.BOX_KEY);
    const { code, out, err } = await node.cli(args, `${stdin}\n`);
    assert.equal(code === 0, !args.includes('broken'), `${args.join(' ')}: ${out}${err}`);
    if (isTyped) assert.equal(err.includes(KEYS.BOX_KEY), false, 'a key in the wrong place');
  }
}

const quoted = (asked: { headers: IncomingHttpHeaders }): string => JSON.stringify(asked.headers.authorization ?? '');
const TROUBLES: readonly Reply[] = [
  echo(400),
  echo(404),
  echo(429),
  (response, asked) => raw([delta('Hi'), `data: {"error":{"message":${quoted(asked)}}}\n\n`])(response, asked),
  (response, asked) => raw([delta('Hi'), `event: error\ndata: ${quoted(asked)}\n\n`, DONE])(response, asked),
  (response, asked) => json(400, `${'x'.repeat(480)} ${asked.headers.authorization}`)(response, asked),
  reset([delta('Hi')]),
  echo(500),
  (response, asked) => json(502, `<html>${asked.headers.authorization}</html>`)(response, asked),
  echo(401),
];

/** Everything that one server can do to whoever trusts it. */
async function trouble(node: WatchedNode, model: string, set: (reply: Reply) => void): Promise<void> {
  for (const reply of TROUBLES) {
    set(reply);
    await node.chat(model);
    await node.chat(model, true);
  }
}

/** A batch whose lines are refused in words that quote the key; the ids of what there is to read of it. */
async function batchOf(node: WatchedNode): Promise<Readonly<Record<string, string>>> {
  const line = (model: string, index: number): string => {
    const body = { model, messages: [{ role: 'user', content: 'Hi' }] };
    return JSON.stringify({ custom_id: `${model}-${index}`, method: 'POST', url: '/v1/chat/completions', body });
  };
  const lines = ['box-m', 'env-m', 'direct-m', 'cluster-m'].flatMap((model) => [line(model, 1), line(model, 2)]);
  const upload = { method: 'POST', headers: { 'content-type': 'application/jsonl' }, body: lines.join('\n') };
  const { id: input } = await node.jsonOf<{ id: string }>('/v1/files?purpose=batch&filename=in.jsonl', upload);
  const asked = { input_file_id: input, endpoint: '/v1/chat/completions', completion_window: '1h' };
  const create = {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(asked),
  };
  const { id } = await node.jsonOf<{ id: string }>('/v1/batches', create);
  for (let tries = 0; tries < 200; tries += 1) {
    const batch = await node.jsonOf<{ status: string; error_file_id: string | null }>(`/v1/batches/${id}`);
    if (batch.status === 'completed') return { BATCH: id, INPUT: input, ERRORS: batch.error_file_id ?? 'none' };
    await setTimeout(100);
  }
  assert.fail('the batch does not end');
}

async function walk(node: WatchedNode, names: Readonly<Record<string, string>>): Promise<void> {
  for (const route of Object.values(ROUTES).flat()) {
    await node.http(route.replace(/\b(?:BATCH|ERRORS|INPUT)\b/, (name) => names[name] ?? name));
  }
}

/** Commands that read the store of secrets, and commands that ask the node. */
async function commands(node: WatchedNode, words: readonly (readonly string[])[]): Promise<void> {
  const own = new Set(['backends', 'fixtures', 'cluster', 'config', 'secrets', 'doctor']);
  for (const each of words) {
    await node.cli([...each, ...(own.has(each[0] ?? '') ? [] : ['--api-key-file', node.keyFile])]);
  }
}

const LOOKS = [
  ...[
    ['backends', 'list', '--json'],
    ['fixtures', 'list', '--json'],
    ['config', 'show', '--json'],
  ],
  ...[['secrets', 'status', '--json'], ['status'], ['explain', 'try-1'], ['batch', 'list'], ['doctor']],
];
/** These ask the services. */
const TRIES = [
  ...[
    ['backends', 'test', 'box'],
    ['backends', 'test', 'listed', '--json'],
  ],
  ...[['cluster', 'list', '--json'], ['cluster', 'test', 'lab'], ['peers']],
];

describe('secrets that services beyond the mesh are trusted with', () => {
  test('every GET route that the facade has is looked at', () => {
    const routes = path.join(import.meta.dirname, '../../node/api');
    const files = readdirSync(routes, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
    const found = files.flatMap((file) =>
      [
        ...readFileSync(path.join(routes, file), 'utf8').matchAll(
          /\b(?:app|scope|limited|pinned)\s*\.get(?:<[^(]*>)?\(\s*([^,\s]+),/g,
        ),
      ].map(([, written]) => `${path.basename(file)} ${written}`),
    );
    assert.deepEqual(found.toSorted(), Object.keys(ROUTES).toSorted(), 'a new route belongs into the table above');
  });

  test('come out nowhere, however much fails', async (t) => {
    const port = await freePort();
    const node = new WatchedNode(watchedOptions(port));
    t.after(() => node.remove());
    await register(node);
    const secretFile = path.join(dir, 'streaming-secret');
    writeFileSync(secretFile, `${KEYS.STREAMING_SECRET}\n`, { mode: 0o600 });
    const streaming = ['--streaming-url', `http://127.0.0.1:${port}`, '--streaming-secret-file', secretFile];
    await node.start(['--log-format', 'json', '--gpu', 'off', '--federation-rate', '0', ...streaming]);
    const stopListening = node.listen();

    const message = { role: 'assistant', content: 'whole' };
    const choices = [{ index: 0, message, finish_reason: 'stop' }];
    at('remote').reply = json(200, { id: 'c', object: 'chat.completion', choices });
    // The stand-in's own words quote the question.
    manager.app.replies.set('cluster-m', streamed(['Hello']));
    const models = ['box-m', 'env-m', 'manifest-m', 'direct-m', 'direct-env-m', 'cluster-m', MODEL];
    for (const model of [...models, FEDERATED]) await node.chatUntil(model, 200);
    at('remote').reply = streamed(['one', ' two']);
    await node.chat(MODEL, true);
    const used = {
      'box-m': 'BOX_KEY',
      'env-m': 'ENV_KEY',
      'manifest-m': 'MANIFEST_KEY',
      'direct-m': 'DIRECT_KEY',
    } as const;
    for (const [model, name] of Object.entries(used)) {
      assert.equal(at(model).inferences.at(-1)?.headers.authorization, `Bearer ${KEYS[name]}`, model);
    }
    await node.chat('meshnode-demo');
    if (LINUX) {
      const engine = node.pids().find((pid) => readQuietly(`/proc/${pid}/cmdline`).includes('engine-child'));
      assert.ok(engine !== undefined);
      node.say('environment of the engine', readQuietly(`/proc/${engine}/environ`));
    }

    for (const model of ['box-m', 'env-m', 'direct-m']) at(model).reply = echo(400);
    manager.app.replies.set('cluster-m', echo(400));
    const names = await batchOf(node);
    globus.functions.set(FUNCTION, indiscreet);
    await Promise.all([
      ...models
        .filter((model) => servers.has(model))
        .map((model) => trouble(node, model, (reply) => Object.assign(at(model), { reply, models: reply }))),
      trouble(node, 'cluster-m', (reply) => manager.app.replies.set('cluster-m', reply)),
      node.chat(MODEL).then(() => node.chat(MODEL, true)),
    ]);
    await node.chat(FEDERATED, true);
    const push = { task_id: 'x', data: 'x' };
    await node.http('/resource_server/api/streaming/data', JSON.stringify(push));
    await node.http('/api/v1/clusters', JSON.stringify({ name: 'x', secretKey: CLUSTER.secretKey, endpoint: 1 }));
    await walk(node, names);
    await commands(node, [...LOOKS, ...TRIES]);
    node.say('ps', processes(['cmdline']));

    recorder.echoes = true;
    manager.faults.status = 500;
    globus.revokeTokens();
    await Promise.all([node.chat(MODEL), node.chat(MODEL, true), node.chat('cluster-m')]);
    await node.cli(['fixtures', 'credentials', '--id', ACCOUNT.id, '--key-stdin'], `${ACCOUNT.secret}\n`);
    await commands(node, TRIES);
    await walk(node, names);

    const canaries = new Canaries();
    for (const [name, secret] of Object.entries({ ...KEYS, PROMPT })) canaries.add(name, secret);
    const shown = manager.app.asked.map(({ headers }) => headers.authorization?.replace('Bearer ', '') ?? '');
    const tokens = { 'service token': new Set(shown), 'task token': taskTokens, 'access token': recorder.seen };
    for (const [name, all] of Object.entries(tokens)) {
      const real = [...all].filter((token) => token !== '');
      assert.ok(real.length > 0, `there was no ${name}`);
      for (const token of real) canaries.add(name, token);
    }
    assert.deepEqual(node.leaks(canaries), [], 'while it runs');
    assert.ok(readdirSync(node.dataDir).includes('batches.db-wal'), 'the log of the database was looked at');
    await stopListening();
    await node.stop();
    assert.deepEqual(node.leaks(canaries), []);
    assert.match(node.outputs.get(`HTTP /v1/files/${names['ERRORS']}/content`) ?? '', /\[key\]/);
    assert.ok((node.outputs.get('events') ?? '').length > 0, 'there were events');
  });
});
