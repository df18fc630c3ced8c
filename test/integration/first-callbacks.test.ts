/** Where remote functions push streamed answers: the routes over HTTP, and what whoever waits reads. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { type TestContext, test } from 'node:test';
import { CallbackInbox } from '../../node/api/resource-server/callback-inbox.ts';
import type { MeshError } from '../../node/common/errors.ts';
import { openStreamCallbacks } from '../../node/node-federation.ts';
import { startFirstFace } from '../support/first-face.ts';
import { ManualClock } from '../support/manual-clock.ts';

const SECRET = 'a-secret-of-the-owner';

async function callbacks(t: TestContext, { secret = SECRET as string | null } = {}) {
  const clock = new ManualClock();
  const inbox = new CallbackInbox({ clock }, { publicUrl: 'http://node.example:8443', secret });
  const face = await startFirstFace({ fixtures: {}, facade: { apiKey: 'the-key' }, views: { streamCallbacks: inbox } });
  t.after(() => face.stop());
  const post = async (
    name: string,
    body: object,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<readonly [number, string]> => {
    const response = await fetch(`${face.url}/api/streaming/${name}/`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-internal-secret': SECRET, ...headers },
      body: JSON.stringify(body),
    });
    const told = (await response.json()) as { status?: string; error?: { code: string } };
    return [response.status, told.status ?? told.error?.code ?? ''];
  };
  return { clock, inbox, post, url: face.url, port: face.facade.port };
}

async function all(chunks: AsyncIterable<string>): Promise<string[]> {
  const read: string[] = [];
  for await (const chunk of chunks) read.push(chunk);
  return read;
}

const OK = [200, 'ok'] as const;

test('F-2 pieces that are pushed reach whoever waits at once and in order, without the key of the facade', async (t) => {
  const { inbox, post } = await callbacks(t);
  const { token, chunks, close } = inbox.open('t1');
  const own = { 'x-stream-task-token': token };
  const first = chunks[Symbol.asyncIterator]().next();
  assert.deepEqual(await post('data', { task_id: 't1', data: 'data: 1\ndata: 2', type: 'data' }, own), OK);
  assert.deepEqual(await first, { done: false, value: 'data: 1\ndata: 2' });
  assert.deepEqual(await post('data', { task_id: 't1', data: 'data: 3' }, own), OK);
  assert.deepEqual(await post('done', { task_id: 't1', type: 'done' }, own), OK);
  assert.deepEqual(await post('data', { task_id: 't1', data: 'late' }, own), OK, 'what is late is dropped');
  assert.deepEqual(await all(chunks), ['data: 3']);
  close();
  assert.deepEqual(await post('done', { task_id: 't1' }, own), [404, 'endpoint_not_found']);
  assert.equal(inbox.size, 0);
});

test('F-2 a wrong secret, a wrong token and an unknown task are told apart', async (t) => {
  const { inbox, post } = await callbacks(t);
  const { token, close } = inbox.open('t1');
  t.after(close);
  const body = { task_id: 't1', data: 'x' };
  const own = { 'x-stream-task-token': token };
  for (const headers of [{ 'x-internal-secret': 'default-secret-change-me' }, { 'x-internal-secret': '' }]) {
    assert.deepEqual(await post('data', body, { ...own, ...headers }), [401, 'unauthorized']);
  }
  assert.deepEqual(await post('data', body), [401, 'unauthorized']);
  assert.deepEqual(await post('data', body, { 'x-stream-task-token': `${token}x` }), [401, 'unauthorized']);
  assert.deepEqual(await post('data', { ...body, task_id: 'other' }, own), [404, 'endpoint_not_found']);
  assert.deepEqual(await post('data', { task_id: 't1', data: 1 }, own), [400, 'invalid_request']);
  assert.deepEqual(await post('data', { data: 'x' }, own), [400, 'invalid_request']);
  assert.deepEqual(await post('data', body, own), OK);
});

test('F-2 without a secret of the owner’s the token of the task alone proves who pushes', async (t) => {
  const { inbox, post } = await callbacks(t, { secret: null });
  const { token, close } = inbox.open('t1');
  t.after(close);
  const published = { 'x-internal-secret': 'default-secret-change-me' };
  assert.deepEqual(
    await post('data', { task_id: 't1', data: 'x' }, { ...published, 'x-stream-task-token': token }),
    OK,
  );
  assert.deepEqual(await post('data', { task_id: 't1', data: 'x' }, published), [401, 'unauthorized']);
});

test('F-2 data of more than 150 kB and control messages of more than 15 kB are refused', async (t) => {
  const { inbox, post } = await callbacks(t);
  const { token, close } = inbox.open('t1');
  t.after(close);
  const own = { 'x-stream-task-token': token };
  assert.deepEqual(await post('data', { task_id: 't1', data: 'x'.repeat(149_000) }, own), OK);
  assert.equal((await post('data', { task_id: 't1', data: 'x'.repeat(151_000) }, own))[0], 413);
  assert.equal((await post('error', { task_id: 't1', error: 'x'.repeat(16_000) }, own))[0], 413);
});

test('F-2 what a remote function reports as an error is thrown after the pieces that came before', async (t) => {
  const { inbox, post } = await callbacks(t);
  const { token, chunks, close } = inbox.open('t1');
  t.after(close);
  const own = { 'x-stream-task-token': token };
  await post('data', { task_id: 't1', data: 'data: 1' }, own);
  const error = 'API request failed with status code: 429\nResponse text: slow down';
  assert.deepEqual(await post('error', { task_id: 't1', error, type: 'error' }, own), OK);
  const read: string[] = [];
  await assert.rejects(
    async () => {
      for await (const chunk of chunks) read.push(chunk);
    },
    { code: 'rate_limited' },
  );
  assert.deepEqual(read, ['data: 1']);
});

test('F-2 data must begin within 30 s, the answer end within 300 s, and the task is forgotten after 600 s', async () => {
  const clock = new ManualClock();
  const inbox = new CallbackInbox({ clock }, { publicUrl: 'https://node.example', secret: null });
  const silent = inbox.open('silent');
  const slow = inbox.open('slow');
  assert.equal(inbox.data({ taskId: 'slow', token: slow.token }, 'data: 1'), 'taken');
  const failed = assert.rejects(all(silent.chunks), { code: 'first_token_timeout' });
  clock.advance(30_000);
  await failed;
  const tooSlow = assert.rejects(all(slow.chunks), { code: 'request_timeout' });
  clock.advance(270_000);
  await tooSlow;
  assert.equal(inbox.data({ taskId: 'slow', token: slow.token }, 'late'), 'dropped');
  clock.advance(300_000);
  assert.equal(inbox.data({ taskId: 'slow', token: slow.token }, 'late'), 'gone');
  assert.equal(inbox.size, 0);
});

test('F-2 a piece whose sender got no reply and sends it again is taken once; equal pieces otherwise are all taken', async () => {
  const inbox = new CallbackInbox({ clock: new ManualClock() }, { publicUrl: 'https://node.example', secret: null });
  const { token, chunks } = inbox.open('t');
  const push = { taskId: 't', token };
  assert.equal(inbox.data(push, 'ha'), 'taken');
  assert.equal(inbox.data(push, 'ha'), 'taken');
  inbox.unconfirmed({ ...push, token: 'of a stranger' }, 'ha');
  assert.equal(inbox.data(push, 'ha'), 'taken');
  inbox.unconfirmed(push, 'ha');
  assert.equal(inbox.data(push, 'ha'), 'dropped');
  assert.equal(inbox.data(push, 'ha'), 'taken');
  inbox.unconfirmed(push, 'ha');
  assert.equal(inbox.data(push, 'other'), 'taken');
  assert.equal(inbox.data(push, 'ha'), 'taken');
  assert.equal(inbox.end(push, null), 'taken');
  assert.equal(inbox.end(push, null), 'dropped');
  assert.deepEqual(await all(chunks), ['ha', 'ha', 'ha', 'ha', 'other', 'ha']);
});

test('F-2 tasks that are open are bounded, and so is what nobody reads', async () => {
  const inbox = new CallbackInbox({ clock: new ManualClock() }, { publicUrl: 'https://node.example', secret: null });
  const { token, chunks } = inbox.open('t');
  const push = { taskId: 't', token };
  const piece = 'x'.repeat(100_000);
  let pushed = 0;
  while (inbox.data(push, piece) === 'taken') pushed += 1;
  assert.ok(pushed > 50 && pushed < 150, `${pushed} pieces`);
  await assert.rejects(all(chunks), { code: 'client_closed' });
  for (let i = 1; i < 1024; i += 1) inbox.open(`t${i}`);
  assert.throws(() => inbox.open('one more'), { code: 'overloaded' });
});

test('whoever stops reading does not wait for the next piece', async () => {
  const inbox = new CallbackInbox({ clock: new ManualClock() }, { publicUrl: 'https://node.example', secret: null });
  const { chunks, token } = inbox.open('t');
  const reader = chunks[Symbol.asyncIterator]();
  const next = reader.next();
  await reader.return?.();
  assert.equal((await next).done, true);
  assert.equal(inbox.data({ taskId: 't', token }, 'x'), 'dropped');
});

test('F-2 the secret that FIRST publishes is refused, and without a public URL there are no routes', async (t) => {
  const clock = new ManualClock();
  assert.throws(
    () => new CallbackInbox({ clock }, { publicUrl: 'https://n', secret: 'default-secret-change-me' }),
    (error: MeshError) => error.code === 'invalid_request' && error.message.includes('INTERNAL_STREAMING_SECRET'),
  );
  assert.equal(await openStreamCallbacks({ clock }, { publicUrl: null, secretFile: null }), null);
  const face = await startFirstFace({ fixtures: {} });
  t.after(() => face.stop());
  const response = await fetch(`${face.url}/api/streaming/done/`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{}',
  });
  assert.equal(response.status, 404);
});

test('the public URL’s host is one that the facade answers to', async (t) => {
  const { port } = await callbacks(t);
  const status = await new Promise<string>((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('data', (bytes) => {
      socket.destroy();
      resolve(bytes.toString().split('\r\n', 1)[0] ?? '');
    });
    socket.write('GET /resource_server/health HTTP/1.1\r\nHost: node.example:8443\r\nConnection: close\r\n\r\n');
  });
  assert.equal(status, 'HTTP/1.1 200 OK');
});
