import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { demoModelPath } from '../../node/backends/llama-cpp/demo/demo-model.ts';
import type { LlamaEngine } from '../../node/backends/llama-cpp/engine.ts';
import { MeshError } from '../../node/common/errors.ts';
import { ask, chatRequest, DEMO, demoEngine, ModelList, modelFile, neverAborted } from '../support/demo-engine.ts';

const STORY = 'Tell me a story about an owl named Hugo.';

const failure = (code: string, pattern: RegExp) => (error: unknown) => {
  assert.ok(error instanceof MeshError, String(error));
  assert.equal(error.code, code);
  assert.match(error.message, pattern);
  return true;
};

function childOf(engine: LlamaEngine, model = DEMO): number {
  const pid = engine.children().get(model);
  assert.ok(pid !== undefined, 'the model has a child');
  return pid;
}

/** Begins a long answer and calls `strike` after its first text; what the answer then ends with. */
async function struck(engine: LlamaEngine, strike: () => void): Promise<void> {
  let fresh = true;
  for await (const event of engine.infer(chatRequest(STORY), { signal: neverAborted })) {
    if (event.type === 'chunk' && fresh) {
      fresh = false;
      strike();
    }
  }
}

for (const signal of ['SIGKILL', 'SIGSEGV'] as const) {
  test(`an engine child that dies of ${signal} fails what it was at, and the next request is answered`, async (t) => {
    const engine = demoEngine(t);
    const before = (await ask(engine, STORY)).text;
    const pid = childOf(engine);
    // Stopped first, so that the answer cannot be over before the blow.
    await assert.rejects(
      struck(engine, () => {
        process.kill(pid, 'SIGSTOP');
        process.kill(pid, signal);
        if (signal !== 'SIGKILL') process.kill(pid, 'SIGCONT');
      }),
      failure('engine_failed', new RegExp(`ended: signal ${signal}`)),
    );
    assert.equal(engine.catalog()[0]?.state, 'on-disk');
    assert.equal((await ask(engine, STORY)).text, before);
    assert.notEqual(childOf(engine), pid);
  });
}

test('requests that only wait outlive a crash of the child', async (t) => {
  const engine = demoEngine(t, { parallel: 1 });
  await ask(engine, 'Hello!');
  const pid = childOf(engine);
  const waiting: Promise<unknown>[] = [];
  const running = struck(engine, () => {
    process.kill(pid, 'SIGSTOP');
    waiting.push(ask(engine, 'What is meshnode?'));
    setImmediate(() => process.kill(pid, 'SIGKILL'));
  });
  await assert.rejects(running, failure('engine_failed', /SIGKILL/));
  const [answer] = await Promise.all(waiting);
  assert.match((answer as { text: string }).text, /^Meshnode joins/);
});

test('a stopped child is seen as wedged, killed and replaced', async (t) => {
  const engine = demoEngine(t, { wedgedAfterMs: 700 });
  await ask(engine, 'Hello!');
  const pid = childOf(engine);
  await assert.rejects(
    struck(engine, () => process.kill(pid, 'SIGSTOP')),
    failure('wedged', /stopped responding/),
  );
  assert.match((await ask(engine, 'What is meshnode?')).text, /^Meshnode joins/);
  assert.notEqual(childOf(engine), pid);
  assert.throws(() => process.kill(pid, 0), 'the wedged one is gone');
});

test('three crashes in a row quarantine the model, which says so and when to come back', async (t) => {
  const engine = demoEngine(t);
  for (let crash = 0; crash < 3; crash += 1) {
    // Its restart after the second crash takes longer than requests wait, so that it is awaited here.
    await answered(engine);
    const pid = childOf(engine);
    const failed = new Promise<void>((resolve) => {
      engine.onEvent((event) => {
        if (event.type === 'failed') resolve();
      });
    });
    process.kill(pid, 'SIGKILL');
    await failed;
  }
  await assert.rejects(ask(engine, 'Hello!'), (error) => {
    failure('engine_failed', /three times in five minutes/)(error);
    return error instanceof MeshError && (error.facts.retryAfterMs ?? 0) > 60_000;
  });
});

/** Asks until the engine is back. */
async function answered(engine: LlamaEngine): Promise<void> {
  for (;;) {
    try {
      await ask(engine, 'Hello!');
      return;
    } catch (error) {
      assert.ok(error instanceof MeshError && error.facts.retryAfterMs !== undefined, String(error));
      await pause(error.facts.retryAfterMs);
    }
  }
}

function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'meshnode-engine-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** The demo model with more layers promised than there are tensors for. */
function lyingModel(folder: string): string {
  const bytes = readFileSync(demoModelPath());
  const key = Buffer.from('llama.block_count');
  const value = bytes.indexOf(key) + key.length + 4;
  bytes.writeUInt32LE(40, value);
  const file = path.join(folder, 'lying.gguf');
  writeFileSync(file, bytes);
  return file;
}

test('a model file that lies, is cut or is gone fails clearly and leaves other models alone', async (t) => {
  const folder = temporaryFolder(t);
  const cut = path.join(folder, 'cut.gguf');
  writeFileSync(cut, readFileSync(demoModelPath()).subarray(0, 2_000_000));
  const gone = path.join(folder, 'gone.gguf');
  copyFileSync(demoModelPath(), gone);
  const models = new ModelList([
    modelFile(DEMO, demoModelPath()),
    modelFile('lying', lyingModel(folder)),
    modelFile('cut', cut),
    modelFile('gone', gone),
  ]);
  rmSync(gone);
  const engine = demoEngine(t, {}, models);
  const failed: string[] = [];
  engine.onEvent((event) => {
    if (event.type === 'failed') failed.push(event.model);
  });
  for (const model of ['lying', 'cut', 'gone']) {
    await assert.rejects(
      async () => {
        for await (const _ of engine.infer(chatRequest('Hi', {}, model), { signal: neverAborted }));
      },
      failure('engine_failed', /load|tensor|ENOENT|no such file/i),
    );
  }
  assert.deepEqual(failed, ['lying', 'cut', 'gone']);
  assert.match((await ask(engine, 'What is meshnode?')).text, /^Meshnode joins/);
});

test('a context that cannot fit the memory is refused as out_of_memory before anything is allocated', async (t) => {
  const engine = demoEngine(t, { contextTokens: 500_000_000 });
  await assert.rejects(ask(engine, 'Hello!'), failure('out_of_memory', /needs at least \d+ MiB .* --context/));
});

test('a model whose file is gone finishes what it has and gives its child up', async (t) => {
  const models = new ModelList([modelFile(DEMO, demoModelPath())]);
  const engine = demoEngine(t, {}, models);
  await ask(engine, 'Hello!');
  const pid = childOf(engine);
  const running = ask(engine, STORY);
  models.replace([]);
  assert.match((await running).text, /Hugo/);
  await assert.rejects(ask(engine, 'Hello!'), failure('model_not_loaded', /does not have/));
  while (isAlive(pid)) await pause(20);
});

test('stopping fails what runs as draining and leaves no child', async (t) => {
  const engine = demoEngine(t);
  await ask(engine, 'Hello!');
  const pid = childOf(engine);
  const running = struck(engine, () => void engine.stop(AbortSignal.timeout(5_000)));
  await assert.rejects(running, failure('draining', /shutting down/));
  while (isAlive(pid)) await pause(20);
  await engine.stop(AbortSignal.timeout(5_000));
  await assert.rejects(ask(engine, 'Hello!'), failure('draining', /shutting down/));
});

for (const when of ['loading', 'generating'] as const) {
  test(`an engine child ends when its node is killed while it is ${when}`, async (t) => {
    const main = path.join(import.meta.dirname, '../support/engine-parent-main.ts');
    const parent = spawn(process.execPath, [main, when], { stdio: ['ignore', 'pipe', 'inherit'] });
    t.after(() => parent.kill('SIGKILL'));
    const [line] = (await once(createInterface({ input: parent.stdout }), 'line')) as [string];
    const pid = Number(line);
    assert.ok(isAlive(pid));
    parent.kill('SIGKILL');
    while (isAlive(pid)) await pause(20);
  });
}

/** A zombie that nobody has reaped yet counts as dead. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  const status = `/proc/${pid}/stat`;
  return !existsSync(status) || !readFileSync(status, 'utf8').includes(') Z ');
}
