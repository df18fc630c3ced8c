/** Files and batches over HTTP, with the official client and without. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import OpenAI, { APIError, BadRequestError, NotFoundError, toFile } from 'openai';
import { assertEachOnce, BatchClient, chatLine, isAnswerOf } from '../support/batch-client.ts';
import { type BatchNode, startBatchNode } from '../support/batch-node.ts';

let node: BatchNode;
let client: OpenAI;
const raw = new BatchClient(() => node.api);

before(async () => {
  node = await startBatchNode();
  client = new OpenAI({ baseURL: `${node.api}/v1`, apiKey: 'none', maxRetries: 0, timeout: 30_000 });
});
after(async () => {
  await node?.stop();
});

test('the official client uploads, runs, awaits and reads a batch', async () => {
  const lines = Array.from({ length: 20 }, (_, index) => chatLine(index));
  const file = await client.files.create({
    file: await toFile(Buffer.from(lines.join('\n')), 'in.jsonl'),
    purpose: 'batch',
  });
  assert.match(file.id, /^file-/);
  assert.equal(file.bytes, lines.join('\n').length);
  assert.equal(file.filename, 'in.jsonl');
  const metadata = { for: 'a test' };
  const batch = await client.batches.create({
    input_file_id: file.id,
    endpoint: '/v1/chat/completions',
    completion_window: '24h',
    metadata,
  });
  const over = await raw.over(batch.id);
  const same = await client.batches.retrieve(batch.id);
  assert.equal(same.status, 'completed');
  assert.deepEqual(same.metadata, metadata);
  assert.deepEqual(same.request_counts, { total: 20, completed: 20, failed: 0 });
  assert.equal(same.usage?.output_tokens, 80);
  assert.equal(same.error_file_id, null);
  assertEachOnce(await raw.content(over.output_file_id), 20);
  const output = await client.files.content(over.output_file_id ?? '');
  assert.equal((await output.text()).trimEnd().split('\n').length, 20);
});

test('lists of files and batches come in pages, newest first', async () => {
  const ids: string[] = [];
  for (let index = 0; index < 3; index++) ids.unshift((await raw.begin(chatLine(index))).id);
  for (const id of ids) await raw.over(id);
  const seen: string[] = [];
  for await (const batch of client.batches.list({ limit: 1 })) seen.push(batch.id);
  assert.deepEqual(seen.slice(0, 3), ids);
  const files: string[] = [];
  for await (const file of client.files.list({ limit: 2, purpose: 'batch_output' })) {
    assert.equal(file.purpose, 'batch_output');
    files.push(file.id);
  }
  assert.equal(files.length, new Set(files).size);
  assert.ok(files.length >= 3);
});

test('a file is deleted once no batch reads it', async () => {
  const file = await client.files.create({
    file: await toFile(Buffer.from(chatLine(0)), 'in.jsonl'),
    purpose: 'batch',
  });
  assert.equal((await client.files.retrieve(file.id)).id, file.id);
  assert.deepEqual(await client.files.delete(file.id), { id: file.id, object: 'file', deleted: true });
  await assert.rejects(() => client.files.retrieve(file.id), NotFoundError);
  await assert.rejects(() => client.files.content(file.id), NotFoundError);
});

test('a line that is no request lands in the error file with its number, and the rest completes', async () => {
  const lines = [
    chatLine(0),
    '{"custom_id": "broken", ',
    '',
    '[1, 2]',
    chatLine(4, { method: 'GET' }),
    chatLine(5, { url: '/v1/completions' }),
    chatLine(6, { custom_id: 'line-0' }),
    chatLine(7, {}, { stream: true }),
    chatLine(8, { custom_id: '' }),
    chatLine(9, {}, { max_tokens: -1 }),
    chatLine(10),
  ];
  const batch = await raw.over((await raw.begin(lines.join('\r\n'))).id);
  assert.equal(batch.status, 'completed');
  assert.deepEqual(batch.request_counts, { total: 10, completed: 2, failed: 8 });
  const output = await raw.content(batch.output_file_id);
  assert.deepEqual(
    output.map(({ custom_id }) => custom_id),
    ['line-0', 'line-10'],
  );
  assert.ok(output[0] !== undefined && isAnswerOf(output[0], 0));
  const errors = await raw.content(batch.error_file_id);
  assert.deepEqual(
    errors.map(({ error, response }) => [error?.line, error?.code ?? response?.body.error?.code]),
    [
      [2, 'invalid_json_line'],
      [4, 'invalid_json_line'],
      [5, 'invalid_method'],
      [6, 'mismatched_url'],
      [7, 'duplicate_custom_id'],
      [8, 'invalid_request'],
      [9, 'missing_required_parameter'],
      [undefined, 'invalid_request'],
    ],
  );
  const refused = errors.at(-1);
  assert.equal(refused?.custom_id, 'line-9');
  assert.equal(refused?.response?.status_code, 400);
  assert.equal(refused?.response?.body.error?.param, 'max_tokens');
});

test('a file that is nothing at all fails the batch, which says why', async () => {
  for (const [text, code] of [
    ['\n\n  \n', 'empty_file'],
    ['\u0000PNG\u0001\u0002 this is no text\nand no JSON', 'invalid_json_line'],
  ] as const) {
    const batch = await raw.over((await raw.begin(text)).id);
    assert.equal(batch.status, 'failed');
    assert.equal(batch.errors?.data[0]?.code, code);
    assert.equal(batch.output_file_id, null);
  }
});

test('what is no batch is refused by name', async () => {
  const input_file_id = await raw.upload(chatLine(0));
  const create = (body: object) =>
    client.batches.create({
      input_file_id,
      endpoint: '/v1/chat/completions',
      completion_window: '24h',
      ...body,
    } as never);
  const paramOf = (param: string) => (error: unknown) => error instanceof BadRequestError && error.param === param;
  await assert.rejects(() => create({ input_file_id: 'file-none' }), paramOf('input_file_id'));
  await assert.rejects(() => create({ endpoint: '/v1/images' }), paramOf('endpoint'));
  await assert.rejects(() => create({ completion_window: 'soon' }), paramOf('completion_window'));
  await assert.rejects(
    () => create({ metadata: { meshnode_boundary: 'galaxy' } }),
    paramOf('metadata.meshnode_boundary'),
  );
  await assert.rejects(() => client.batches.retrieve('batch_none'), NotFoundError);
  await assert.rejects(() => client.batches.cancel('batch_none'), NotFoundError);
  const file = await toFile(Buffer.from('x'), 'a.txt');
  await assert.rejects(() => client.files.create({ file, purpose: 'vision' }), paramOf('purpose'));
  const bare = await fetch(`${node.api}/v1/files`, {
    method: 'POST',
    headers: { 'content-type': 'multipart/form-data' },
    body: 'x',
  });
  assert.equal(bare.status, 400);
  const form = new FormData();
  form.set('purpose', 'batch');
  assert.equal((await fetch(`${node.api}/v1/files`, { method: 'POST', body: form })).status, 400);
  const json = await fetch(`${node.api}/v1/files`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{}',
  });
  assert.equal(json.status, 415);
});

test('completions are batches too', async () => {
  const line = (index: number) =>
    JSON.stringify({
      custom_id: `c-${index}`,
      method: 'POST',
      url: '/v1/completions',
      body: { model: 'm', prompt: 'Once', seed: index, max_tokens: 3 },
    });
  const batch = await raw.over((await raw.begin([line(1), line(2)].join('\n'), { endpoint: '/v1/completions' })).id);
  assert.deepEqual(batch.request_counts, { total: 2, completed: 2, failed: 0 });
  const texts = (await raw.content(batch.output_file_id)).map(({ response }) => response?.body.choices?.[0]?.text);
  assert.equal(new Set(texts).size, 2);
});

test('a cancelled batch keeps what was answered and asks nothing more', async () => {
  const { engine } = node;
  assert.ok(engine !== null);
  engine.tokenDelayMs = 100;
  try {
    const lines = Array.from({ length: 600 }, (_, index) => chatLine(index));
    const { id } = await raw.begin(lines.join('\n'));
    await raw.until(id, ({ request_counts }) => request_counts.completed > 0);
    const answer = await client.batches.cancel(id);
    assert.ok(['cancelling', 'cancelled'].includes(answer.status));
    const batch = await raw.over(id);
    assert.equal(batch.status, 'cancelled');
    const { completed } = batch.request_counts;
    assert.ok(completed > 0 && completed < 600);
    assert.equal((await raw.content(batch.output_file_id)).length, completed);
    await assert.doesNotReject(() => client.batches.cancel(id));
    const done = (await client.batches.list({ limit: 100 })).data.find(({ status }) => status === 'completed');
    await assert.rejects(() => client.batches.cancel(done?.id ?? ''), APIError);
  } finally {
    engine.tokenDelayMs = 0;
  }
});
