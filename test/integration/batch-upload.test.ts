/** Uploads: large, slow, too large, cut off. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { after, before, test } from 'node:test';
import OpenAI, { APIError, toFile } from 'openai';
import { idleBatches } from '../support/idle-batches.ts';
import { type ScriptedFacade, startFacade } from '../support/scripted-facade.ts';

const REQUEST_TIMEOUT_MS = 300;
const LARGEST_BYTES = 30_000_000;

const batches = idleBatches({ fileBytes: LARGEST_BYTES, storedBytes: 2 * LARGEST_BYTES });
let facade: ScriptedFacade;

before(async () => {
  const times = { requestTimeoutMs: REQUEST_TIMEOUT_MS, headersTimeoutMs: REQUEST_TIMEOUT_MS, timeoutCheckMs: 50 };
  facade = await startFacade({}, times, { batches: batches.service });
});
after(async () => {
  await facade.stop();
  await batches.remove();
});

const client = (): OpenAI =>
  new OpenAI({ baseURL: `${facade.url}/v1`, apiKey: 'none', maxRetries: 0, timeout: 30_000 });
const stored = (): number => batches.stored().length;
const upload = async (bytes: Uint8Array): Promise<OpenAI.FileObject> =>
  await client().files.create({ file: await toFile(bytes, 'in.jsonl'), purpose: 'batch' });

test('a large file arrives as it was sent, and comes back so', async () => {
  const bytes = Buffer.alloc(20_000_000);
  for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE((at * 2_654_435_761) >>> 0, at);
  const file = await upload(bytes);
  assert.equal(file.bytes, bytes.length);
  const back = Buffer.from(await (await client().files.content(file.id)).arrayBuffer());
  assert.ok(back.equals(bytes));
  await client().files.delete(file.id);
});

test('a file that is too large is refused in words, and leaves nothing', async () => {
  const before = stored();
  await assert.rejects(
    () => upload(Buffer.alloc(LARGEST_BYTES + 1)),
    (error: unknown) =>
      error instanceof APIError && error.status === 413 && /at most 30000000 bytes/.test(error.message),
  );
  assert.equal(stored(), before);
});

test('an upload that is slow but steady is not cut off', async () => {
  const path = '/v1/files?purpose=batch&filename=slow.jsonl';
  const headers = { 'content-type': 'application/jsonl' };
  const request = http.request(`${facade.url}${path}`, { method: 'POST', headers });
  const answered = once(request, 'response');
  for (let part = 0; part < 10; part++) {
    request.write('{"a":1}\n');
    await new Promise((resolve) => {
      setTimeout(resolve, REQUEST_TIMEOUT_MS / 3);
    });
  }
  request.end();
  const [response] = (await answered) as [http.IncomingMessage];
  assert.equal(response.statusCode, 200);
  response.resume();
});

test('an upload whose client leaves leaves nothing', async () => {
  const before = stored();
  const request = http.request(`${facade.url}/v1/files?purpose=batch`, {
    method: 'POST',
    headers: { 'content-type': 'application/jsonl' },
  });
  request.on('error', () => {});
  request.write(Buffer.alloc(200_000));
  while (stored() === before) await new Promise((resolve) => setImmediate(resolve));
  request.destroy();
  while (stored() !== before) await new Promise((resolve) => setImmediate(resolve));
});
