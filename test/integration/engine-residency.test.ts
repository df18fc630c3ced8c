import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { GgufInsights, getLlama, LlamaLogLevel, readGgufFileInfo } from 'node-llama-cpp';
import { writeRandomModel } from '../../bench/random-model.ts';
import type { EngineEvent } from '../../node/backends/backend.ts';
import { demoModelPath } from '../../node/backends/llama-cpp/demo/demo-model.ts';
import { type EngineOptions, LlamaEngine } from '../../node/backends/llama-cpp/engine.ts';
import { memoryNeed } from '../../node/backends/llama-cpp/memory/memory-need.ts';
import { type Clock, systemClock } from '../../node/common/clock.ts';
import { MeshError } from '../../node/common/errors.ts';
import { silentLogger } from '../../node/common/logger.ts';
import { readGgufHeader } from '../../node/storage/gguf-header.ts';
import type { ModelFile } from '../../node/storage/model-file.ts';
import {
  chatRequest,
  ModelList,
  modelFile,
  neverAborted,
  type WholeAnswer,
  wholeAnswer,
} from '../support/demo-engine.ts';

const STORY = 'Tell me a story about an owl named Hugo.';
const MIB = 2 ** 20;

const { shape } = await readGgufHeader(demoModelPath());
/** The demo model under any name. */
const demo = (id: string, file = demoModelPath()): ModelFile => ({ ...modelFile(id, file), shape });
/** What one of them takes with the default options of `started`. */
const DEMO_BYTES = memoryNeed(demo('any'), { contextTokens: 512, parallel: 2 }).totalBytes;

interface Started {
  readonly engine: LlamaEngine;
  readonly events: EngineEvent[];
  /** Resolves with the next event of that type for that model. */
  next(type: EngineEvent['type'], model: string): Promise<EngineEvent>;
  ask(model: string, question?: string): Promise<WholeAnswer>;
  /** By model: resident, loading or on disk. */
  states(): Record<string, string>;
}

function started(
  t: TestContext,
  ids: readonly (string | ModelFile)[],
  options: Partial<EngineOptions> = {},
  clock: Clock = systemClock,
): Started {
  const models = new ModelList(ids.map((id) => (typeof id === 'string' ? demo(id) : id)));
  const engine = new LlamaEngine(
    { fingerprint: '12D3KooWTest', models, clock, logger: silentLogger },
    { gpu: 'off', contextTokens: null, parallel: 2, ...options },
  );
  const events: EngineEvent[] = [];
  engine.onEvent((event) => events.push(event));
  engine.start();
  t.after(() => engine.stop(AbortSignal.timeout(10_000)));
  return {
    engine,
    events,
    next: (type, model) =>
      new Promise((resolve) => {
        const unsubscribe = engine.onEvent((event) => {
          if (event.type !== type || event.model !== model) return;
          unsubscribe();
          resolve(event);
        });
      }),
    ask: (model, question = 'Hello!') =>
      wholeAnswer(engine.infer(chatRequest(question, {}, model), { signal: neverAborted })),
    states: () => Object.fromEntries(engine.catalog().map(({ id, state }) => [id, state])),
  };
}

const failure = (code: string, pattern: RegExp) => (error: unknown) => {
  assert.ok(error instanceof MeshError, String(error));
  assert.equal(error.code, code);
  assert.match(error.message, pattern);
  return true;
};

test('twenty first requests at once load the model once', async (t) => {
  const { ask, events, engine } = started(t, ['a'], { parallel: 4 });
  const pids = new Set<number | undefined>();
  engine.onCatalogChange(() => pids.add(engine.children().get('a')));
  await Promise.all(Array.from({ length: 20 }, () => ask('a')));
  assert.equal(events.filter(({ type }) => type === 'resident').length, 1);
  assert.equal(pids.size, 1);
});

test('a model that nobody uses is unloaded, says so, and is loaded again when asked', async (t) => {
  const { ask, next, states, engine } = started(t, ['a'], { keepAliveMs: 50 });
  const unloaded = next('unloaded', 'a');
  await ask('a');
  assert.deepEqual(await unloaded, { type: 'unloaded', model: 'a', reason: 'idle' });
  assert.deepEqual([states()['a'], engine.children().size], ['on-disk', 0]);
  await ask('a');
});

test('a keep-alive of nothing unloads after the last answer, and a request that comes at that instant is answered', async (t) => {
  const { ask, next, states, engine } = started(t, ['a'], { keepAliveMs: 0 });
  let late: Promise<WholeAnswer> | null = null;
  let wasResident = false;
  engine.onCatalogChange(() => {
    // The child was told to go, and is not gone yet.
    if (wasResident && states()['a'] === 'on-disk') late ??= ask('a');
    wasResident = states()['a'] === 'resident';
  });
  const unloaded = next('unloaded', 'a');
  // Held as one request, however many orders it consists of.
  await Promise.all([ask('a'), ask('a', STORY)]);
  await unloaded;
  assert.ok(late !== null);
  assert.match((await (late as Promise<WholeAnswer>)).text, /\w/);
});

test('the least recently used model makes room for another', async (t) => {
  const { ask, next, states, events, engine } = started(t, ['a', 'b', 'c'], { memoryBytes: 2.5 * DEMO_BYTES });
  await ask('a');
  await ask('b');
  await ask('a');
  const unloaded = next('unloaded', 'b');
  await ask('c');
  assert.deepEqual(await unloaded, { type: 'unloaded', model: 'b', reason: 'evicted' });
  assert.deepEqual(states(), { a: 'resident', b: 'on-disk', c: 'resident' });
  assert.equal(engine.children().size, 2);
  const order = events.flatMap(({ type, model }) => (type === 'loading' ? [] : [`${type} ${model}`]));
  assert.deepEqual(order, ['resident a', 'resident b', 'unloaded b', 'resident c'], 'never three at once');
});

test('a model that is answering is waited for', async (t) => {
  const { ask, next, events } = started(t, ['a', 'b'], { memoryBytes: 1.5 * DEMO_BYTES });
  const loaded = next('resident', 'a');
  const story = ask('a', STORY);
  await loaded;
  const waiting = ask('b');
  assert.match((await story).text, /Hugo/);
  await waiting;
  const order = events.flatMap(({ type, model }) => (type === 'loading' ? [] : [`${type} ${model}`]));
  assert.deepEqual(order, ['resident a', 'unloaded a', 'resident b']);
});

test('who waits too long for the memory of a model in use is told to come back', async (t) => {
  const { ask, engine, next } = started(t, ['a', 'b'], { memoryBytes: 1.5 * DEMO_BYTES, roomWaitMs: 50 });
  const loaded = next('resident', 'a');
  const story = ask('a', STORY);
  await loaded;
  const pid = engine.children().get('a') ?? 0;
  process.kill(pid, 'SIGSTOP');
  await assert.rejects(ask('b'), failure('overloaded', /"b" needs .* "a", which is in use/));
  process.kill(pid, 'SIGCONT');
  await story;
  await ask('b');
});

test('a pinned model is loaded at start, stays, and what cannot fit beside it is refused', async (t) => {
  const { ask, next, states, engine } = started(t, ['a', 'b'], {
    memoryBytes: 1.5 * DEMO_BYTES,
    keepAliveMs: 0,
    pinned: ['a', 'not-here'],
  });
  await next('resident', 'a');
  await ask('a');
  assert.equal(states()['a'], 'resident');
  await assert.rejects(ask('b'), failure('out_of_memory', /"b" needs about .* pinned models have .*--memory/));
  assert.throws(() => engine.residency.unloadModel('a'), failure('invalid_request', /unpin it/));
  const unloaded = next('unloaded', 'a');
  engine.residency.pinModel('a', false);
  await unloaded;
  await ask('b');
});

test('a model is loaded and unloaded when its owner says so', async (t) => {
  const { next, states, engine } = started(t, ['a'], { keepAliveMs: 0 });
  const loaded = next('resident', 'a');
  engine.residency.loadModel('a');
  await loaded;
  const [view] = engine.residency.list();
  assert.deepEqual([view?.state, view?.pinned, view?.unloadInMs, view?.problem], ['resident', false, null, null]);
  const unloaded = next('unloaded', 'a');
  engine.residency.unloadModel('a');
  assert.deepEqual(await unloaded, { type: 'unloaded', model: 'a', reason: 'asked' });
  assert.equal(states()['a'], 'on-disk');
});

test('what can never fit is refused before any child exists, with need, budget and what to do', async (t) => {
  const { ask, engine } = started(t, ['a'], { memoryBytes: 50 * MIB });
  await assert.rejects(
    ask('a'),
    failure('out_of_memory', /"a" needs about \d+ MiB .* 50 MiB .*--context or --parallel/),
  );
  assert.equal(engine.children().size, 0);
  assert.match(engine.residency.list()[0]?.problem ?? '', /needs about/);
});

test('unasked, the context shrinks until it fits the budget', async (t) => {
  const roomy = { ...demo('a'), trainedContext: 512 };
  const need = memoryNeed(roomy, { contextTokens: 512, parallel: 16 }).totalBytes;
  const { ask, engine } = started(t, [{ ...roomy, trainedContext: 2048 }], { parallel: 16, memoryBytes: need });
  await ask('a');
  assert.equal(engine.catalog()[0]?.contextLength, 512);
});

/** Time that runs twenty times as fast, for waits of minutes. */
const FAST = 20;
const fastClock: Clock = {
  now: () => performance.now() * FAST,
  after: (delayMs, callback) => systemClock.after(delayMs / FAST, callback),
  every: (periodMs, callback) => systemClock.every(periodMs / FAST, callback),
};

test('a child that crashes three times is left alone, and so is one that crashes while it loads', async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'meshnode-residency-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const crashes = ['a', 'loads'].map((id) => demo(id));
  const { engine, next } = started(t, crashes, { wedgedAfterMs: 1_000_000, pinned: ['a', 'loads'] }, fastClock);
  const fatal = /three times in five minutes/;
  // Pinned models come back by themselves, which makes each crash follow the last.
  await Promise.all([
    untilFailed(engine, 'a', fatal, () => void next('resident', 'a').then(() => crash(engine, 'a'))),
    untilFailed(engine, 'loads', fatal, () => crashAtFork(engine, 'loads')),
  ]);
  for (const model of ['a', 'loads']) {
    const answer = wholeAnswer(engine.infer(chatRequest('Hi', {}, model), { signal: neverAborted }));
    await assert.rejects(answer, failure('engine_failed', /signal SIGSEGV.*three times in five minutes/));
  }
});

function crash(engine: LlamaEngine, model: string): void {
  const pid = engine.children().get(model);
  if (pid !== undefined) process.kill(pid, 'SIGSEGV');
}

function crashAtFork(engine: LlamaEngine, model: string): void {
  const unsubscribe = engine.onCatalogChange(() => {
    if (!engine.children().has(model)) return;
    unsubscribe();
    crash(engine, model);
  });
  crash(engine, model);
}

/** Arms a crash now and after each failure, until one fails with `pattern`. */
function untilFailed(engine: LlamaEngine, model: string, pattern: RegExp, arm: () => void): Promise<void> {
  return new Promise((resolve) => {
    const unsubscribe = engine.onEvent((event) => {
      if (event.type !== 'failed' || event.model !== model) return;
      if (pattern.test(event.message)) {
        unsubscribe();
        resolve();
      } else arm();
    });
    arm();
  });
}

test('the estimate made from the file is within 15 % of llama.cpp’s own', async (t) => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'meshnode-residency-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const random = path.join(folder, 'random.gguf');
  writeRandomModel(random);
  const llama = await getLlama({ gpu: false, build: 'never', skipDownload: true, logLevel: LlamaLogLevel.error });
  t.after(() => llama.dispose());
  for (const file of [demoModelPath(), random]) {
    const insights = await GgufInsights.from(await readGgufFileInfo(file), llama);
    const model = { sizeBytes: readFileSync(file).length, shape: (await readGgufHeader(file)).shape };
    for (const [contextTokens, parallel] of [
      [256, 1],
      [512, 1],
      [512, 4],
      [2048, 4],
      [8192, 1],
      [2048, 16],
    ] as const) {
      const own = await insights.estimateContextResourceRequirementsV2({
        contextSize: contextTokens,
        sequences: parallel,
        batchSize: 512,
        flashAttention: 'auto',
        modelGpuLayers: 0,
      });
      const need = memoryNeed(model, { contextTokens, parallel });
      const ratio = (need.totalBytes - need.processBytes) / (insights.modelSize + own.cpuRam);
      const shown = `${path.basename(file)} ${contextTokens} × ${parallel}: ${ratio.toFixed(3)}`;
      assert.ok(ratio > 0.85 && ratio < 1.15, shown);
      t.diagnostic(shown);
    }
  }
});
