/** FIRST's face over HTTP: the whole facade and routing core, one real server for each endpoint of the fixtures. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import OpenAI from 'openai';
import { type FirstFace, type FirstFaceOptions, startFirstFace } from '../support/first-face.ts';
import { federatedEndpoint, fixtureCluster, fixtureEndpoint, targetOf } from '../support/first-parts.ts';
import { json, refusal, reset, streamed } from '../support/openai-server.ts';

const SOPHIA = fixtureEndpoint('sophia', 'llama');
const POLARIS = fixtureEndpoint('polaris', 'llama-8b');
const FIXTURES = {
  clusters: [fixtureCluster('sophia'), fixtureCluster('polaris', { openaiEndpoints: ['chat/completions'] })],
  endpoints: [SOPHIA, POLARIS],
  federated: [federatedEndpoint('meta/llama', [targetOf(SOPHIA), targetOf(POLARIS)])],
};
const ASK = { messages: [{ role: 'user' as const, content: 'Hi' }] };

async function face(t: TestContext, options: Partial<FirstFaceOptions> = {}): Promise<FirstFace> {
  const started = await startFirstFace({ fixtures: FIXTURES, ...options });
  t.after(() => started.stop());
  return started;
}

const client = (baseURL: string): OpenAI => new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 });

function whole(text: string): ReturnType<typeof json> {
  const choices = [{ index: 0, message: { role: 'assistant', content: text }, finish_reason: 'stop' }];
  return json(200, { id: 'c', object: 'chat.completion', choices, usage: { prompt_tokens: 7, completion_tokens: 3 } });
}

async function post(url: string, body: object): Promise<{ status: number; body: unknown; headers: Headers }> {
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify(body) });
  return { status: response.status, body: await response.json(), headers: response.headers };
}

async function refused(url: string, body: object = { model: 'meta/llama', ...ASK }) {
  const answer = await post(url, body);
  const { error } = answer.body as { error: { code: string; message: string; info: Record<string, unknown> } };
  return { ...error, status: answer.status, retryAfter: answer.headers.get('retry-after') };
}

test('F-16 F-21 the openai client gets a federated model from a running target, which is asked by its own model name', async (t) => {
  const first = await face(t);
  first.parts.states.set(SOPHIA.slug, { state: 'queued', freeNodes: 4 });
  for (const baseURL of [`${first.url}/v1`, `${first.facade.url}/v1`]) {
    first.server(POLARIS.slug).reply = whole('from polaris');
    const answer = await client(baseURL).chat.completions.create({ model: 'meta/llama', ...ASK });
    assert.equal(answer.choices[0]?.message.content, 'from polaris');
    assert.equal(answer.model, 'meta/llama');
    first.server(POLARIS.slug).reply = streamed(['from', ' polaris']);
    const stream = await client(baseURL).chat.completions.create({ model: 'meta/llama', stream: true, ...ASK });
    let text = '';
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? '';
    assert.equal(text, 'from polaris');
  }
  const asked = first.server(POLARIS.slug).inferences.map(({ body }) => (JSON.parse(body) as { model: string }).model);
  assert.deepEqual(asked, ['llama-8b', 'llama-8b', 'llama-8b', 'llama-8b']);
  assert.equal(first.server(SOPHIA.slug).inferences.length, 0);
});

test('F-21 F-42 a path that names cluster and framework is answered there or not at all', async (t) => {
  const first = await face(t);
  const pinned = client(`${first.url}/sophia/vllm/v1`);
  first.server(SOPHIA.slug).reply = whole('from sophia');
  const answer = await pinned.chat.completions.create({ model: 'llama', ...ASK });
  assert.equal(answer.choices[0]?.message.content, 'from sophia');
  assert.equal(answer.model, 'llama');
  first.server(SOPHIA.slug).reply = streamed(['from', ' sophia']);
  const stream = await pinned.chat.completions.create({ model: 'llama', stream: true, ...ASK });
  let text = '';
  for await (const chunk of stream) {
    assert.equal(chunk.model, 'llama');
    text += chunk.choices[0]?.delta.content ?? '';
  }
  assert.equal(text, 'from sophia');
  first.server(SOPHIA.slug).reply = whole('from sophia');
  const named = await client(`${first.facade.url}/v1`).chat.completions.create({ model: '@sophia/vllm/llama', ...ASK });
  assert.equal(named.choices[0]?.message.content, 'from sophia', 'the same by a model id');
  first.server(SOPHIA.slug).reply = refusal(500, { message: 'boom' });
  await assert.rejects(pinned.chat.completions.create({ model: 'llama', ...ASK }), { status: 500 });
  assert.equal(first.server(POLARIS.slug).inferences.length, 0, 'no failover to another cluster');
});

test('F-21 embeddings and completions go the same ways', async (t) => {
  const first = await face(t);
  const { data: _, ...rest } = { data: null, object: 'list', model: 'x', usage: { prompt_tokens: 2, total_tokens: 2 } };
  const vector = { object: 'embedding', index: 0, embedding: [0.5, 0.25] };
  first.server(SOPHIA.slug).reply = json(200, { ...rest, data: [vector] });
  for (const baseURL of [`${first.url}/v1`, `${first.url}/sophia/vllm/v1`]) {
    const model = baseURL.includes('sophia') ? 'llama' : 'meta/llama';
    const { data } = await client(baseURL).embeddings.create({ model, input: 'x', encoding_format: 'float' });
    assert.deepEqual(data[0]?.embedding, [0.5, 0.25]);
  }
  const choices = [{ index: 0, text: 'done', finish_reason: 'stop' }];
  first.server(SOPHIA.slug).reply = json(200, { id: 'c', choices, usage: { prompt_tokens: 1, completion_tokens: 1 } });
  const { choices: given } = await client(`${first.url}/sophia/vllm/v1`).completions.create({
    model: 'llama',
    prompt: 'x',
  });
  assert.equal(given[0]?.text, 'done');
});

test('F-10 F-43 a target that fails is followed by the next one, and its breaker opens', async (t) => {
  const first = await face(t);
  first.server(SOPHIA.slug).reply = reset();
  first.server(POLARIS.slug).reply = whole('from polaris');
  for (let i = 0; i < 6; i += 1) {
    const answer = await client(`${first.url}/v1`).chat.completions.create({ model: 'meta/llama', ...ASK });
    assert.equal(answer.choices[0]?.message.content, 'from polaris');
  }
  assert.ok(first.server(SOPHIA.slug).inferences.length <= 3, 'an open breaker keeps it out');
});

test('F-16 an endpoint of the model that is no target is not asked', async (t) => {
  const outside = fixtureEndpoint('polaris', 'meta/llama');
  const federated = [federatedEndpoint('meta/llama', [targetOf(SOPHIA)])];
  const first = await face(t, { fixtures: { ...FIXTURES, endpoints: [SOPHIA, outside], federated } });
  first.server(SOPHIA.slug).reply = refusal(503, { message: 'busy' });
  assert.equal((await refused(`${first.url}/v1/chat/completions`)).status, 503);
  assert.equal(first.server(outside.slug).inferences.length, 0);
});

test('F-16 the data boundary of a request holds for federated and pinned models', async (t) => {
  const first = await face(t);
  for (const [path, model] of [
    ['v1', 'meta/llama'],
    ['sophia/vllm/v1', 'llama'],
  ]) {
    const headers = { 'content-type': 'application/json', 'x-meshnode-boundary': 'mesh' };
    const body = JSON.stringify({ model, ...ASK });
    const response = await fetch(`${first.url}/${path}/chat/completions`, { method: 'POST', headers, body });
    assert.equal(response.status, 503);
    await response.body?.cancel();
  }
  assert.equal(first.server(SOPHIA.slug).inferences.length + first.server(POLARIS.slug).inferences.length, 0);
});

test('F-33 the federated route tells no model, no targets, no access and nobody there apart', async (t) => {
  const closed = fixtureEndpoint('polaris', 'closed', { allowedGroups: ['staff'] });
  const federated = [
    ...FIXTURES.federated,
    federatedEndpoint('empty', []),
    federatedEndpoint('closed', [targetOf(closed)]),
    federatedEndpoint('unreadable', [targetOf(SOPHIA, null)]),
    federatedEndpoint('gone', [targetOf(fixtureEndpoint('sophia', 'never-loaded')), targetOf(POLARIS)]),
  ];
  const first = await face(t, {
    fixtures: { ...FIXTURES, endpoints: [SOPHIA, POLARIS, closed], federated },
    federation: { groups: ['guests'] },
  });
  const ask = async (model: string) => {
    const { code, status } = await refused(`${first.url}/v1/chat/completions`, { model, ...ASK });
    return [code, status];
  };
  assert.deepEqual(await ask('nobody-has-this'), ['endpoint_not_found', 404]);
  assert.deepEqual(await ask('empty'), ['internal_endpoint_error', 500]);
  assert.deepEqual(await ask('closed'), ['unauthorized', 401]);
  assert.deepEqual(await ask('unreadable'), ['unauthorized', 401]);
  first.gateway.held.length = 0;
  assert.deepEqual(await ask('gone'), ['internal_endpoint_error', 503]);
});

test('F-30 F-33 a pinned path is refused by cluster, framework, endpoint and model, in FIRST’s codes', async (t) => {
  const locked = fixtureCluster('locked', { allowedGroups: ['staff'] });
  const closed = fixtureEndpoint('sophia', 'closed', { allowedGroups: ['staff'] });
  const first = await face(t, {
    fixtures: { ...FIXTURES, clusters: [...FIXTURES.clusters, locked], endpoints: [...FIXTURES.endpoints, closed] },
    federation: { groups: ['guests'] },
  });
  const ask = async (path: string, model = 'llama') => {
    const { code, status } = await refused(`${first.url}/${path}`, { model, ...ASK });
    return [code, status];
  };
  assert.deepEqual(await ask('nowhere/vllm/v1/chat/completions'), ['cluster_not_found', 404]);
  assert.deepEqual(await ask('locked/vllm/v1/chat/completions'), ['access_denied', 403]);
  assert.deepEqual(await ask('sophia/sglang/v1/chat/completions'), ['unsupported_framework', 400]);
  assert.deepEqual(await ask('sophia/vllm/v1/responses'), ['unsupported_endpoint', 400]);
  assert.deepEqual(await ask('polaris/vllm/v1/embeddings'), ['unsupported_endpoint', 400]);
  assert.deepEqual(await ask('sophia/vllm/v1/batches'), ['batch_unavailable', 400]);
  assert.deepEqual(await ask('sophia/vllm/v1/chat/completions', 'other'), ['endpoint_not_found', 404]);
  assert.deepEqual(await ask('sophia/vllm/v1/chat/completions', 'closed'), ['access_denied', 403]);
  first.parts.states.set(SOPHIA.slug, { state: 'offline', freeNodes: null });
  assert.deepEqual(await ask('sophia/vllm/v1/chat/completions'), ['internal_endpoint_error', 503]);
  const batches = await fetch(`${first.url}/v1/batches?status=running`);
  assert.equal(((await batches.json()) as { error: { code: string } }).error.code, 'batch_unavailable');
});

test('F-33 a body that cannot be read and an unknown key are told in FIRST’s shape', async (t) => {
  const first = await face(t, { facade: { apiKey: 'a-key' } });
  const url = `${first.url}/v1/chat/completions`;
  const denied = await refused(url);
  assert.deepEqual([denied.code, denied.status, denied.info], ['unauthorized', 401, {}]);
  const headers = { 'content-type': 'application/json', authorization: 'Bearer a-key' };
  const response = await fetch(url, { method: 'POST', headers, body: '{' });
  const { error } = (await response.json()) as { error: { code: string; message: string } };
  assert.deepEqual([response.status, error.code], [400, 'invalid_request']);
  for (const path of ['health', 'status']) assert.equal((await fetch(`${first.url}/${path}`)).status, 200, path);
  for (const path of ['whoami', 'list-endpoints'])
    assert.equal((await fetch(`${first.url}/${path}`)).status, 401, path);
});

test('F-30 F-31 list-endpoints shows what callers may use, and the mesh as a cluster', async (t) => {
  const closed = fixtureEndpoint('sophia', 'closed', { allowedGroups: ['staff'] });
  const locked = fixtureCluster('locked', { allowedGroups: ['staff'] });
  const first = await face(t, {
    fixtures: { ...FIXTURES, clusters: [...FIXTURES.clusters, locked], endpoints: [POLARIS, closed, SOPHIA] },
    federation: { groups: [] },
    local: ['tiny', 'big'],
  });
  const three = ['/v1/chat/completions', '/v1/completions', '/v1/embeddings'];
  assert.deepEqual(await (await fetch(`${first.url}/list-endpoints`)).json(), {
    clusters: {
      mesh: {
        base_url: '/resource_server/mesh',
        frameworks: { 'llama-cpp': { models: ['big', 'tiny'], endpoints: three } },
      },
      sophia: { base_url: '/resource_server/sophia', frameworks: { vllm: { models: ['llama'], endpoints: three } } },
      polaris: {
        base_url: '/resource_server/polaris',
        frameworks: { vllm: { models: ['llama-8b'], endpoints: ['/v1/chat/completions'] } },
      },
    },
  });
  const models = (await (await fetch(`${first.facade.url}/v1/models`)).json()) as { data: { id: string }[] };
  assert.deepEqual(models.data.map(({ id }) => id).toSorted(), ['big', 'llama', 'llama-8b', 'meta/llama', 'tiny']);
  const answer = await client(`${first.url}/mesh/llama-cpp/v1`).chat.completions.create({
    model: 'tiny',
    max_tokens: 4,
    ...ASK,
  });
  assert.equal(answer.model, 'tiny');
  const missing = await refused(`${first.url}/mesh/llama-cpp/v1/chat/completions`, { model: 'llama', ...ASK });
  assert.equal(missing.code, 'endpoint_not_found', 'what a cluster has is not the mesh’s');
});

test('F-32 jobs tells what runs, waits and stands still', async (t) => {
  const cold = fixtureEndpoint('sophia', 'cold');
  const waiting = fixtureEndpoint('sophia', 'waiting');
  const first = await face(t, { fixtures: { ...FIXTURES, endpoints: [SOPHIA, cold, waiting] }, local: ['tiny'] });
  first.parts.states.set(cold.slug, { state: 'cold', freeNodes: 3 });
  first.parts.states.set(waiting.slug, { state: 'queued', freeNodes: null });
  const job = (model: string, status: string, framework = 'vllm', cluster = 'sophia') => ({
    Models: model,
    Framework: framework,
    Cluster: cluster,
    'Model Status': status,
  });
  const rest = { others: [], private_batch_running: [], private_batch_queued: [] };
  assert.deepEqual(await (await fetch(`${first.url}/sophia/jobs`)).json(), {
    running: [job('llama', 'running')],
    queued: [job('waiting', 'queued')],
    stopped: [job('cold', 'stopped')],
    ...rest,
    cluster_status: { free_nodes: 3 },
  });
  assert.deepEqual(await (await fetch(`${first.url}/mesh/jobs`)).json(), {
    running: [job('tiny', 'running', 'llama-cpp', 'mesh')],
    queued: [],
    stopped: [],
    ...rest,
    cluster_status: { free_nodes: -1 },
  });
  assert.equal((await fetch(`${first.url}/nowhere/jobs`)).status, 404);
});

test('F-38 a cluster under maintenance takes no requests, shows its jobs stopped, and is passed over by federated models', async (t) => {
  const first = await face(t, { federation: { maintenance: ['sophia'] } });
  first.server(POLARIS.slug).reply = whole('from polaris');
  const pinned = await refused(`${first.url}/sophia/vllm/v1/chat/completions`, { model: 'llama', ...ASK });
  assert.deepEqual([pinned.code, pinned.status], ['cluster_under_maintenance', 503]);
  const answer = await client(`${first.url}/v1`).chat.completions.create({ model: 'meta/llama', ...ASK });
  assert.equal(answer.choices[0]?.message.content, 'from polaris');
  const status = await (await fetch(`${first.url}/status`)).json();
  assert.deepEqual(status, { mesh: true, sophia: false, polaris: true });
  const jobs = (await (await fetch(`${first.url}/sophia/jobs`)).json()) as { running: unknown[]; stopped: unknown[] };
  assert.deepEqual([jobs.running.length, jobs.stopped.length], [0, 1]);
  first.parts.change({ federated: [federatedEndpoint('meta/llama', [targetOf(SOPHIA)])] });
  assert.equal((await refused(`${first.url}/v1/chat/completions`)).code, 'cluster_under_maintenance');
});

test('F-34 a caller that asks more than ten times a second is told when to come back', async (t) => {
  const first = await face(t);
  const statuses = await Promise.all([...Array(14)].map(() => fetch(`${first.url}/list-endpoints`)));
  const late = statuses.filter(({ status }) => status === 429);
  assert.ok(late.length >= 1 && late.length <= 4, `${late.length} of 14`);
  assert.equal(late[0]?.headers.get('retry-after'), '1');
  const body = (await late[0]?.json()) as { error: { code: string } } | undefined;
  assert.equal(body?.error.code, 'too_many_requests');
  assert.equal((await fetch(`${first.facade.url}/v1/models`)).status, 200, 'only below /resource_server');
});

test('F-35 a caller or an endpoint that has used its tokens of the minute gets 429 with the figures', async (t) => {
  const limited = { ...SOPHIA, tpmModel: 25, tpmUser: 15 };
  const open = { ...POLARIS, tpmModel: 5 };
  const federated = [federatedEndpoint('meta/llama', [targetOf(limited), targetOf(open)])];
  const first = await face(t, { fixtures: { ...FIXTURES, endpoints: [limited, open], federated } });
  first.server(limited.slug).reply = whole('ten tokens');
  first.server(open.slug).reply = whole('ten tokens');
  const pinned = client(`${first.url}/sophia/vllm/v1`);
  const ask = { model: 'llama', ...ASK };
  await pinned.chat.completions.create(ask);
  await pinned.chat.completions.create(ask);
  const own = await refused(`${first.url}/sophia/vllm/v1/chat/completions`, ask);
  assert.deepEqual([own.code, own.status], ['too_many_requests', 429]);
  assert.deepEqual(own.info, { limit: 'tpm_user', limit_tokens: 15, used_tokens: 20 });
  assert.match(own.retryAfter ?? '', /^[1-9]\d?$/);
  // By the federated model sophia answers once more, then its limit of all callers is reached and polaris answers.
  for (let i = 0; i < 2; i += 1)
    await client(`${first.facade.url}/v1`).chat.completions.create({ model: 'meta/llama', ...ASK });
  const spent = await refused(`${first.url}/v1/chat/completions`);
  assert.equal(spent.code, 'too_many_requests');
  assert.equal(spent.info['limit'], 'tpm_model');
});

test('F-20 fixtures that are loaded while the node runs count from the next request on', async (t) => {
  const first = await face(t);
  assert.equal((await refused(`${first.url}/v1/chat/completions`, { model: 'new', ...ASK })).status, 404);
  first.parts.change({ federated: [federatedEndpoint('new', [targetOf(SOPHIA)])] });
  first.server(SOPHIA.slug).reply = whole('now');
  const answer = await client(`${first.url}/v1`).chat.completions.create({ model: 'new', ...ASK });
  assert.equal(answer.choices[0]?.message.content, 'now');
});
