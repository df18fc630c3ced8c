import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { demoModelPath } from '../../node/backends/llama-cpp/demo/demo-model.ts';
import { Lan, namespacesUnavailable } from '../support/namespaces.ts';
import { signalQuietly, temporaryDir } from '../support/node-process.ts';
import { fencesOf } from '../support/page-fences.ts';

const root = path.resolve(import.meta.dirname, '../..');
const MACHINES = ['attic', 'cellar', 'desk'];
/** The machine with a server that speaks HTTP, at the address that the README names. */
const BOX = 3;
const PATIENCE_MS = 60_000;

interface Line {
  readonly machine: number;
  readonly command: string;
}

/** The commands of the README's section on routing, in order, as they stand there. */
function readmeLines(): Line[] {
  const readme = readFileSync(path.join(root, 'README.md'), 'utf8');
  const section = readme.slice(readme.indexOf('\n## Routing'), readme.indexOf('\n## Commands'));
  return fencesOf(section).flatMap(({ info, body }) => {
    assert.equal(info, 'console', 'every block has prompts');
    const joined = body
      .replace(/\s*\\\n\s*/g, ' ')
      .trim()
      .split('\n');
    return joined.map((line) => {
      const [, name = '', command = ''] = /^(\w+)\$\s+(.*)$/.exec(line) ?? assert.fail(`no prompt: ${line}`);
      return { machine: MACHINES.indexOf(name), command };
    });
  });
}

describe("the README's routing section, word for word on three machines", {
  skip: namespacesUnavailable() ?? false,
}, () => {
  const lines = readmeLines();
  const homes = MACHINES.map(() => temporaryDir());
  const bin = temporaryDir();
  const started: ChildProcess[] = [];
  let lan: Lan;
  let screen = '';

  const spawnOn = (machine: number, command: string): ChildProcess => {
    const [ip = '', ...args] = lan.on(machine);
    const env = { PATH: `${bin}:${process.env['PATH']}`, HOME: homes[machine] ?? bin };
    return spawn(ip, [...args, 'bash', '-c', `exec ${command}`], { env, stdio: 'pipe' });
  };
  /** Runs the README's next line that begins so, with `input` typed into it; returns all that it prints. */
  const follow = async (beginning: string, input = ''): Promise<string> => {
    const line =
      lines.find(({ command }) => command.startsWith(beginning)) ?? assert.fail(`not in the README: ${beginning}`);
    return run(line.machine, line.command, input);
  };
  const run = async (machine: number, command: string, input = ''): Promise<string> => {
    const child = spawnOn(machine, command.replace(/^exec /, ''));
    const closed = once(child, 'close');
    child.stdin?.end(input);
    assert.ok(child.stdout !== null && child.stderr !== null);
    const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)]);
    const [code] = (await closed) as [number | null];
    assert.equal(code, 0, `${command}\n${out}${err}`);
    return out;
  };
  const ask = async (model: string, ...headers: string[]): Promise<string> => {
    const body = JSON.stringify({ model, temperature: 0, messages: [{ role: 'user', content: 'Hi' }] });
    const extra = headers.map((header) => `-H '${header}'`).join(' ');
    return run(
      0,
      `curl -si http://127.0.0.1:8642/v1/chat/completions -H 'content-type: application/json' ${extra} -d '${body}'`,
    );
  };
  const until = async (claim: () => Promise<boolean>): Promise<void> => {
    const end = performance.now() + PATIENCE_MS;
    while (!(await claim())) {
      assert.ok(performance.now() < end, `waited too long; attic shows:\n${screen}`);
      await sleep(100);
    }
  };

  before(async () => {
    writeFileSync(
      path.join(bin, 'npx'),
      `#!/bin/sh\nshift\nexec "${process.execPath}" "${root}/cli/meshnode.js" "$@"\n`,
    );
    chmodSync(path.join(bin, 'npx'), 0o755);
    for (const home of homes) {
      mkdirSync(path.join(home, 'models'));
      for (const name of ['small', 'big']) cpSync(demoModelPath(), path.join(home, `models/${name}.gguf`));
    }
    lan = new Lan(BOX + 1);
    lan.addAddress(0, '192.168.1.10/24');
    lan.addAddress(BOX, '192.168.1.20/24');
    const box = spawnOn(BOX, `"${process.execPath}" "${root}/test/support/openai-server-main.ts" 192.168.1.20 8000`);
    started.push(box);
    for (const { machine, command } of lines.filter((line) => line.command.startsWith('npx meshnode start'))) {
      const node = spawnOn(machine, command);
      started.push(node);
      node.stdout?.on('data', (data: Buffer) => {
        if (machine === 0) screen += data.toString();
      });
      node.stderr?.resume();
    }
    await until(async () => /cellar.* joined with big/.test(screen) && /desk.* joined with big/.test(screen));
  });
  after(async () => {
    for (const child of started) {
      if (child.exitCode !== null || child.pid === undefined) continue;
      signalQuietly(child.pid, 'SIGKILL');
      await once(child, 'exit');
    }
    lan.close();
    for (const dir of [...homes, bin]) rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
  });

  test('D-15 D-11 strategy and priority change without a restart, and the preferred node answers', async () => {
    await follow('npx meshnode config set loadBalancing.strategy priority');
    await follow('npx meshnode peers set cellar --priority 10');
    await until(async () => /strategy\W+priority/i.test(await follow('npx meshnode pool status')));
    await until(async () => /cellar.*10/.test(await follow('npx meshnode pool status')));
    const peers = JSON.parse(await run(0, 'npx meshnode peers --json')) as {
      peers: { name: string; fingerprint: string }[];
    };
    const cellar = peers.peers.find((peer) => peer.name === 'cellar')?.fingerprint;
    assert.match(await ask('big'), new RegExp(`x-meshnode-node: ${cellar}`));
  });

  test('an answer can be explained by its id', async () => {
    const answer = await follow(
      "curl -s http://127.0.0.1:8642/v1/chat/completions -H 'content-type: application/json' -H 'x-request-id",
    );
    assert.match(answer, /"object":"chat.completion"/);
    assert.match(await follow('npx meshnode explain try-1'), /cellar|priority/);
    assert.match(await follow('npx meshnode pool stats'), /cellar/);
  });

  test('a boundary fails rather than travels', async () => {
    const lineStart =
      "curl -s http://127.0.0.1:8642/v1/chat/completions -H 'content-type: application/json' -H 'x-meshnode-boundary";
    assert.match(await follow(lineStart), /model_not_available/);
  });

  test('D-47 a node that gave out a key refuses without it with 401 and answers with it', async () => {
    const printed = await follow('npx meshnode keys create attic');
    const key = /mk_[\w-]+/.exec(printed)?.[0] ?? assert.fail(`no key in ${printed}`);
    await until(async () => / 401 /.test(await ask('big')));
    assert.match(await run(0, 'npx meshnode peers'), /cellar.*unauthorized/);
    await follow('npx meshnode peers set cellar --key-stdin', `${key}\n`);
    await until(async () => / 200 /.test(await ask('big')));
    const shown = (await run(0, 'npx meshnode peers --json')) + screen;
    assert.ok(!shown.includes(key), 'the key is shown nowhere');
  });

  test('a server that speaks HTTP is registered, answers and is removed', async () => {
    await follow('npx meshnode backends add', 'secret-key\n');
    assert.match(await follow('npx meshnode backends test box'), /boxed/);
    await until(async () => / 200 /.test(await ask('boxed')));
    assert.match(await ask('boxed'), /x-meshnode-node: api:box/);
    assert.match(await ask('boxed', 'x-meshnode-boundary: local'), / 503 /);
    await follow('npx meshnode backends remove box');
    await until(async () => / 503 /.test(await ask('boxed')));
  });

  test('a drained node takes nothing new and is opened again', async () => {
    await run(0, 'npx meshnode drain');
    assert.match(await ask('small'), / 503 [\s\S]*retry-after/i);
    await run(0, 'npx meshnode resume');
    assert.match(await ask('small'), / 200 /);
  });
});
