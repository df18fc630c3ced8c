/** What goes wrong between here and Globus Compute, and at its endpoints. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import { firstFunction, qstatFunction } from '../support/globus-stand-in-functions.ts';
import { ask, chat, collect, completion, textOf } from '../support/globus-stand-in-requests.ts';
import {
  ACCOUNT,
  ENDPOINT,
  endpointFixture,
  FUNCTION,
  MODEL,
  SLUG,
  StandInSite,
} from '../support/globus-stand-in-site.ts';
import { json } from '../support/openai-server.ts';

const SUBMIT = /^POST \/v3\/endpoints\/.*\/submit$/;
const POLL = /^POST \/v2\/batch_status$/;
const STATUS = /^GET \/v2\/endpoints\/.*\/status$/;
const TOKEN = /^POST \/v2\/oauth2\/token$/;
const QSTAT_ENDPOINT = '5a1f9c3e-0000-4000-8000-00000000e00a';
const QSTAT_FUNCTION = '5a1f9c3e-0000-4000-8000-00000000f00a';

/** A cluster whose queue can be asked for. */
const CLUSTER = {
  model: 'resource_server_async.cluster',
  pk: 1,
  fields: {
    cluster_name: 'sophia',
    cluster_adapter: 'resource_server_async.clusters.globus_compute.GlobusComputeCluster',
    frameworks: ['vllm'],
    openai_endpoints: ['chat/completions'],
    config: { qstat_endpoint_uuid: QSTAT_ENDPOINT, qstat_function_uuid: QSTAT_FUNCTION },
  },
};

let site: StandInSite;

before(async () => {
  site = await StandInSite.start({ waitMs: 60_000 });
});

beforeEach(async () => {
  site.server.reply = json(200, completion('ok'));
  const endpoint = site.globus.endpoints.get(ENDPOINT);
  if (endpoint !== undefined) Object.assign(endpoint, { status: 'online', managers: 1 });
  site.globus.isRunning = true;
  site.globus.functions.set(FUNCTION, firstFunction());
  site.globus.pack = (value) => `11\n${JSON.stringify(value)}`;
  await site.until((sites) => sites.stateOf(SLUG).state === 'running');
});

after(async () => {
  await site.stop();
  assert.equal(site.globus.excess, 0, 'no request was beyond the limit of the service');
});

const answered = async (): Promise<string> => textOf(await collect(ask(site)));

test('a token that is refused midway is replaced once, by one request for all who wait', async () => {
  const before = site.globus.count(TOKEN);
  site.globus.revokeTokens();
  assert.deepEqual(await Promise.all([answered(), answered(), answered()]), ['ok', 'ok', 'ok']);
  assert.equal(site.globus.count(TOKEN), before + 1);
});

test('tasks for one endpoint that wait for their turn go in one request', async () => {
  const before = site.globus.count(SUBMIT);
  const asked = site.server.inferences.length;
  const all = await Promise.all(Array.from({ length: 40 }, answered));
  assert.equal(all.length, 40);
  assert.equal(site.server.inferences.length, asked + 40);
  assert.ok(site.globus.count(SUBMIT) - before < 10, `${site.globus.count(SUBMIT) - before} requests`);
});

test('a submit that the service refuses as one too many is sent again when it may be', async () => {
  site.globus.failNext(SUBMIT, { status: 429, headers: { 'retry-after': '2' } });
  assert.equal(await answered(), 'ok');
});

test('too large a request is refused as such, and those beside it in the same submit are not', async () => {
  site.globus.maxSubmitBytes = 20_000;
  const large = chat({ messages: [{ role: 'user', content: 'x'.repeat(30_000) }] });
  const [refused, fine] = await Promise.allSettled([collect(ask(site, large)), answered()]);
  site.globus.maxSubmitBytes = 1e7;
  assert.ok(refused.status === 'rejected');
  assert.equal((refused.reason as { code: string }).code, 'payload_too_large');
  assert.equal(fine.status === 'fulfilled' && fine.value, 'ok');
});

test('a network that is cut between submit and result loses no answer: the task goes on, and is asked for again', async () => {
  site.globus.isRunning = false;
  const result = answered();
  const submits = site.globus.count(SUBMIT);
  for (const fault of ['reset', 'dropped', { status: 502 }, { status: 503 }] as const)
    site.globus.failNext(POLL, fault);
  await waitFor(() => site.globus.count(POLL) > 0 && site.globus.count(SUBMIT) > submits);
  await site.globus.run();
  assert.equal(await result, 'ok');
  assert.equal(site.globus.count(SUBMIT), submits + 1, 'it was submitted once');
});

test('a submit whose answer is lost fails, and is not silently sent again', async () => {
  const before = site.globus.count(SUBMIT);
  site.globus.failNext(SUBMIT, 'dropped');
  await assert.rejects(answered(), { code: 'peer_unreachable' });
  assert.equal(site.globus.count(SUBMIT), before + 1);
});

test('a result that only Python can read is refused by the name of its serializer', async () => {
  site.globus.pack = () => '01\ngASVBQAAAAAAAABLAS4=\n';
  await assert.rejects(answered(), { code: 'upstream_error', message: /serializer 01/ });
  site.globus.pack = () => '11\n"{';
  await assert.rejects(answered(), { code: 'upstream_error', message: /damaged/ });
});

test('a function that may not run at the endpoint is said to be so', async () => {
  site.globus.failNext(SUBMIT, {
    status: 403,
    body: { reason: 'the function may not run there', http_status_code: 403 },
  });
  await assert.rejects(answered(), { code: 'forbidden', message: /may not run there/ });
});

test('a task that takes longer than the bound is reported with its id, and stays there', async () => {
  const slow = await StandInSite.start({ waitMs: 3000 });
  try {
    slow.globus.isRunning = false;
    await slow.until((sites) => sites.stateOf(SLUG).state === 'running');
    await assert.rejects(collect(ask(slow)), {
      code: 'request_timeout',
      message: /within 3 s; its task [0-9a-f-]{36} goes on there$/,
    });
  } finally {
    await slow.stop();
  }
});

test('a client that leaves ends the wait at once; nobody asks for its task any more', async () => {
  site.globus.isRunning = false;
  const gone = new AbortController();
  const result = collect(ask(site, chat(), gone.signal));
  const polls = site.globus.count(POLL);
  await waitFor(() => site.globus.count(POLL) > polls);
  gone.abort();
  await assert.rejects(result, { code: 'client_closed' });
});

test('a cold endpoint is asked by one request, which makes it start; others are told when to come back', async () => {
  const cold = site.globus.endpoints.get(ENDPOINT);
  assert.ok(cold !== undefined);
  cold.managers = 0;
  await refreshed((sites) => sites.stateOf(SLUG).state === 'cold');
  const holder = site.sites.holderOf(SLUG);
  assert.deepEqual([holder?.suspect, holder?.entry.state], [true, 'on-disk']);
  const first = answered();
  await assert.rejects(answered(), (error: Error & { code: string; facts: { retryAfterMs?: number } }) => {
    assert.equal(error.code, 'model_starting');
    assert.match(error.message, /is starting/);
    assert.equal(error.facts.retryAfterMs, 30_000);
    return true;
  });
  const submits = site.globus.count(SUBMIT);
  await waitFor(() => site.globus.count(SUBMIT) >= submits);
  await site.globus.warm(ENDPOINT);
  assert.equal(await first, 'ok');
  await site.until((sites) => sites.stateOf(SLUG).state === 'running');
  assert.equal(await answered(), 'ok');
});

test('an endpoint that is offline is no holder of its model, and is one again when it is back', async () => {
  const endpoint = site.globus.endpoints.get(ENDPOINT);
  assert.ok(endpoint !== undefined);
  endpoint.status = 'offline';
  await refreshed((sites) => sites.stateOf(SLUG).state === 'offline');
  assert.deepEqual([site.sites.holders(MODEL), site.sites.models()], [[], []]);
  assert.equal(site.sites.list()[0]?.status, 'offline');
  endpoint.status = 'online';
  await refreshed((sites) => sites.holders(MODEL).length === 1);
});

test('a service that is down at the start is waited for', async () => {
  const late = await StandInSite.start();
  try {
    const port = Number(new URL(late.globus.url).port);
    await late.globus.stop();
    late.fixtures.set([]);
    late.fixtures.set([endpointFixture(Number(new URL(late.server.url).port))]);
    await late.until((sites) => sites.stateOf(SLUG).state === 'offline');
    assert.match(late.sites.list()[0]?.problem ?? '', /cannot be reached/);
    await late.globus.listen(port);
    await late.until((sites) => sites.stateOf(SLUG).state === 'running');
  } finally {
    await late.stop();
  }
});

test('a wrong secret is told as what it is, without the secret; a right one is used at once', async () => {
  const wrong = await StandInSite.start({
    env: { SERVICE_ACCOUNT_ID: ACCOUNT.id, SERVICE_ACCOUNT_SECRET: 'wr0ng-secret' },
  });
  try {
    await wrong.until((sites) => sites.list()[0]?.status === 'unauthorized');
    const [view] = wrong.sites.list();
    assert.match(view?.problem ?? '', /service account/);
    assert.doesNotMatch(JSON.stringify(wrong.sites.list()), /wr0ng/);
    wrong.secrets.set('globus/sophia', JSON.stringify(ACCOUNT));
    await wrong.until((sites) => sites.stateOf(SLUG).state === 'running');
    wrong.server.reply = json(200, completion('ok'));
    assert.equal(textOf(await collect(ask(wrong))), 'ok');
  } finally {
    await wrong.stop();
  }
});

test('what the queue of a cluster says of a model comes before what its endpoint says', async () => {
  const withQueue = await StandInSite.start({ entries: (port) => [CLUSTER, endpointFixture(port)] });
  try {
    const { globus } = withQueue;
    globus.endpoints.set(QSTAT_ENDPOINT, { status: 'online', managers: 1, allowed: [QSTAT_FUNCTION] });
    const job = { Models: `other-model,${MODEL}`, Framework: 'vllm', Cluster: 'sophia', 'Model Status': 'starting' };
    const jobs = { running: [job], queued: [], others: [], cluster_status: { free_nodes: 3 } };
    globus.functions.set(
      QSTAT_FUNCTION,
      qstatFunction(() => jobs),
    );
    withQueue.fixtures.set([]);
    withQueue.fixtures.set([CLUSTER, endpointFixture(Number(new URL(withQueue.server.url).port))]);
    await withQueue.until((sites) => sites.stateOf(SLUG).freeNodes === 3);
    assert.equal(withQueue.sites.stateOf(SLUG).state, 'queued');
  } finally {
    await withQueue.stop();
  }
});

test('a hundred tasks that wait at once stay within the limit of the service', async () => {
  site.globus.isRunning = false;
  const all = Promise.all(Array.from({ length: 100 }, answered));
  const polls = site.globus.count(POLL);
  await waitFor(() => site.globus.count(POLL) > polls + 3);
  site.globus.isRunning = true;
  await site.globus.run();
  assert.equal((await all).filter((text) => text === 'ok').length, 100);
  assert.ok(site.globus.count(STATUS) > 0);
});

/** The endpoint's status is asked for at once, as after trouble. */
async function refreshed(fits: Parameters<StandInSite['until']>[0]): Promise<void> {
  site.sites.drop(`globus:${SLUG}`, MODEL);
  await site.until(fits);
}

/** Of the stand-in, which has no events of its own. */
async function waitFor(isSo: () => boolean): Promise<void> {
  const giveUpAt = performance.now() + 20_000;
  while (!isSo()) {
    assert.ok(performance.now() < giveUpAt, 'it did not happen');
    await new Promise((resolve) => setImmediate(resolve));
  }
}
