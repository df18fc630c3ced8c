/** `meshnode batch` against a node in this process. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { CliProcess } from '../support/batch-cli.ts';
import { assertEachOnce, BatchClient, chatLine, isAnswerOf, type OutcomeLine } from '../support/batch-client.ts';
import { type BatchNode, startBatchNode } from '../support/batch-node.ts';

let node: BatchNode;
const client = new BatchClient(() => node.api);

before(async () => {
  node = await startBatchNode();
});
after(async () => {
  await node?.stop();
});

const cli = (...words: string[]): CliProcess => new CliProcess(['batch', ...words, '--data-dir', node.dataDir]);
const file = (name: string): string => path.join(node.dataDir, name);
const linesOf = (name: string): OutcomeLine[] =>
  readFileSync(file(name), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as OutcomeLine);
const write = (name: string, lines: readonly string[]): string => {
  writeFileSync(file(name), lines.join('\n'));
  return file(name);
};

test('a run asks every line, writes both files, and says how it went', async () => {
  const input = write('a.jsonl', [...Array.from({ length: 30 }, (_, index) => chatLine(index)), 'nonsense']);
  const { code, stdout } = await cli('run', input, '--out', file('a.out')).ended();
  assert.equal(code, 1, stdout);
  assert.match(stdout, /begun: batch_/);
  assert.match(stdout, /completed: 30 answered, 1 failed/);
  assertEachOnce(linesOf('a.out'), 30);
  assert.equal(linesOf('a.out.errors.jsonl')[0]?.error?.line, 31);
  const again = await cli('run', input, '--out', file('a.out')).ended();
  assert.match(again.stdout, /done before: batch_/);
  assertEachOnce(linesOf('a.out'), 30);
});

test('--model asks another model than the lines name', async () => {
  const input = write('b.jsonl', [chatLine(1, {}, { model: 'nobody-has-it' })]);
  const { code, stdout } = await cli('run', input, '--out', file('b.out'), '--model', 'm', '--json').ended();
  assert.equal(code, 0, stdout);
  const last = JSON.parse(stdout.trimEnd().split('\n').at(-1) ?? '') as { event: string; completed: number };
  assert.deepEqual([last.event, last.completed], ['over', 1]);
  const [line] = linesOf('b.out');
  assert.ok(line !== undefined && isAnswerOf(line, 1));
});

test('Ctrl-C leaves the batch to the node, and the same command goes on with it', async () => {
  const { engine } = node;
  assert.ok(engine !== null);
  engine.tokenDelayMs = 100;
  const input = write(
    'c.jsonl',
    Array.from({ length: 800 }, (_, index) => chatLine(index)),
  );
  const first = cli('run', input, '--out', file('c.out'));
  const [, id = ''] = await first.said(/begun: (batch_\w+)/);
  first.interrupt();
  const { code, stdout } = await first.ended();
  assert.equal(code, 130, stdout);
  assert.match(stdout, /goes on in the node/);
  assert.ok(!existsSync(file('c.out')));
  assert.match((await cli('list').ended()).stdout, new RegExp(id));
  engine.tokenDelayMs = 0;
  const second = await cli('run', input, '--out', file('c.out')).ended();
  assert.match(second.stdout, new RegExp(`(going on|done before): ${id}`));
  assert.equal(second.code, 0, second.stdout);
  assertEachOnce(linesOf('c.out'), 800);
});

test('a batch is shown, cancelled and downloaded by its id', async () => {
  const { engine } = node;
  assert.ok(engine !== null);
  engine.tokenDelayMs = 2000;
  const slow = Array.from({ length: 600 }, (_, index) => chatLine(index, {}, { max_tokens: index === 0 ? 1 : 100 }));
  const { id } = await client.begin(slow.join('\n'));
  await client.until(id, ({ request_counts }) => request_counts.completed > 0);
  const [shown, early] = await Promise.all([
    cli('status', id).ended(),
    cli('download', id, '--out', file('d.out')).ended(),
  ]);
  assert.match(shown.stdout, /in_progress: 1 of 600 done/);
  assert.match(early.stderr, /not over yet/);
  assert.match((await cli('cancel', id).ended()).stdout, /cancell/);
  await client.over(id);
  engine.tokenDelayMs = 0;
  await cli('download', id, '--out', file('d.out')).ended();
  assert.deepEqual(
    linesOf('d.out').map(({ custom_id }) => custom_id),
    ['line-0'],
  );
});

test('what cannot be run is refused in one line', async () => {
  const [bare, absent, unknown] = await Promise.all([
    cli('run').ended(),
    cli('run', file('none.jsonl'), '--out', file('x')).ended(),
    cli('status', 'batch_none').ended(),
  ]);
  assert.match(bare.stderr, /IN\.jsonl is missing/);
  assert.match(absent.stderr, /cannot read .*none\.jsonl \(ENOENT\)/);
  assert.match(unknown.stderr, /no batch/);
});
