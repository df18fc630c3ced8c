/** Models that a cluster starts by itself, against the strict stand-in: what is asked of it, and what clients see. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../node/common/errors.ts';
import type { InferenceEvent } from '../../protocols/inference/events.ts';
import { clusterAnswer } from '../support/cluster-manager/app-proxy.ts';
import { KEYPAIR } from '../support/cluster-manager/manager.ts';
import {
  chatRequest,
  type ProvisioningBench,
  provisioningBench,
  provisioningFacade,
  textOf,
} from '../support/cluster-manager/provisioning.ts';

const MODEL = 'llama-3-70b';
const { signal } = new AbortController();

async function ask(
  { gateway }: ProvisioningBench,
  question: string,
  options: { stream?: boolean; model?: string } = {},
) {
  const { model = MODEL, ...rest } = options;
  const [holder] = gateway.holders(model);
  assert.ok(holder, `somebody has ${model}`);
  const events: InferenceEvent[] = [];
  for await (const event of holder.backend.infer(chatRequest(model, question, rest), { signal })) events.push(event);
  return events;
}

async function refused(asked: Promise<unknown>): Promise<MeshError> {
  return await asked.then(
    () => assert.fail('it was answered'),
    (error: MeshError) => error,
  );
}

test('C-5 a model that runs nowhere is started at its first use, once for all who wait', async (context) => {
  const bench = await provisioningBench(context);
  const { manager, gateway, rule } = bench;
  assert.deepEqual(gateway.holders(MODEL), [], 'nothing starts by itself without a rule');
  manager.services.rules.provisionMs = 300;
  const { service } = await rule();
  const [holder] = gateway.holders(MODEL);
  assert.deepEqual(
    [holder?.suspect, holder?.entry.state, holder?.place?.boundary],
    [true, 'on-disk', 'private-cluster'],
  );
  assert.equal(holder?.backend.id, `cluster:lab/${service}`);
  assert.deepEqual(
    gateway.models().map(({ entry }) => entry.id),
    [MODEL],
  );
  const answers = await Promise.all(['one', 'two', 'three'].map((question) => ask(bench, question)));
  for (const [index, question] of ['one', 'two', 'three'].entries()) {
    const events = answers[index] ?? [];
    assert.equal(events[0]?.type, 'progress', 'who waits is told that something happens');
    assert.equal(textOf(events), clusterAnswer(MODEL, question));
  }
  const creations = manager.called.filter(({ method, path }) => method === 'POST' && path === '/services');
  assert.equal(creations.length, 1);
  const { name, desired_session_count, tag } = JSON.parse(creations[0]?.body ?? '{}') as Record<string, unknown>;
  assert.deepEqual({ name, desired_session_count, tag }, { name: service, desired_session_count: 1, tag: 'meshnode' });
  const [live] = gateway.holders(MODEL);
  assert.deepEqual([live?.suspect, live?.entry.state], [false, 'resident']);
  assert.notEqual((await ask(bench, 'again'))[0]?.type, 'progress');
});

test('C-5 who does not stream is told when to come back, and the start goes on without him', async (context) => {
  const bench = await provisioningBench(context);
  const { manager, gateway, rule, until } = bench;
  manager.services.rules.provisionMs = 500;
  await rule({ waitMs: 50 });
  const error = await refused(ask(bench, 'hi', { stream: false }));
  assert.equal(error.code, 'model_starting');
  assert.match(error.message, /being started on the cluster lab, for \d+ s so far.*Retry-After/);
  assert.ok((error.facts.retryAfterMs ?? 0) >= 5000);
  await until(() => gateway.holders(MODEL)[0]?.suspect === false);
  assert.equal(textOf(await ask(bench, 'hi', { stream: false })), clusterAnswer(MODEL, 'hi'));
});

test('a client that leaves ends nothing but its own wait', async (context) => {
  const bench = await provisioningBench(context);
  const { manager, gateway, rule, until } = bench;
  manager.services.rules.provisionMs = 300;
  await rule();
  const leaving = new AbortController();
  const reason = new Error('left');
  const [holder] = gateway.holders(MODEL);
  const events = holder?.backend.infer(chatRequest(MODEL, 'hi'), { signal: leaving.signal });
  await assert.rejects(async () => {
    for await (const event of events ?? []) if (event.type === 'progress') leaving.abort(reason);
  }, reason);
  await until(() => gateway.holders(MODEL)[0]?.suspect === false);
});

test('C-5 a start that fails is told, not tried again at once, and leaves nothing running', async (context) => {
  const bench = await provisioningBench(context);
  const { manager, gateway, rule } = bench;
  manager.services.rules.fails = 'ImageNotFound: vllm:latest';
  await rule();
  const error = await refused(ask(bench, 'hi'));
  assert.equal(error.code, 'model_starting');
  assert.match(error.message, /could not be started on lab: its replica did not start: ImageNotFound/);
  assert.ok((error.facts.retryAfterMs ?? 0) > 10_000, 'the back-off');
  assert.equal(manager.services.all[0]?.desired, 0);
  const asked = manager.calls('POST', '/services').length;
  const again = await refused(ask(bench, 'hi'));
  assert.equal(again.message, error.message);
  assert.equal(manager.calls('POST', '/services').length, asked);
  const [view] = gateway.list().filter(({ fingerprint }) => fingerprint.includes('/'));
  assert.deepEqual([view?.status, view?.problem], ['suspect', error.message]);
});

test('C-5 the quota of the cluster, and the limit of the rule, stop a start with what to do', async (context) => {
  const bench = await provisioningBench(context);
  const { manager, rule } = bench;
  manager.services.folders.push({ id: 'f9', name: 'qwen', usage_mode: 'model' });
  await rule({ maxRunning: 1 });
  await rule({ model: 'qwen', maxRunning: 1 });
  await ask(bench, 'hi');
  const over = await refused(ask(bench, 'hi', { model: 'qwen' }));
  assert.match(over.message, /the limit is 1: park one \(meshnode cluster service scale lab mesh-llama/);
  await rule({ model: 'qwen', maxRunning: 2 });
  manager.services.rules.maxReplicas = 1;
  const quota = await refused(ask(bench, 'hi', { model: 'qwen' }));
  assert.match(quota.message, /resource limit.*at most 1 replicas/);
});

test('C-5 of two models that are asked for at once, within a limit of one, the first one is started', async (context) => {
  const bench = await provisioningBench(context);
  const { manager, rule } = bench;
  manager.services.folders.push({ id: 'f9', name: 'qwen', usage_mode: 'model' });
  await rule({ maxRunning: 1 });
  await rule({ model: 'qwen', maxRunning: 1 });
  const [first, second] = await Promise.allSettled([ask(bench, 'hi'), ask(bench, 'hi', { model: 'qwen' })]);
  assert.equal(first.status === 'fulfilled' && textOf(first.value), clusterAnswer(MODEL, 'hi'));
  assert.equal(second.status, 'rejected');
  assert.equal(manager.services.all.length, 1);
});

test('C-5 an unused service is scaled to zero, a used one is not, and the next use starts it again', async (context) => {
  const bench = await provisioningBench(context);
  const { manager, rule, until, gateway } = bench;
  await rule({ idleMs: 400 });
  manager.app.faults.chunkMs = 150;
  assert.equal(
    textOf(await ask(bench, 'a long answer, longer than idle')),
    clusterAnswer(MODEL, 'a long answer, longer than idle'),
  );
  const [service] = manager.services.all;
  manager.app.faults.chunkMs = 0;
  assert.equal(service?.desired, 1, 'the answer took longer than the idle time');
  await until(() => gateway.holders(MODEL)[0]?.suspect === true && service.desired === 0);
  assert.equal(textOf(await ask(bench, 'once more')), clusterAnswer(MODEL, 'once more'));
  assert.equal(manager.services.all.length, 1, 'the same service');
});

test('a service that somebody scales to zero is started again for the request that finds it so', async (context) => {
  const bench = await provisioningBench(context);
  const { manager, rule, until, gateway } = bench;
  const theirs = manager.addService('their-llama', MODEL);
  await rule({ image: null, service: 'their-llama' });
  await until(() => gateway.holders(MODEL)[0]?.suspect === false);
  theirs.desired = 0;
  theirs.active = 0;
  assert.equal(textOf(await ask(bench, 'hello')), clusterAnswer(MODEL, 'hello'));
  assert.equal(manager.services.all.length, 1);
  assert.equal(theirs.desired, 1);
});

test('a manager that is away for a moment does not end a start', async (context) => {
  const bench = await provisioningBench(context);
  const { manager, rule } = bench;
  manager.services.rules.provisionMs = 400;
  await rule();
  const answer = ask(bench, 'hi');
  while (manager.services.all.length === 0) await new Promise((resolve) => setImmediate(resolve));
  manager.faults.down = true;
  const before = manager.called.length;
  while (manager.called.length < before + 2) await new Promise((resolve) => setImmediate(resolve));
  manager.faults.down = false;
  assert.equal(textOf(await answer), clusterAnswer(MODEL, 'hi'));
});

test('a rule that is taken away, and a cluster that is forgotten, release who waits', async (context) => {
  const bench = await provisioningBench(context);
  const { manager, rule, rules, registry, gateway } = bench;
  manager.services.rules.provisionMs = null;
  await rule();
  const waiting = refused(ask(bench, 'hi'));
  while (manager.services.all.length === 0) await new Promise((resolve) => setImmediate(resolve));
  await rules.remove('lab', MODEL);
  assert.equal((await waiting).code, 'model_starting');
  assert.deepEqual(gateway.holders(MODEL), []);
  await rule({ model: 'other-model', image: 'vllm' });
  assert.equal(gateway.holders('other-model').length, 1);
  await registry.remove('lab');
  assert.deepEqual([gateway.holders('other-model'), gateway.models(), gateway.list()], [[], [], []]);
});

const asking = (stream: boolean): RequestInit => ({
  method: 'POST',
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ model: MODEL, stream, messages: [{ role: 'user', content: 'hi' }] }),
});

test('C-5 over HTTP a stream shows comments until the model runs, and a whole answer a 503 with Retry-After', async (context) => {
  const bench = await provisioningBench(context);
  const url = await provisioningFacade(context, bench, { headerWaitMs: 50, waitingCommentMs: 40 });
  bench.manager.services.rules.provisionMs = 1200;
  await bench.rule({ waitMs: 300 });
  const listed = (await (await fetch(`${url}/v1/models`)).json()) as { data: { id: string }[] };
  assert.deepEqual(
    listed.data.map(({ id }) => id),
    [MODEL],
  );
  const streamed = fetch(`${url}/v1/chat/completions`, asking(true)).then((response) => response.text());
  const late = await fetch(`${url}/v1/chat/completions`, asking(false));
  assert.equal(late.status, 503);
  assert.ok(Number(late.headers.get('retry-after')) >= 5);
  const { error } = (await late.json()) as { error: { code: string; message: string } };
  assert.equal(error.code, 'model_starting');
  assert.match(error.message, /being started on the cluster lab/);
  const text = await streamed;
  assert.match(text, /^: queued\n/);
  const deltas = [...text.matchAll(/"content":"([^"]*)"/g)].map(([, content]) => content);
  assert.equal(deltas.join(''), clusterAnswer(MODEL, 'hi'));
  assert.match(text, /data: \[DONE\]\n\n$/);
  const whole = (await (await fetch(`${url}/v1/chat/completions`, asking(false))).json()) as {
    choices: { message: { content: string } }[];
  };
  assert.equal(whole.choices[0]?.message.content, clusterAnswer(MODEL, 'hi'));
});

test('C-5 C-16 nothing is started for a request that may not leave the mesh', async (context) => {
  const bench = await provisioningBench(context);
  const url = await provisioningFacade(context, bench);
  await bench.rule();
  const ask = asking(false);
  const headers = { ...ask.headers, 'x-meshnode-boundary': 'mesh' };
  const refusal = await fetch(`${url}/v1/chat/completions`, { ...ask, headers });
  assert.equal(refusal.status, 503);
  assert.deepEqual(bench.manager.services.all, []);
});

test('C-5 who is not let wait is told at once, and the service is not blamed for it', async (context) => {
  const bench = await provisioningBench(context);
  bench.manager.services.rules.provisionMs = null;
  await bench.rule();
  const [holder] = bench.gateway.holders(MODEL);
  const late = new AbortController();
  const asked = refused(
    Array.fromAsync(holder?.backend.infer(chatRequest(MODEL, 'hi'), { signal: late.signal }) ?? []),
  );
  late.abort(new MeshError('first_token_timeout', 'too long'));
  assert.equal((await asked).code, 'model_starting');
});

test('C-8 a model that waits to be started has the place that its cluster was given, and is shared only with it', async (context) => {
  const { manager, gateway, registry, rule, until } = await provisioningBench(context);
  await rule();
  assert.equal(gateway.holders(MODEL)[0]?.shared, false);
  const { accessKey, secretKey } = KEYPAIR;
  const cluster = { name: 'lab', endpoint: manager.url, accessKey, allowHttp: true, priority: 7, share: true };
  await registry.add(cluster, secretKey);
  await until(() => gateway.holders(MODEL)[0]?.shared === true);
  assert.deepEqual(gateway.holders(MODEL)[0]?.place, { priority: 7, boundary: 'private-cluster' });
  assert.equal(gateway.models()[0]?.shared, true);
  const [view] = gateway.list().filter(({ name }) => name.startsWith('lab/mesh-'));
  assert.deepEqual([view?.kind, view?.status, view?.models[0]?.state], ['cluster', 'online', 'on-disk']);
});
