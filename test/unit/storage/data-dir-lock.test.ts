import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { DataDirLock } from '../../../node/storage/data-dir-lock.ts';

const root = mkdtempSync(join(tmpdir(), 'meshnode-lock-'));
after(() => rmSync(root, { recursive: true, force: true }));

const MODULE = new URL('../../../node/storage/data-dir-lock.ts', import.meta.url).href;

/** A process that takes the lock, says so, and lives until it is killed. */
async function holder(dir: string): Promise<ChildProcess> {
  const script = `const { DataDirLock } = await import(${JSON.stringify(MODULE)});
    await new DataDirLock(${JSON.stringify(dir)}).start().then(() => process.send('held'), () => process.send('refused'));
    setInterval(() => {}, 1e6);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const [said] = (await once(child, 'message')) as [string];
  assert.equal(said, 'held');
  return child;
}

async function kill(child: ChildProcess): Promise<void> {
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
}

test('refuses a data dir that another process holds, naming it, and takes it after that was killed', async () => {
  const dir = mkdtempSync(join(root, 'a-'));
  const child = await holder(dir);
  const lock = new DataDirLock(dir);
  try {
    await assert.rejects(lock.start(), (error: { code?: string; message: string }) => {
      assert.equal(error.code, 'invalid_request');
      assert.match(error.message, new RegExp(`in use by process ${child.pid}: stop that node, or .* --data-dir`));
      return true;
    });
  } finally {
    await kill(child);
  }
  await lock.start();
  lock.stop();
});

test('of many processes that race for the dir of a killed one exactly one wins', async () => {
  const dir = mkdtempSync(join(root, 'b-'));
  await kill(await holder(dir));
  const locks = Array.from({ length: 8 }, () => new DataDirLock(dir));
  const outcomes = await Promise.allSettled(locks.map((lock) => lock.start()));
  assert.equal(outcomes.filter((outcome) => outcome.status === 'fulfilled').length, 1);
  for (const lock of locks) lock.stop();
});

test('start and stop can be repeated', async () => {
  const dir = mkdtempSync(join(root, 'c-'));
  const lock = new DataDirLock(dir);
  lock.stop();
  await lock.start();
  await lock.start();
  lock.stop();
  lock.stop();
  await lock.start();
  lock.stop();
});

test('a dir that cannot be written is refused with a sentence', async () => {
  await assert.rejects(new DataDirLock(join(root, 'absent')).start(), /cannot lock the data directory/);
});
