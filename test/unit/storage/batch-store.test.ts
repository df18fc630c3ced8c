import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, test } from 'node:test';
import { BatchStore, type LineOutcome, type StoredBatch } from '../../../node/storage/batch-store.ts';
import { inputLines, readLine } from '../../../node/storage/batch-store-input.ts';
import fc from '../../support/fc.ts';

const dirs: string[] = [];
const newDir = (): string => {
  const dir = mkdtempSync(path.join(tmpdir(), 'meshnode-batch-'));
  dirs.push(dir);
  return dir;
};
after(() => {
  for (const dir of dirs) rmSync(dir, { recursive: true, force: true });
});

function setUp(dataDir = newDir()) {
  const warnings: string[] = [];
  const store = new BatchStore({ warn: (message) => warnings.push(message) }, { dataDir });
  return { store, warnings, dataDir };
}

let count = 0;
function begin(store: BatchStore, lines: number): StoredBatch {
  count += 1;
  const facts = { endpoint: '/v1/completions', inputFileId: 'file-x', window: '24h', createdAt: 1, expiresAt: 2 };
  const batch = store.add(`batch_${count}`, { ...facts, metadata: { a: 'b' }, boundary: null });
  const made = Array.from({ length: lines }, (_, index) => ({
    line: index + 1,
    customId: `c${index + 1}`,
    model: 'm',
    at: index * 10,
    sizeBytes: 9,
    outcome: null,
  }));
  store.addLines(batch.seq, made);
  return batch;
}

const outcome = (batch: StoredBatch, line: number, text = `answer ${line}`, isOk = true): LineOutcome => ({
  batch: batch.seq,
  line,
  isOk,
  text,
  promptTokens: 2,
  completionTokens: 3,
});

test('an answer is kept once, counted once, and its line is not asked again, also after a crash', () => {
  const { store, dataDir } = setUp();
  const batch = begin(store, 3);
  store.finish([outcome(batch, 2), outcome(batch, 2, 'another'), outcome(batch, 3, 'refused', false)]);
  store.finish([outcome(batch, 3, 'late')]);
  // No close: what a killed process leaves.
  const { store: reopened } = setUp(dataDir);
  const { total, completed, failed, promptTokens, completionTokens, metadata } = reopened.require(batch.id);
  assert.deepEqual([total, completed, failed, promptTokens, completionTokens], [3, 1, 1, 4, 6]);
  assert.deepEqual(metadata, { a: 'b' });
  const rest = reopened.pending(batch.seq, 'm', { after: 0, limit: 10 });
  assert.deepEqual(
    rest.map(({ line }) => line),
    [1],
  );
  assert.deepEqual(reopened.outcomes(batch.seq, true, { after: 0, limit: 10 }), [{ line: 2, text: 'answer 2' }]);
  assert.deepEqual(reopened.outcomes(batch.seq, false, { after: 0, limit: 10 }), [{ line: 3, text: 'refused' }]);
  reopened.close();
  store.close();
});

test('whatever is finished in whatever order, each custom id has one outcome, the first', () => {
  const { store } = setUp();
  fc.assert(
    fc.property(
      fc.array(fc.array(fc.record({ line: fc.integer({ min: 1, max: 8 }), isOk: fc.boolean() }), { maxLength: 6 }), {
        maxLength: 6,
      }),
      (transactions) => {
        const batch = begin(store, 8);
        const first = new Map<number, { text: string; isOk: boolean }>();
        let sequence = 0;
        for (const transaction of transactions) {
          const outcomes = transaction.map(({ line, isOk }) => outcome(batch, line, `${sequence++}`, isOk));
          for (const { line, text, isOk } of outcomes) if (!first.has(line)) first.set(line, { text, isOk });
          store.finish(outcomes);
        }
        for (const isOk of [true, false]) {
          const kept = store.outcomes(batch.seq, isOk, { after: 0, limit: 100 });
          const due = [...first].filter(([, each]) => each.isOk === isOk).map(([line, { text }]) => ({ line, text }));
          assert.deepEqual(
            kept,
            due.toSorted((a, b) => a.line - b.line),
          );
        }
        const { completed, failed } = store.require(batch.id);
        assert.equal(completed + failed + store.pendingCount(batch.seq), 8);
        assert.equal(completed + failed, first.size);
      },
    ),
  );
  store.close();
});

test('a custom id that is there already is told, and not added', () => {
  const { store } = setUp();
  const batch = begin(store, 2);
  const line = { line: 3, customId: 'c1', model: 'm', at: 0, sizeBytes: 1, outcome: null };
  assert.deepEqual(store.addLines(batch.seq, [line]), [line]);
  assert.equal(store.lineOf(batch.seq, 'c1'), 1);
  assert.equal(store.require(batch.id).total, 2);
  store.close();
});

test('the lines of batches that are over are removed, those of others stay', () => {
  const { store } = setUp();
  const [over, open] = [begin(store, 300), begin(store, 5)];
  store.transaction(() => store.update(over.id, 'completed', { completedAt: 9, outputFileId: 'file-o' }));
  while (store.removeFinished());
  assert.equal(store.pendingCount(over.seq), 0);
  assert.equal(store.pendingCount(open.seq), 5);
  assert.deepEqual(
    store.open().map(({ id }) => id),
    [open.id],
  );
  assert.equal(store.require(over.id).outputFileId, 'file-o');
  store.close();
});

test('a transaction that fails leaves nothing', () => {
  const { store } = setUp();
  const batch = begin(store, 1);
  assert.throws(() =>
    store.transaction(() => {
      store.update(batch.id, 'completed');
      throw new Error('no');
    }),
  );
  assert.equal(store.require(batch.id).state, 'validating');
  store.close();
});

test('files and database are their owner’s alone; an upload that never ended is swept away', async () => {
  const { store, dataDir } = setUp();
  const kept = await store.files.create('in.jsonl', 'batch');
  await kept.write(Buffer.from('abc'));
  await kept.sync();
  store.files.register(kept.file());
  const cut = await store.files.create('cut.jsonl', 'batch');
  await cut.write(Buffer.from('half'));
  await store.files.sweep();
  assert.deepEqual(readdirSync(path.join(dataDir, 'batch-files')), [kept.file().id]);
  if (process.platform !== 'win32') {
    assert.equal(statSync(path.join(dataDir, 'batches.db')).mode & 0o077, 0);
    assert.equal(statSync(path.join(dataDir, 'batch-files')).mode & 0o077, 0);
    assert.equal(statSync(store.files.path(kept.file().id)).mode & 0o077, 0);
  }
  assert.equal(store.files.totalBytes(), 3);
  await cut.discard();
  store.close();
});

test('a database that cannot be read is set aside with its files, and batches begin anew', () => {
  const { store, dataDir } = setUp();
  begin(store, 1);
  store.close();
  writeFileSync(path.join(dataDir, 'batches.db'), 'this is no database, and long enough to be looked at '.repeat(100));
  const { store: anew, warnings } = setUp(dataDir);
  assert.equal(anew.open().length, 0);
  assert.match(warnings[0] ?? '', /set aside as .*batches\.db\.unreadable-\d+; batches begin anew/);
  const names = readdirSync(dataDir).join(' ');
  assert.match(names, /batches\.db\.unreadable-\d+/);
  assert.match(names, /batch-files\.unreadable-\d+/);
  anew.close();
});

test('a database that another program holds just now is left alone, with a word of what to look for', () => {
  const { store, dataDir } = setUp();
  const { id } = begin(store, 1);
  store.close();
  const other = new DatabaseSync(path.join(dataDir, 'batches.db'));
  other.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE');
  assert.throws(() => setUp(dataDir), {
    code: 'internal_error',
    message: /database is locked\): is it in use elsewhere/,
  });
  other.exec('ROLLBACK');
  other.close();
  const again = setUp(dataDir);
  assert.equal(again.store.get(id)?.id, id);
  assert.deepEqual(again.warnings, []);
  again.store.close();
});

test('a database of a newer release is left alone', () => {
  const { store, dataDir } = setUp();
  store.close();
  const raw = new DatabaseSync(path.join(dataDir, 'batches.db'));
  raw.exec('PRAGMA user_version = 99');
  raw.close();
  assert.throws(() => setUp(dataDir), /newer meshnode/);
});

test('every line of any input is found, and can be read again where it stands', async () => {
  const dir = newDir();
  const file = path.join(dir, 'in.jsonl');
  const line = fc.string({ unit: fc.constantFrom('a', '{', '"', ' ', 'é', '\r', '\t'), maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(
      fc.array(line, { maxLength: 8 }),
      fc.constantFrom('\n', '\r\n'),
      fc.boolean(),
      async (lines, end, hasMark) => {
        const text = (hasMark ? '\ufeff' : '') + lines.join(end);
        writeFileSync(file, text);
        const expected = lines
          .join(end)
          .split('\n')
          .map((each, index) => ({ number: index + 1, text: each.endsWith('\r') ? each.slice(0, -1) : each }))
          .filter((each) => !/^[ \t]*$/.test(each.text));
        const found: { number: number; text: string }[] = [];
        const handle = await open(file);
        for await (const { number, at, sizeBytes, bytes } of inputLines(file, 1000)) {
          assert.equal((await readLine(handle, at, sizeBytes)).toString(), bytes?.toString());
          found.push({ number, text: bytes?.toString() ?? '' });
        }
        await handle.close();
        assert.deepEqual(found, expected);
      },
    ),
  );
});

test('a line that is too long is told without being held, and the next one is found', async () => {
  const file = path.join(newDir(), 'in.jsonl');
  writeFileSync(file, `${'x'.repeat(700_000)}\n{"a":1}\n`);
  const found: [number, number, string | null][] = [];
  for await (const { number, at, bytes } of inputLines(file, 1000)) found.push([number, at, bytes?.toString() ?? null]);
  assert.deepEqual(found, [
    [1, 0, null],
    [2, 700_001, '{"a":1}'],
  ]);
});
