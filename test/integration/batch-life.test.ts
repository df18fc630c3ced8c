/** What becomes of a batch when its node stops, its model is nowhere, its engine fails, its time is over. */
import assert from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { systemClock } from '../../node/common/clock.ts';
import { MeshError } from '../../node/common/errors.ts';
import { silentLogger } from '../../node/common/logger.ts';
import type { BatchAnswer, BatchRunnerOptions } from '../../node/routing/batch-runner.ts';
import { BatchService } from '../../node/routing/batch-service.ts';
import type { Dispatcher } from '../../node/routing/dispatch.ts';
import type { StoredBatch } from '../../node/storage/batch-store.ts';
import type { InferenceRequest } from '../../protocols/inference/events.ts';
import { assertEachOnce, BatchClient, chatLine } from '../support/batch-client.ts';
import { startBatchNode } from '../support/batch-node.ts';
import { temporaryDir } from '../support/node-process.ts';

test('a node that stops puts its lines back, and goes on with them when it starts again', async () => {
  const node = await startBatchNode({ tokenDelayMs: 60 });
  try {
    const client = new BatchClient(() => node.api);
    const { id } = await client.begin(Array.from({ length: 700 }, (_, index) => chatLine(index)).join('\n'));
    await client.until(id, ({ request_counts }) => request_counts.completed > 0);
    await node.restart();
    const early = await client.get(id);
    assert.ok(early.request_counts.completed > 0 && early.request_counts.failed === 0);
    const batch = await client.over(id);
    assert.deepEqual(batch.request_counts, { total: 700, completed: 700, failed: 0 });
    assertEachOnce(await client.content(batch.output_file_id), 700);
  } finally {
    await node.stop();
  }
});

test('an engine that fails now and then costs no line, and a batch that is over stays over', async () => {
  const node = await startBatchNode();
  try {
    const client = new BatchClient(() => node.api);
    if (node.engine !== null) node.engine.fault = { kind: 'engine_failed', afterTokens: 1, times: 2 };
    const batch = await client.over((await client.begin([chatLine(0), chatLine(1), chatLine(2)].join('\n'))).id);
    assert.deepEqual(batch.request_counts, { total: 3, completed: 3, failed: 0 });
    await node.restart();
    assert.equal((await client.get(batch.id)).status, 'completed');
    assertEachOnce(await client.content(batch.output_file_id), 3);
  } finally {
    await node.stop();
  }
});

test('a node starts over a damaged database, says where it is, and takes new batches', async () => {
  const node = await startBatchNode({
    prepare: (dataDir) => writeFileSync(path.join(dataDir, 'batches.db'), 'damaged '.repeat(1000)),
  });
  try {
    assert.ok(node.events.some((event) => event.event === 'warning' && /batches begin anew/.test(event.message)));
    const client = new BatchClient(() => node.api);
    assert.equal((await client.over((await client.begin(chatLine(0))).id)).status, 'completed');
  } finally {
    await node.stop();
  }
});

/** A service over a dispatcher that never is asked for its events: `answer` says what comes of a request. */
async function serve(
  answer: (request: InferenceRequest) => Promise<BatchAnswer>,
  { free = 8, ...options }: Partial<BatchRunnerOptions> & { free?: number | null } = {},
) {
  const dataDir = temporaryDir();
  const dispatcher: Dispatcher = {
    dispatch: () => ({ events: (async function* () {})(), servedBy: null, attempts: 0, resumed: 0, nodes: [] }),
  };
  const service = new BatchService(
    {
      dispatcher,
      room: { free: () => free, lookFurther: async () => {} },
      answer,
      isOpen: () => true,
      clock: systemClock,
      logger: silentLogger,
      warn: () => {},
    },
    { dataDir, lookMs: 10, ...options },
  );
  const over = async (lines: readonly string[], windowSeconds = 3600): Promise<StoredBatch> => {
    const source = (async function* () {
      yield Buffer.from(lines.join('\n'));
    })();
    const { id: inputFileId } = await service.upload('in.jsonl', source);
    const where = { endpoint: '/v1/chat/completions', window: '1h', windowSeconds, metadata: null, boundary: null };
    const { id } = service.create({ inputFileId, ...where });
    for (;;) {
      const batch = service.get(id);
      if (['completed', 'failed', 'expired', 'cancelled'].includes(batch.state)) return batch;
      await new Promise((resolve) => {
        setTimeout(resolve, 10);
      });
    }
  };
  const errorsOf = (batch: StoredBatch): string[] =>
    readFileSync(service.path(batch.errorFileId ?? ''), 'utf8')
      .trimEnd()
      .split('\n');
  const stop = async (): Promise<void> => {
    await service.stop();
    rmSync(dataDir, { recursive: true, force: true });
  };
  return { over, errorsOf, stop, service };
}

const OK: BatchAnswer = { body: '{}', promptTokens: 1, completionTokens: 1 };

test('a model that nobody has for long enough is given up, line by line', async () => {
  const { over, errorsOf, stop } = await serve(async () => OK, { free: null, absentMs: 50 });
  const batch = await over([chatLine(0), chatLine(1)]);
  assert.deepEqual([batch.state, batch.completed, batch.failed], ['completed', 0, 2]);
  assert.ok(errorsOf(batch).every((line) => line.includes('"model_not_available"')));
  await stop();
});

test('when the time is over, what is not answered is told as expired', async () => {
  const { over, errorsOf, stop } = await serve((request) =>
    request.seed % 2 === 0 ? Promise.resolve(OK) : Promise.reject(new MeshError('overloaded', 'later')),
  );
  const batch = await over(
    Array.from({ length: 20 }, (_, index) => chatLine(index)),
    1,
  );
  assert.equal(batch.state, 'expired');
  assert.ok(batch.completed > 0 && batch.failed > 0 && batch.completed + batch.failed === 20);
  assert.ok(errorsOf(batch).every((line) => line.includes('"batch_expired"')));
  await stop();
});

test('a line that fails for good ends with what it failed with, after a bounded number of tries', async () => {
  const asked = new Map<string, number>();
  const { over, errorsOf, stop } = await serve(async ({ requestId }) => {
    asked.set(requestId, (asked.get(requestId) ?? 0) + 1);
    throw new MeshError('context_length_exceeded', 'too long', { param: 'messages' });
  });
  const batch = await over([chatLine(0)]);
  assert.deepEqual([batch.state, batch.failed, [...asked.values()]], ['completed', 1, [1]]);
  assert.match(errorsOf(batch)[0] ?? '', /"status_code":400.*"param":"messages","code":"context_length_exceeded"/);
  await stop();
});

test('no more lines are asked at once than there is room for', async () => {
  let now = 0;
  let most = 0;
  const { over, stop } = await serve(
    async () => {
      now += 1;
      most = Math.max(most, now);
      await new Promise((resolve) => setImmediate(resolve));
      now -= 1;
      return OK;
    },
    { atOnce: 5 },
  );
  const batch = await over(Array.from({ length: 60 }, (_, index) => chatLine(index)));
  assert.equal(batch.completed, 60);
  assert.ok(most <= 5 && most > 1, String(most));
  await stop();
});
