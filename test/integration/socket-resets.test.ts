/** Connections that are reset at every step of an upload, a download and a push: nothing is left, and the node lives. */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { CallbackInbox } from '../../node/api/resource-server/callback-inbox.ts';
import { systemClock } from '../../node/common/clock.ts';
import { Federation } from '../../node/routing/federation.ts';
import { FirstParts } from '../support/first-parts.ts';
import { idleBatches } from '../support/idle-batches.ts';
import { openSocket } from '../support/raw-http.ts';
import { type ScriptedFacade, startFacade } from '../support/scripted-facade.ts';

const FILE_BYTES = 200_000;

const batches = idleBatches();
const { service } = batches;
const inbox = new CallbackInbox({ clock: systemClock }, { publicUrl: 'http://node.example', secret: null });
let facade: ScriptedFacade;
const uncaught: unknown[] = [];
const note = (error: unknown): void => void uncaught.push(error);

before(async () => {
  process.on('unhandledRejection', note).on('uncaughtException', note);
  const parts = new FirstParts({});
  const federation = new Federation({ fixtures: parts, states: parts, clock: systemClock });
  facade = await startFacade({}, {}, { batches: service, streamCallbacks: inbox, federation });
  await service.upload('first.jsonl', once('{}'));
});
after(async () => {
  await facade.stop();
  await batches.remove();
  process.off('unhandledRejection', note).off('uncaughtException', note);
});

async function* once(text: string): AsyncGenerator<Uint8Array> {
  yield Buffer.from(text);
}

const turns = async (count: number): Promise<void> => {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
};

/** Sends so much of it, lets it arrive, and resets the connection. */
async function sendPart(bytes: Buffer, count: number): Promise<void> {
  const socket = await openSocket(facade.port);
  await new Promise((resolve) => socket.write(bytes.subarray(0, count), resolve));
  await turns(5);
  socket.resetAndDestroy();
  await turns(2);
}

function post(route: string, type: string, body: string, headers: readonly string[] = []): Buffer {
  const lines = [`POST ${route} HTTP/1.1`, `Host: 127.0.0.1:${facade.port}`, `Content-Type: ${type}`, ...headers];
  return Buffer.from([...lines, `Content-Length: ${Buffer.byteLength(body)}`, '', body].join('\r\n'));
}

/** Alive, with one file, and nothing thrown past everybody. */
async function allIsWell(): Promise<void> {
  for (let tries = 0; batches.stored().length !== service.listFiles({ limit: 100 }).length; tries += 1) {
    assert.ok(tries < 500, `left over: ${batches.stored().join(', ')}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.equal((await fetch(`${facade.url}/v1/models`)).status, 200);
  assert.deepEqual(uncaught, []);
}

test('an upload that is reset at any byte leaves nothing', async () => {
  const part = (name: string, content: string, more = ''): string =>
    `--x\r\nContent-Disposition: form-data; name="${name}"${more}\r\n\r\n${content}\r\n`;
  const file = part('file', '{"a":1}\n'.repeat(200), '; filename="in.jsonl"');
  const forms = [
    post('/v1/files', 'multipart/form-data; boundary=x', `${part('purpose', 'batch')}${file}--x--\r\n`),
    post('/v1/files', 'multipart/form-data; boundary=x', `${file}${part('purpose', 'batch')}--x--\r\n`),
    post('/v1/files', 'multipart/form-data; boundary=x', `${part('other', 'x', '; filename="o"')}--x--\r\n`),
    post('/v1/files?purpose=batch', 'application/jsonl', '{"a":1}\n'.repeat(200)),
  ];
  for (const form of forms) {
    const head = form.indexOf('\r\n\r\n');
    const body = form.length - head;
    const cuts = [10, head, head + 4, head + 8, head + 40, head + 90, head + 160, head + Math.floor(body / 2)];
    for (const count of [...cuts, form.length - 12, form.length - 3, form.length - 1]) await sendPart(form, count);
  }
  await allIsWell();
});

test('an upload that never comes to its file is ended', async () => {
  const socket = await openSocket(facade.port);
  const type = 'Content-Type: multipart/form-data; boundary=x\r\nTransfer-Encoding: chunked';
  socket.write(`POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1:${facade.port}\r\n${type}\r\n\r\n`);
  const piece = Buffer.concat([Buffer.from('100000\r\n'), Buffer.alloc(2 ** 20, 'a'), Buffer.from('\r\n')]);
  for (let sent = 0; !socket.destroyed; sent += 1) {
    assert.ok(sent < 1000, 'it would go on for ever');
    await new Promise((resolve) => socket.write(piece, resolve));
  }
  await allIsWell();
});

test('a download that is reset, or whose file is gone, ends alone', async () => {
  const { id } = await service.upload('large.jsonl', once('x'.repeat(FILE_BYTES * 50)));
  for (let index = 0; index < 5; index += 1) {
    const socket = await openSocket(facade.port);
    socket.write(`GET /v1/files/${id}/content HTTP/1.1\r\nHost: 127.0.0.1:${facade.port}\r\n\r\n`);
    if (index > 0) await new Promise((resolve) => socket.once('data', resolve));
    socket.resetAndDestroy();
  }
  rmSync(service.path(id));
  const response = await fetch(`${facade.url}/v1/files/${id}/content`);
  assert.equal(response.status, 500);
  assert.match(await response.text(), /"error"/);
  await service.removeFile(id);
  await allIsWell();
});

test('a push that is reset at any byte is only a push that did not come', async () => {
  const { token, chunks, close } = inbox.open('task');
  const body = JSON.stringify({ task_id: 'task', data: `data: ${'x'.repeat(2000)}` });
  const push = post('/resource_server/api/streaming/data', 'application/json', body, [`X-Stream-Task-Token: ${token}`]);
  const head = push.indexOf('\r\n\r\n');
  for (const count of [10, head, head + 4, head + 20, push.length - 1]) await sendPart(push, count);
  const socket = await openSocket(facade.port);
  socket.end(push);
  const { value } = await chunks[Symbol.asyncIterator]().next();
  assert.equal(value, `data: ${'x'.repeat(2000)}`);
  socket.resetAndDestroy();
  close();
  assert.equal(inbox.size, 0);
  await allIsWell();
});

test('pushes of nothing do not pile up', async () => {
  const { token, chunks, close } = inbox.open('empty');
  for (let index = 0; index < 1000; index += 1) inbox.data({ taskId: 'empty', token }, '');
  inbox.data({ taskId: 'empty', token }, 'data: x');
  assert.deepEqual(await chunks[Symbol.asyncIterator]().next(), { done: false, value: 'data: x' });
  close();
});
