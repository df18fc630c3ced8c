/** Uploads and batches that are made to harm: what they may take, and what they must not break. */
import assert from 'node:assert/strict';
import { IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import { after, before, test } from 'node:test';
import { multipartFile } from '../../node/api/multipart-upload.ts';
import { MeshError } from '../../node/common/errors.ts';
import { idleBatches } from '../support/idle-batches.ts';
import { type ScriptedFacade, startFacade } from '../support/scripted-facade.ts';

const STORED_BYTES = 1000;

const batches = idleBatches({ storedBytes: STORED_BYTES, mostFiles: 3, mostOpen: 2 });
const { service, stored } = batches;
let facade: ScriptedFacade;

before(async () => {
  facade = await startFacade({}, {}, { batches: service });
});
after(async () => {
  await facade.stop();
  await batches.remove();
});

const status = async (route: string, init: RequestInit = {}): Promise<number> => {
  const response = await fetch(facade.url + route, init);
  await response.arrayBuffer();
  return response.status;
};

/** Gives its bytes in pieces, the later ones when it is told to. */
function heldBack(pieces: readonly number[]): { source: AsyncIterable<Uint8Array>; go: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  async function* source(): AsyncGenerator<Uint8Array> {
    for (const [index, bytes] of pieces.entries()) {
      if (index > 0) await promise;
      yield Buffer.alloc(bytes, 'x');
    }
  }
  return { source: source(), go: resolve };
}

const isTooLarge = (error: unknown): boolean => error instanceof MeshError && error.code === 'payload_too_large';

test('what stands twice in a query is refused in words', async () => {
  for (const route of ['/v1/files?after=a&after=b', '/v1/files?purpose=a&purpose=b', '/v1/batches?after=a&after=b']) {
    assert.equal(await status(route), 400, route);
  }
  const headers = { 'content-type': 'application/jsonl' };
  const twice = '/v1/files?purpose=batch&filename=a&filename=b';
  assert.equal(await status(twice, { method: 'POST', headers, body: '{}' }), 400);
  assert.deepEqual(service.listFiles({ limit: 10 }), []);
});

test('ids that are paths name nothing', async () => {
  for (const id of ['..%2fidentity.key', '%2e%2e%2fbatches.db', '..%5c..', 'file-x%00', '__proto__', "' OR 1=1 --"]) {
    for (const route of [`/v1/files/${id}`, `/v1/files/${id}/content`, `/v1/batches/${id}`]) {
      assert.equal(await status(route), 404, route);
    }
    assert.equal(await status(`/v1/files/${id}`, { method: 'DELETE' }), 404, id);
  }
});

test('uploads at the same time have together no more room than one', async () => {
  const uploads = [1, 2, 3].map(() => heldBack([200, 200]));
  const done = Promise.allSettled(uploads.map(({ source }) => service.upload('in.jsonl', source)));
  for (const { go } of uploads) go();
  const results = await done;
  assert.ok(results.some(({ status: how }) => how === 'fulfilled'));
  for (const result of results) if (result.status === 'rejected') assert.ok(isTooLarge(result.reason), result.reason);
  const files = service.listFiles({ limit: 10 });
  assert.ok(files.reduce((sum, { bytes }) => sum + bytes, 0) <= STORED_BYTES);
  assert.equal(stored().length, files.length, 'nothing else is left of them');
  for (const { id } of files) await service.removeFile(id);
  assert.equal((await service.upload('in.jsonl', heldBack([STORED_BYTES]).source)).bytes, STORED_BYTES);
  for (const { id } of service.listFiles({ limit: 10 })) await service.removeFile(id);
});

test('one that took its room while another came to its end is counted there', async () => {
  const first = heldBack([100, 500]);
  const slow = service.upload('in.jsonl', first.source);
  const { id } = await service.upload('in.jsonl', heldBack([600]).source);
  first.go();
  await assert.rejects(slow, isTooLarge);
  await service.removeFile(id);
  assert.deepEqual(stored(), []);
});

test('there are no more files, and no more open batches, than are allowed', async () => {
  const text = JSON.stringify({
    custom_id: 'a',
    method: 'POST',
    url: '/v1/embeddings',
    body: { model: 'm', input: '' },
  });
  const [file] = await Promise.all([text, '', ''].map((each) => service.upload('in.jsonl', bytesOf(each))));
  await assert.rejects(service.upload('in.jsonl', bytesOf('')), isTooLarge);
  const where = { inputFileId: file?.id ?? '', endpoint: '/v1/embeddings', window: '24h', windowSeconds: 86_400 };
  const begin = () => service.create({ ...where, metadata: null, boundary: null });
  const batches = [begin(), begin()];
  assert.throws(begin, (error: unknown) => error instanceof MeshError && error.code === 'rate_limited');
  for (const { id } of batches) {
    service.cancel(id);
    while (service.get(id).state !== 'cancelled') await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(begin().state, 'validating');
  for (const { id } of service.list({ limit: 10 })) {
    if (service.get(id).state !== 'cancelled') service.cancel(id);
    while (service.get(id).state !== 'cancelled') await new Promise((resolve) => setImmediate(resolve));
  }
  for (const { id } of service.listFiles({ limit: 10 })) await service.removeFile(id);
});

async function* bytesOf(text: string): AsyncGenerator<Uint8Array> {
  yield Buffer.from(text);
}

test('a line that nests too deep is refused for itself, and the others are asked', async () => {
  const deep = '['.repeat(300) + ']'.repeat(300);
  const line = (id: string, more: string): string =>
    `{"custom_id":"${id}","method":"POST","url":"/v1/chat/completions","body":{"model":"m","messages":[]${more}}}`;
  const text = `${line('deep', `,"metadata":${deep}`)}\n${line('proto', ',"__proto__":{"x":1}')}\n${line('good', '')}\n`;
  const file = await service.upload('in.jsonl', bytesOf(text));
  const where = { inputFileId: file.id, endpoint: '/v1/chat/completions', window: '24h', windowSeconds: 86_400 };
  const { id } = service.create({ ...where, metadata: null, boundary: null });
  while (service.get(id).state === 'validating') await new Promise((resolve) => setImmediate(resolve));
  const { state, total, failed } = service.get(id);
  assert.deepEqual({ state, total, failed }, { state: 'in_progress', total: 3, failed: 2 });
  service.cancel(id);
  while (service.get(id).state !== 'cancelled') await new Promise((resolve) => setImmediate(resolve));
});

test('a form that breaks off while nobody reads its file ends in an error, not in the end of the node', async () => {
  const request = new IncomingMessage(new Socket());
  request.headers['content-type'] = 'multipart/form-data; boundary=x';
  request.push('--x\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n{"half');
  const { content } = await multipartFile(request, () => {});
  request.destroy(new Error('reset'));
  await new Promise((resolve) => request.once('close', resolve));
  for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
  await assert.rejects(async () => {
    for await (const _ of content);
  }, MeshError);
});
