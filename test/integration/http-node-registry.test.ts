import assert from 'node:assert/strict';
import { test } from 'node:test';
import { probeServer } from '../../node/backends/openai-http/model-list.ts';
import { systemClock } from '../../node/common/clock.ts';
import { MeshError } from '../../node/common/errors.ts';
import { answerOf, httpNodesBench, server, settled, statusIs } from '../support/http-nodes-bench.ts';
import { json, OpenAiServer, refusal, reset, streamed } from '../support/openai-server.ts';
import { failing, saying } from '../support/scripted-backend.ts';
import { startFacade } from '../support/scripted-facade.ts';

const KEY = 'sk-canary-0123456789';

test('D-3 D-4 N-5 a registered server is asked at once and then holds its models', async (t) => {
  const { registry, nodes, when } = await httpNodesBench(t);
  const one = await server(t);
  const { fingerprint } = await registry.add(`${one.url}/v1`, { name: 'box' });
  const [view] = await when(statusIs('online'));
  assert.equal(view?.fingerprint, 'api:box');
  assert.equal(view?.url, one.url);
  assert.equal(typeof view?.latencyMs, 'number');
  assert.deepEqual(
    nodes.models().map((model) => [model.fingerprint, model.entry.id]),
    [[fingerprint, 'm']],
  );
  const [holder] = nodes.holders('m');
  assert.equal(holder?.backend.id, fingerprint);
  assert.equal(holder?.backend.kind, 'http');
  assert.equal(holder?.suspect, false);
  assert.deepEqual(nodes.holders('other'), []);
  await registry.remove('box');
  assert.deepEqual([nodes.list(), nodes.models(), nodes.holders('m')], [[], [], []]);
});

test('N-1 another node is used through its facade, for the models that it has itself', async (t) => {
  const { registry, nodes, when } = await httpNodesBench(t);
  const far = await startFacade({
    m: saying(['Hello', ' there']),
    broken: failing(new MeshError('engine_failed', 'boom')),
  });
  t.after(() => far.stop());
  await registry.add(far.url);
  await when(statusIs('online'));
  assert.deepEqual(
    nodes
      .models()
      .map((model) => model.entry.id)
      .toSorted(),
    ['broken', 'm'],
  );
  const body = { model: 'm', stream: true, messages: [{ role: 'user', content: 'Hi' }] };
  for (const stream of [true, false]) {
    const events = await answerOf(nodes, 'm', { ...body, stream });
    assert.equal(events.map((event) => (event.type === 'chunk' ? event.text : '')).join(''), 'Hello there');
    assert.equal(events.at(-1)?.type, 'end');
  }
  assert.equal(far.dispatcher.dispatched[0]?.request.boundary, 'local', 'a request travels one hop');
  await assert.rejects(answerOf(nodes, 'broken', { ...body, model: 'broken' }), { code: 'upstream_error' });
});

test('N-1 a node that has lost a model says so, and holds it no longer', async (t) => {
  const { registry, nodes, when } = await httpNodesBench(t);
  const far = await startFacade({ m: saying(['Hi']) });
  t.after(() => far.stop());
  const { fingerprint } = await registry.add(far.url);
  await when(statusIs('online'));
  far.dispatcher.scripts.delete('m');
  const body = { model: 'm', stream: true, messages: [{ role: 'user', content: 'Hi' }] };
  await assert.rejects(answerOf(nodes, 'm', body), { code: 'model_not_loaded' });
  nodes.drop(fingerprint, 'm');
  assert.deepEqual(nodes.holders('m'), []);
});

test('D-6 D-45 a missing or wrong key makes the node unauthorized, the right one frees it at once', async (t) => {
  const { registry, nodes, when, log } = await httpNodesBench(t);
  const far = await startFacade({ m: saying(['Hi']) }, { apiKey: KEY });
  t.after(() => far.stop());
  const { fingerprint } = await registry.add(far.url, { name: 'box' });
  const [view] = await when(statusIs('unauthorized'));
  assert.match(view?.problem ?? '', /box answered 401: it wants another API key/);
  assert.deepEqual(nodes.models(), []);
  await registry.setKey(fingerprint, `${KEY}-wrong`);
  await registry.setKey(fingerprint, KEY);
  await when(statusIs('online'));
  assert.equal(nodes.models().length, 1);
  assert.equal(JSON.stringify(nodes.list()).includes('canary'), false);
  assert.equal(log().includes('canary'), false);
});

test('D-45 a key that is set while the server is being asked is shown at once after', async (t) => {
  const { registry, nodes, when } = await httpNodesBench(t);
  const one = await server(t);
  const { promise: refused, resolve: refuse } = Promise.withResolvers<void>();
  const { promise: asked, resolve: ask } = Promise.withResolvers<void>();
  const list = one.models;
  one.models = async (response, request) => {
    if (request.headers.authorization === `Bearer ${KEY}`) return list(response, request);
    ask();
    await refused;
    return refusal(401, {})(response, request);
  };
  const { fingerprint } = await registry.add(one.url);
  await asked;
  await registry.setKey(fingerprint, KEY);
  refuse();
  await when(statusIs('online'));
  assert.equal(nodes.models().length, 1);
});

test('D-46 what a server says about a request is in its error, neither in the log nor in the status', async (t) => {
  const { registry, nodes, when, log } = await httpNodesBench(t);
  const one = await server(t);
  await registry.add(one.url);
  await when(statusIs('online'));
  for (const status of [400, 403, 429, 500]) {
    one.reply = refusal(status, { message: 'cannot answer PROMPT-CANARY' });
    await assert.rejects(answerOf(nodes, 'm', {}), /PROMPT-CANARY/);
  }
  assert.equal(JSON.stringify([nodes.list(), log()]).includes('PROMPT-CANARY'), false);
});

test('D-6 a server that lists its models to anybody but refuses requests is unauthorized', async (t) => {
  const { registry, nodes, when } = await httpNodesBench(t);
  const one = await server(t);
  await registry.add(one.url);
  await when(statusIs('online'));
  one.reply = refusal(401, { message: 'no key' });
  await assert.rejects(answerOf(nodes, 'm', {}), { code: 'unauthorized', facts: { httpStatus: 401 } });
  assert.equal(nodes.list()[0]?.status, 'unauthorized');
  assert.deepEqual(nodes.models(), []);
});

test('a server that dies is suspect at the first failure, gone at the second, and back when it answers', async (t) => {
  const { registry, nodes, clock, when } = await httpNodesBench(t);
  const one = await server(t);
  await registry.add(one.url);
  await when(statusIs('online'));
  one.reply = reset();
  one.models = reset();
  await assert.rejects(answerOf(nodes, 'm', {}), { code: 'peer_unreachable' });
  assert.equal(nodes.list()[0]?.status, 'suspect');
  assert.equal(nodes.holders('m')[0]?.suspect, true);
  await settled();
  clock.advance(1000);
  await when(statusIs('offline'));
  assert.deepEqual(nodes.holders('m'), []);
  one.models = json(200, { data: [{ id: 'm' }, { id: 'new' }] });
  one.reply = streamed(['x']);
  await settled();
  clock.advance(2000);
  await when(statusIs('online'));
  assert.equal(nodes.holders('new').length, 1);
});

test('a URL that nothing answers is kept, shown as offline with the reason, and holds nothing up', async (t) => {
  const { registry, nodes } = await httpNodesBench(t);
  const gone = await OpenAiServer.start();
  const { url } = gone;
  await gone.stop();
  await registry.add(url, { name: 'gone' });
  assert.equal(nodes.list()[0]?.status, 'offline');
  assert.deepEqual(nodes.holders('m'), []);
  const probe = probeServer({ clock: systemClock }, { name: 'gone', url, key: KEY, signal: AbortSignal.timeout(5000) });
  await assert.rejects(probe, { code: 'peer_unreachable', message: 'gone cannot be reached (ECONNREFUSED)' });
});

test('N-5 a model list without bound or of another shape makes the node offline, and says why', async (t) => {
  const one = await server(t);
  const probe = () =>
    probeServer({ clock: systemClock }, { name: 'box', url: one.url, key: null, signal: AbortSignal.timeout(5000) });
  assert.deepEqual(
    (await probe()).models.map((model) => model.id),
    ['m'],
  );
  assert.equal(one.asked.at(-1)?.headers.authorization, undefined, 'no key, no header');
  one.models = json(200, ' '.repeat(5 * 1024 * 1024));
  await assert.rejects(probe(), { code: 'upstream_error', message: /more than/ });
  one.models = json(200, '<html>');
  await assert.rejects(probe(), { code: 'upstream_error', message: /no list of models/ });
  one.models = json(302, '', { location: 'http://169.254.169.254/' });
  await assert.rejects(probe(), { code: 'upstream_error', message: /redirect/ });
});

test('stopping ends polls and connections, also twice', async (t) => {
  const { registry, nodes, clock, when } = await httpNodesBench(t);
  const one = await server(t);
  await registry.add(one.url);
  await when(statusIs('online'));
  await nodes.stop();
  await nodes.stop();
  const asked = one.asked.length;
  clock.advance(120_000);
  await registry.add('http://127.0.0.1:9');
  assert.deepEqual(nodes.list(), []);
  assert.equal(one.asked.length, asked);
});
