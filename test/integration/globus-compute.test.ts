/** Models behind Globus Compute, asked through a stand-in of its services that refuses whatever they refuse. */
import assert from 'node:assert/strict';
import { after, before, beforeEach, test } from 'node:test';
import type { InferenceEvent } from '../../protocols/inference/events.ts';
import { firstFunction } from '../support/globus-stand-in-functions.ts';
import { ask, chat, collect, completion, requestOf, textOf } from '../support/globus-stand-in-requests.ts';
import { ENDPOINT, FUNCTION, MODEL, SLUG, StandInSite } from '../support/globus-stand-in-site.ts';
import { json, refusal } from '../support/openai-server.ts';

let site: StandInSite;

before(async () => {
  site = await StandInSite.start();
});

beforeEach(async () => {
  site.server.reply = json(200, completion('Hello there 👋'));
  const endpoint = site.globus.endpoints.get(ENDPOINT);
  if (endpoint !== undefined) Object.assign(endpoint, { status: 'online', managers: 1 });
  site.globus.isRunning = true;
  site.globus.functions.set(FUNCTION, firstFunction());
  await site.until((sites) => sites.stateOf(SLUG).state === 'running');
});

after(() => site.stop());

test('a chat request is answered by the function at the endpoint', async () => {
  const events = await collect(ask(site, chat({ temperature: 0, messages: [{ role: 'user', content: 'Grüße 👋' }] })));
  const asked = JSON.parse(site.server.inferences.at(-1)?.body ?? '') as Record<string, unknown>;
  assert.equal(site.server.inferences.at(-1)?.path, '/v1/chat/completions');
  assert.deepEqual(asked, { model: MODEL, temperature: 0, messages: [{ role: 'user', content: 'Grüße 👋' }] });
  assert.equal(textOf(events), 'Hello there 👋');
  const accepted = events.find(({ type }) => type === 'accepted');
  assert.deepEqual(accepted, {
    type: 'accepted',
    node: `globus:${SLUG}`,
    promptTokens: 0,
    promptDigest: '',
    artifact: null,
  });
  const end = events.at(-1);
  assert.ok(end?.type === 'end');
  assert.deepEqual(end.usage, { promptTokens: 7, completionTokens: 3, cachedTokens: 0 });
  assert.deepEqual(end.finishReasons, ['stop']);
});

test('what the client says of ports, calls and push targets does not reach the function', async () => {
  await collect(
    ask(site, chat({ openai_endpoint: '../../admin', api_port: 1, stream_task_token: 'x', model: 'another' })),
  );
  const asked = site.server.inferences.at(-1);
  assert.equal(asked?.path, '/v1/chat/completions');
  assert.deepEqual(JSON.parse(asked?.body ?? ''), { model: MODEL, messages: [] });
});

test('a request for a stream is answered in one piece where nothing can be pushed back', async () => {
  const events = await collect(ask(site, chat({ stream: true, stream_options: { include_usage: true } })));
  assert.deepEqual(JSON.parse(site.server.inferences.at(-1)?.body ?? ''), { model: MODEL, messages: [] });
  assert.equal(events.filter(({ type }) => type === 'chunk').length, 1);
  assert.equal(textOf(events), 'Hello there 👋');
});

test('embeddings come as the model server gave them, without what the function adds', async () => {
  const list = { object: 'list', data: [{ object: 'embedding', index: 0, embedding: [0.5, -0.25] }], model: MODEL };
  site.server.reply = json(200, { ...list, usage: { prompt_tokens: 2, total_tokens: 2 } });
  const events = await collect(ask(site, requestOf('embedding', { input: 'x' })));
  assert.equal(site.server.inferences.at(-1)?.path, '/v1/embeddings');
  const result = events.find((event) => event.type === 'result');
  assert.deepEqual(JSON.parse(Buffer.from(result?.body ?? []).toString()), {
    ...list,
    usage: { prompt_tokens: 2, total_tokens: 2 },
  });
});

test('signs of life come while a task waits', async () => {
  site.globus.isRunning = false;
  const events = ask(site)[Symbol.asyncIterator]();
  for (let n = 0; n < 3; n += 1) {
    assert.deepEqual((await events.next()).value, { type: 'progress', state: 'queued', fraction: null });
  }
  await site.globus.run();
  const rest: InferenceEvent[] = [];
  for (let next = await events.next(); next.done !== true; next = await events.next()) rest.push(next.value);
  assert.equal(textOf(rest), 'Hello there 👋');
});

test('what the model server refuses is refused by its own status and words', async () => {
  site.server.reply = refusal(400, {
    message: "This model's maximum context length is 8192 tokens",
    type: 'BadRequestError',
    param: null,
    code: 400,
  });
  await assert.rejects(collect(ask(site)), {
    code: 'context_length_exceeded',
    message: /maximum context length is 8192/,
  });
  site.server.reply = refusal(404, {
    message: `The model '${MODEL}' does not exist.`,
    type: 'NotFoundError',
    code: 404,
  });
  await assert.rejects(collect(ask(site)), { code: 'model_not_loaded' });
  site.server.reply = refusal(500, { message: 'CUDA error', type: 'InternalServerError', code: 500 });
  await assert.rejects(collect(ask(site)), { code: 'upstream_error', message: /answered 500/ });
});

test('a function that breaks is told by the kind of its exception, never by a text that may quote the prompt', async () => {
  site.globus.functions.set(FUNCTION, async () => {
    throw new Error('my secret prompt was here');
  });
  await assert.rejects(collect(ask(site)), (error: Error & { code: string }) => {
    assert.equal(error.code, 'upstream_error');
    assert.equal(error.message, `${SLUG}: its function failed (Exception)`);
    return true;
  });
});
