/** FIRST's clients against a whole node: fixtures from its data directory, direct endpoints, one at Globus Compute. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import OpenAI from 'openai';
import { readFixtures } from '../../node/storage/fixtures/fixture-set.ts';
import { openFixtures } from '../../node/storage/fixtures/fixture-store.ts';
import { GlobusStandIn } from '../support/globus-stand-in.ts';
import { firstFunction } from '../support/globus-stand-in-functions.ts';
import { ACCOUNT, ENDPOINT, endpointFixture, FUNCTION, MODEL, SLUG } from '../support/globus-stand-in-site.ts';
import { NodeProcess, temporaryDir } from '../support/node-process.ts';
import { json, OpenAiServer, reset, streamed } from '../support/openai-server.ts';
import { openPage } from '../support/runnable-page.ts';

const FEDERATED = 'llama-anywhere';
const SECRET = 'a-streaming-secret';
const ASK = { messages: [{ role: 'user' as const, content: 'Hi' }] };

let api = '';
let node: NodeProcess;
let globus: GlobusStandIn;
/** The model servers: of the endpoint at Globus Compute, and of the direct one. */
let remote: OpenAiServer;
let direct: OpenAiServer;

function entries(): object[] {
  const cluster = { cluster_adapter: 'x.GlobusComputeCluster', frameworks: ['vllm'], config: {} };
  const openai = { openai_endpoints: ['chat/completions', 'completions', 'embeddings'] };
  const target = { cluster: 'sophia', framework: 'vllm', model: MODEL, endpoint_slug: SLUG };
  return [
    { model: 'resource_server_async.cluster', pk: 1, fields: { ...cluster, ...openai, cluster_name: 'sophia' } },
    endpointFixture(Number(new URL(remote.url).port)),
    {
      model: 'resource_server_async.cluster',
      pk: 2,
      fields: {
        ...{ ...openai, cluster_name: 'cloud', frameworks: ['api'] },
        ...{ cluster_adapter: 'x.DirectAPICluster', config: { status_url: `${direct.url}/status` } },
      },
    },
    {
      model: 'resource_server_async.endpoint',
      pk: 2,
      fields: {
        ...{ endpoint_slug: 'cloud-api-m', cluster: 'cloud', framework: 'api', model: 'm' },
        endpoint_adapter: 'resource_server_async.endpoints.direct_api.DirectAPIEndpoint',
        config: { api_url: `${direct.url}/v1`, api_key_env_name: null },
      },
    },
    {
      model: 'resource_server.federatedendpoint',
      pk: 3,
      fields: {
        ...{ name: 'Llama', slug: 'federated-llama', target_model_name: FEDERATED, description: '' },
        targets: [target, { cluster: 'cloud', framework: 'api', model: 'm', endpoint_slug: 'cloud-api-m' }],
      },
    },
  ];
}

before(async () => {
  globus = await GlobusStandIn.start();
  globus.accounts.set(ACCOUNT.id, ACCOUNT.secret);
  globus.endpoints.set(ENDPOINT, { status: 'online', managers: 1, allowed: [FUNCTION] });
  globus.functions.set(FUNCTION, firstFunction({ streamingSecret: SECRET, batch: 2 }));
  remote = await OpenAiServer.start();
  direct = await OpenAiServer.start();
  const dataDir = temporaryDir();
  const store = await openFixtures(dataDir);
  await store.merge(readFixtures(entries(), 'fixtures.json'));
  const secretFile = path.join(dataDir, 'streaming-secret');
  writeFileSync(secretFile, `${SECRET}\n`, { mode: 0o600 });
  // The public URL names the port, so it has to be known before.
  const probe = await OpenAiServer.start();
  const { port } = new URL(probe.url);
  await probe.stop();
  node = new NodeProcess({
    dataDir,
    flags: [
      ...['--port', port, '--listen', '/ip4/127.0.0.1/tcp/0', '--no-mdns', '--no-dht', '--gpu', 'off'],
      ...['--streaming-url', `http://127.0.0.1:${port}`, '--streaming-secret-file', secretFile],
      ...['--federation-rate', '0', '--secrets-store', 'plain'],
    ],
    env: {
      ...{ GLOBUS_SDK_SERVICE_URL_AUTH: globus.hosts.authUrl, GLOBUS_SDK_SERVICE_URL_COMPUTE: globus.hosts.computeUrl },
      ...{ SERVICE_ACCOUNT_ID: ACCOUNT.id, SERVICE_ACCOUNT_SECRET: ACCOUNT.secret },
    },
  });
  ({ api } = await node.ready());
  await until(async () => (await jobs('cloud')).running.length === 1);
});

after(async () => {
  await node?.kill();
  await Promise.all([remote?.stop(), direct?.stop(), globus?.stop()]);
});

interface Jobs {
  readonly running: readonly { readonly Models: string }[];
  readonly stopped: readonly unknown[];
}

const jobs = async (cluster: string): Promise<Jobs> =>
  (await (await fetch(`${api}/resource_server/${cluster}/jobs`)).json()) as Jobs;

async function until(holds: () => Promise<boolean>): Promise<void> {
  const end = AbortSignal.timeout(30_000);
  while (!(await holds())) {
    end.throwIfAborted();
    await setTimeout(100);
  }
}

const client = (at: string): OpenAI =>
  new OpenAI({ baseURL: `${api}/resource_server${at}`, apiKey: 'none', maxRetries: 0 });

function whole(text: string): ReturnType<typeof json> {
  const choices = [{ index: 0, message: { role: 'assistant', content: text }, finish_reason: 'stop' }];
  return json(200, { id: 'c', object: 'chat.completion', choices, usage: { prompt_tokens: 7, completion_tokens: 3 } });
}

async function textOf(stream: AsyncIterable<OpenAI.ChatCompletionChunk>): Promise<{ text: string; pieces: number }> {
  let text = '';
  let pieces = 0;
  for await (const chunk of stream) {
    const piece = chunk.choices[0]?.delta.content ?? '';
    text += piece;
    if (piece !== '') pieces += 1;
  }
  return { text, pieces };
}

test('F-1 F-15 F-20 F-31 fixtures of the data directory are listed beside the models of the mesh', async () => {
  const { clusters } = (await (await fetch(`${api}/resource_server/list-endpoints`)).json()) as {
    clusters: Record<string, { frameworks: Record<string, { models: string[] }> }>;
  };
  assert.deepEqual(clusters['sophia']?.frameworks['vllm']?.models, [MODEL]);
  assert.deepEqual(clusters['cloud']?.frameworks['api']?.models, ['m']);
  assert.deepEqual(clusters['mesh']?.frameworks['llama-cpp']?.models, ['meshnode-demo']);
});

test('F-5 F-21 the openai client is answered by the direct endpoint that its base URL names, streamed and whole', async () => {
  direct.reply = whole('direct');
  const answer = await client('/cloud/api/v1').chat.completions.create({ model: 'm', ...ASK });
  assert.equal(answer.choices[0]?.message.content, 'direct');
  direct.reply = streamed(['di', 'rect']);
  const stream = await client('/cloud/api/v1').chat.completions.create({ model: 'm', stream: true, ...ASK });
  assert.deepEqual(await textOf(stream), { text: 'direct', pieces: 2 });
});

test('F-15 F-21 the demo model of this node is FIRST’s cluster "mesh"', async () => {
  const ask = { model: 'meshnode-demo', max_tokens: 8, ...ASK };
  const answer = await client('/mesh/llama-cpp/v1').chat.completions.create(ask);
  assert.equal(answer.model, 'meshnode-demo');
  assert.ok((answer.usage?.completion_tokens ?? 0) > 0);
});

test('F-2 F-21 the endpoint at Globus Compute answers whole, and streams through the call-backs', async () => {
  await until(async () => (await jobs('sophia')).running.length === 1);
  remote.reply = whole('from the cluster');
  const at = client('/sophia/vllm/v1');
  const answer = await at.chat.completions.create({ model: MODEL, ...ASK });
  assert.equal(answer.choices[0]?.message.content, 'from the cluster');
  remote.reply = streamed(['one', ' two', ' three', ' four']);
  const stream = await at.chat.completions.create({ model: MODEL, stream: true, ...ASK });
  assert.deepEqual(await textOf(stream), { text: 'one two three four', pieces: 4 });
});

test('F-2 F-9 F-16 F-43 a federated model goes on to its next target when the first one fails', async () => {
  await until(async () => (await jobs('sophia')).running.length === 1);
  remote.reply = whole('from the cluster');
  direct.reply = whole('direct');
  const first = await client('/v1').chat.completions.create({ model: FEDERATED, ...ASK });
  assert.ok(['from the cluster', 'direct'].includes(first.choices[0]?.message.content ?? ''));
  direct.reply = reset();
  remote.reply = whole('from the cluster');
  for (let i = 0; i < 3; i += 1) {
    const answer = await client('/v1').chat.completions.create({ model: FEDERATED, ...ASK });
    assert.equal(answer.choices[0]?.message.content, 'from the cluster');
    assert.equal(answer.model, FEDERATED);
  }
});

test('F-20 F-30 the commands of the page on federation work as they stand there', async (t) => {
  await until(async () => (await jobs('sophia')).running.length === 1);
  remote.reply = whole('from the cluster');
  const page = await openPage(t, 'backends/first-federation.md', { api });
  const printed = (await page.follow()).map((output) => JSON.parse(output) as object);
  const [models, endpoints, sophia, federated, mesh] = printed;
  assert.match(JSON.stringify(models), new RegExp(FEDERATED));
  assert.deepEqual(Object.keys((endpoints as { clusters: object }).clusters), ['mesh', 'sophia', 'cloud']);
  assert.equal((sophia as Jobs).running[0]?.Models, MODEL);
  for (const answer of [federated, mesh]) assert.equal((answer as OpenAI.ChatCompletion).object, 'chat.completion');
  assert.equal(printed.length, 5);
});
