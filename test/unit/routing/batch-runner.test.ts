/** Batches whose store fails, whose owner changes his mind at a bad moment, and whose models are nowhere. */
import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import { type Clock, systemClock } from '../../../node/common/clock.ts';
import { MeshError } from '../../../node/common/errors.ts';
import type { Logger } from '../../../node/common/logger.ts';
import { silentLogger } from '../../../node/common/logger.ts';
import { MOST_MODELS, readInput } from '../../../node/routing/batch-input.ts';
import { type BatchAnswer, BatchRunner, type BatchRunnerOptions } from '../../../node/routing/batch-runner.ts';
import type { Dispatcher } from '../../../node/routing/dispatch.ts';
import { BatchStore, type StoredBatch } from '../../../node/storage/batch-store.ts';
import type { InferenceRequest } from '../../../protocols/inference/events.ts';
import { chatLine } from '../../support/batch-client.ts';
import { temporaryDir } from '../../support/node-process.ts';

const OK: BatchAnswer = { body: '{}', promptTokens: 1, completionTokens: 1 };

interface Rig {
  readonly store: BatchStore;
  readonly runner: BatchRunner;
  readonly batch: StoredBatch;
  /** What was logged as an error. */
  readonly errors: readonly string[];
  /** Resolves with the batch when it is over. */
  over(): Promise<StoredBatch>;
}

interface RigOptions extends Partial<BatchRunnerOptions> {
  readonly lines?: number;
  /** Of the line with this number. Default `m`. */
  readonly model?: (line: number) => string;
  readonly free?: number | null;
  readonly answer?: (request: InferenceRequest, signal: AbortSignal) => Promise<BatchAnswer>;
}

/** Whatever is waited for, it is soon. */
const hurriedClock: Clock = {
  now: () => systemClock.now(),
  after: (delayMs, callback) => systemClock.after(Math.min(delayMs, 20), callback),
  every: (periodMs, callback) => systemClock.every(periodMs, callback),
};

/** A runner over a real store that holds one batch, which is not added yet. */
async function withRunner(
  { lines = 3, model = () => 'm', free = 8, answer = async () => OK, ...options }: RigOptions,
  work: (rig: Rig) => Promise<void>,
): Promise<void> {
  const dataDir = temporaryDir();
  const store = new BatchStore({ warn: () => {} }, { dataDir });
  const file = await store.files.create('in.jsonl', 'batch');
  await file.write(
    Buffer.from(Array.from({ length: lines }, (_, index) => chatLine(index, {}, { model: model(index) })).join('\n')),
  );
  await file.sync();
  store.files.register(file.file());
  const createdAt = Math.floor(Date.now() / 1000);
  const facts = { endpoint: '/v1/chat/completions', inputFileId: file.file().id, window: '1h', createdAt };
  const added = store.add('batch_a', { ...facts, expiresAt: createdAt + 3600, metadata: null, boundary: null });
  assert.equal(await readInput(store, added, new AbortController().signal), null);
  const batch = store.update(added.id, 'in_progress');
  const signals = new Map<string, AbortSignal>();
  const dispatcher: Dispatcher = {
    dispatch: ({ requestId }, { signal }) => {
      signals.set(requestId, signal);
      return { events: (async function* () {})(), servedBy: null, attempts: 0, resumed: 0, nodes: [] };
    },
  };
  const errors: string[] = [];
  const logger: Logger = Object.assign(Object.create(silentLogger) as Logger, {
    error: (_facts: object, message: string) => errors.push(message),
  });
  const runner = new BatchRunner(
    {
      store,
      dispatcher,
      room: { free: () => free, lookFurther: async () => {} },
      answer: (request) => answer(request, signals.get(request.requestId) ?? new AbortController().signal),
      isOpen: () => true,
      clock: hurriedClock,
      logger,
    },
    { lookMs: 5, keepMs: 1, ...options },
  );
  const over = async (): Promise<StoredBatch> => {
    for (;;) {
      const now = store.require(batch.id);
      if (['completed', 'failed', 'expired', 'cancelled'].includes(now.state)) return now;
      await new Promise((resolve) => {
        setTimeout(resolve, 5);
      });
    }
  };
  try {
    await work({ store, runner, batch, errors, over });
  } finally {
    await runner.stop();
    store.close();
    rmSync(dataDir, { recursive: true, force: true });
  }
}

/** The next `times` calls fail as if the disk were full. Returns the count of calls. */
function failing<K extends 'finish' | 'tried' | 'pending' | 'removeFinished'>(
  store: BatchStore,
  method: K,
  times: number,
): () => number {
  const real = store[method].bind(store) as (...given: unknown[]) => unknown;
  let calls = 0;
  Object.assign(store, {
    [method]: (...given: unknown[]) => {
      calls += 1;
      if (calls <= times) throw new Error('database or disk is full');
      return real(...given);
    },
  });
  return () => calls;
}

const untilAborted = (_request: InferenceRequest, signal: AbortSignal): Promise<BatchAnswer> =>
  new Promise((_resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
  });

test('a batch that is cancelled while its input is being opened is over, and asks nothing', async () => {
  let asked = 0;
  const answer = (request: InferenceRequest, signal: AbortSignal): Promise<BatchAnswer> => {
    asked += 1;
    return untilAborted(request, signal);
  };
  for (const isTold of [false, true]) {
    await withRunner({ answer }, async ({ store, runner, batch, over }) => {
      const adding = runner.add(batch);
      const cancelling = store.update(batch.id, 'cancelling', { cancellingAt: 1 });
      if (isTold) runner.cancel(cancelling);
      await adding;
      assert.equal((await over()).state, 'cancelled');
      assert.equal(asked, 0);
    });
  }
});

test('a runner that is stopped while it opens an input asks nothing, and closes it', async () => {
  let asked = 0;
  const counted = async (): Promise<BatchAnswer> => {
    asked += 1;
    return OK;
  };
  await withRunner({ answer: counted }, async ({ runner, batch }) => {
    const adding = runner.add(batch);
    await Promise.all([runner.stop(), adding]);
    assert.equal(asked, 0);
  });
});

test('a try that cannot be noted ends neither the node nor the line', async () => {
  let asked = 0;
  const answer = async (): Promise<BatchAnswer> => {
    asked += 1;
    if (asked === 1) throw new MeshError('engine_failed', 'no');
    return OK;
  };
  await withRunner({ lines: 1, answer }, async ({ store, runner, batch, over }) => {
    failing(store, 'tried', 1);
    await runner.add(batch);
    assert.equal((await over()).completed, 1);
    assert.equal(asked, 2);
  });
});

test('a store that cannot be read or written for a while loses no line, and nothing new is asked meanwhile', async () => {
  let asked = 0;
  const counted = async (): Promise<BatchAnswer> => {
    asked += 1;
    return OK;
  };
  await withRunner({ lines: 100, free: 4, answer: counted }, async (rig) => {
    const { store, runner, batch, over, errors } = rig;
    failing(store, 'pending', 2);
    failing(store, 'finish', 1);
    await runner.add(batch);
    const { state, completed } = await over();
    assert.deepEqual([state, completed, asked], ['completed', 100, 100]);
    assert.ok(errors.some((error) => /could not be kept/.test(error)));
  });
});

test('a batch whose lines cannot be removed keeps the files that it has', async () => {
  await withRunner({}, async ({ store, runner, batch, over }) => {
    const calls = failing(store, 'removeFinished', 1);
    await runner.add(batch);
    const { outputFileId } = await over();
    while (calls() < 2) {
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
    }
    assert.equal(store.require(batch.id).outputFileId, outputFileId);
    assert.equal(store.files.list({ purpose: 'batch_output', limit: 9 }).length, 1);
  });
});

test('however many lines of a model that is nowhere are given up, the batch then ends', async () => {
  await withRunner({ lines: 450, free: null, absentMs: 10 }, async ({ runner, batch, over, errors }) => {
    await runner.add(batch);
    const { state, failed } = await over();
    assert.deepEqual([state, failed, errors], ['completed', 450, []]);
  });
});

test('a line that names one model too many is told so, and the others are asked', async () => {
  const model = (line: number): string => `m${line}`;
  await withRunner({ lines: MOST_MODELS + 3, model }, async ({ store, runner, batch, over }) => {
    await runner.add(batch);
    const { completed, failed, errorFileId = '' } = await over();
    assert.deepEqual([completed, failed], [MOST_MODELS, 3]);
    assert.match(readFileSync(store.files.path(errorFileId), 'utf8'), /"code":"too_many_models"/);
  });
});
