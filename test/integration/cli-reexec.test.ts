/** The bin on a Node that is too old: it re-executes on the brought one, passes signals on once, and leaves no orphan. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, test } from 'node:test';
import { findOldNode, MESHNODE, runCli, spawnCli } from '../support/cli-process.ts';

const root = mkdtempSync(join(tmpdir(), 'meshnode-reexec-'));
after(() => rmSync(root, { recursive: true, force: true }));

/**
 * A package whose bin believes that this Node is too old and finds a brought one (a script that starts this very Node),
 * with a main that says what happens to it. The signal source is the real one.
 */
function stage(): string {
  const dir = mkdtempSync(join(root, 'stage-'));
  const source = readFileSync(MESHNODE, 'utf8');
  const needed = source.replace('if (isNewEnough(process.versions.node))', "if (process.env.BROUGHT === '1')");
  assert.notEqual(needed, source);
  mkdirSync(join(dir, 'cli'));
  writeFileSync(join(dir, 'cli/meshnode.js'), needed);
  writeFileSync(join(dir, 'package.json'), '{"type":"module"}');
  const signals = new URL('../../cli/signal-source.ts', import.meta.url).href;
  writeFileSync(
    join(dir, 'cli/main.ts'),
    `export async function main(argv: string[]): Promise<number> {
      const { SignalSource } = await import(${JSON.stringify(signals)});
      const source = new SignalSource(process);
      if (argv[0] === 'code') return Number(argv[1]);
      if (argv[0] === 'crash') process.kill(process.pid, 'SIGKILL');
      const say = (line: object): void => void process.stdout.write(JSON.stringify(line) + '\\n');
      const stop = Promise.withResolvers<number>();
      const timer = setInterval(() => {}, 1000);
      if (argv[0] === 'listen') source.listen((signal: string, count: number) => {
        say({ signal, count });
        if (argv[1] === String(count)) { clearInterval(timer); stop.resolve(0); }
      });
      say({ pid: process.pid, argv });
      return await stop.promise;
    }`,
  );
  return dir;
}

function bring(dir: string, version: string): void {
  mkdirSync(join(dir, 'node_modules/node/bin'), { recursive: true });
  writeFileSync(join(dir, 'node_modules/node/package.json'), JSON.stringify({ name: 'node', version }));
  const binary = join(dir, 'node_modules/node/bin/node');
  writeFileSync(binary, `#!/bin/sh\nBROUGHT=1 exec "${process.execPath}" "$@"\n`);
  chmodSync(binary, 0o755);
}

interface Running {
  readonly parent: ChildProcess;
  readonly childPid: number;
  readonly next: () => Promise<Record<string, unknown>>;
  /** Everything that was written, once both processes are gone (only then does the pipe end). */
  readonly ended: Promise<unknown>;
}

async function launch(args: readonly string[], detached = false): Promise<Running> {
  const dir = stage();
  bring(dir, '24.1.0');
  const script = join(dir, 'cli/meshnode.js');
  const parent = detached
    ? spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'pipe', 'inherit'], detached: true })
    : spawnCli(args, { home: dir, script }, ['ignore', 'pipe', 'inherit']);
  if (parent.stdout === null) throw new Error('no pipe');
  const ended = once(parent.stdout, 'close');
  const lines = createInterface({ input: parent.stdout })[Symbol.asyncIterator]();
  const next = async (): Promise<Record<string, unknown>> =>
    JSON.parse(String((await lines.next()).value)) as Record<string, unknown>;
  const { pid } = await next();
  return { parent, childPid: Number(pid), next, ended };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

test('passes arguments and the exit code through', async () => {
  const dir = stage();
  bring(dir, '24.1.0');
  const script = join(dir, 'cli/meshnode.js');
  assert.equal((await runCli(['code', '7'], { home: dir, script })).code, 7);
  assert.equal((await runCli(['code', '0'], { home: dir, script })).code, 0);
});

test('ends by the signal that ended its child', async () => {
  const dir = stage();
  bring(dir, '24.1.0');
  const { code, signal } = await runCli(['crash'], { home: dir, script: join(dir, 'cli/meshnode.js') });
  assert.deepEqual([code, signal], [null, 'SIGKILL']);
});

test('a signal to the parent alone reaches the child once', async () => {
  const { parent, next, ended } = await launch(['listen', '2']);
  const exited = once(parent, 'exit');
  parent.kill('SIGTERM');
  assert.deepEqual(await next(), { signal: 'SIGTERM', count: 1 });
  parent.kill('SIGINT');
  assert.deepEqual(await next(), { signal: 'SIGINT', count: 2 });
  assert.deepEqual(await exited, [0, null]);
  await ended;
});

test('a Ctrl-C of the terminal, which both processes get, counts once', async () => {
  const { parent, next, ended } = await launch(['listen', '2'], true);
  const exited = once(parent, 'exit');
  const group = -(parent.pid ?? 0);
  process.kill(group, 'SIGINT');
  assert.deepEqual(await next(), { signal: 'SIGINT', count: 1 });
  process.kill(group, 'SIGINT');
  assert.deepEqual(await next(), { signal: 'SIGINT', count: 2 });
  assert.deepEqual(await exited, [0, null]);
  await ended;
});

test('without a listener a forwarded signal ends the child as the signal itself would', async () => {
  const { parent, ended } = await launch(['wait']);
  const exited = once(parent, 'exit');
  parent.kill('SIGTERM');
  assert.deepEqual(await exited, [null, 'SIGTERM']);
  await ended;
});

test('the child does not outlive a killed parent', async () => {
  for (const args of [['wait'], ['listen', '1']]) {
    const { parent, childPid, ended } = await launch(args);
    assert.equal(isAlive(childPid), true);
    parent.kill('SIGKILL');
    await ended;
  }
});

test('says in one line what is missing where no newer Node was brought, or only an old one', async () => {
  const dir = stage();
  const script = join(dir, 'cli/meshnode.js');
  for (const prepare of [() => {}, () => bring(dir, '22.17.9')]) {
    prepare();
    const { code, err, out } = await runCli(['start'], { home: dir, script });
    assert.equal(code, 1);
    assert.equal(out, '');
    assert.match(
      err,
      /^meshnode: needs Node\.js 22\.18 or newer and this is \S+: run "npm ci" .* install Node\.js 24 .*\n$/,
    );
  }
});

const oldNode = await findOldNode();
const skip = oldNode === null ? 'there is no Node older than 22 on this machine' : false;

test('on an old Node the checkout runs on the Node that it brought', { skip }, async () => {
  const home = mkdtempSync(join(root, 'home-'));
  const { code, out, err } = await runCli(['version', '--json'], {
    home,
    ...(oldNode === null ? {} : { node: oldNode }),
  });
  assert.equal(err, '');
  assert.equal(code, 0);
  assert.ok(Number((JSON.parse(out) as { node: string }).node.split('.')[0]) >= 22);
});

test('on an old Node without a brought one the bin says what is missing', { skip }, async () => {
  const home = mkdtempSync(join(root, 'home-'));
  mkdirSync(join(home, 'cli'));
  copyFileSync(MESHNODE, join(home, 'cli/meshnode.js'));
  writeFileSync(join(home, 'package.json'), '{"type":"module"}');
  const script = join(home, 'cli/meshnode.js');
  const { code, err } = await runCli(['start'], { home, script, ...(oldNode === null ? {} : { node: oldNode }) });
  assert.equal(code, 1);
  assert.match(err, /^meshnode: needs Node\.js 22\.18 or newer and this is \d+\.\d+\.\d+: .*\n$/);
});
