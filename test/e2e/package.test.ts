import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, globSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { NodeProcess, temporaryDir } from '../support/node-process.ts';

const root = path.resolve(import.meta.dirname, '../..');
const engineVersion = (
  JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { dependencies: Record<string, string> }
).dependencies['node-llama-cpp'];

const npm = (cwd: string, ...args: string[]): string =>
  execFileSync('npm', [...args, '--no-audit', '--no-fund', '--loglevel', 'error'], {
    cwd,
    encoding: 'utf8',
    timeout: 300_000,
    // The settings of the `npm test` that runs us would leak into this npm as npm_config_… variables.
    env: Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !/^npm_(?!config_registry|config_cache)/i.test(name)),
    ),
  });

test('the packed tarball installs and starts', async (t) => {
  if (spawnSync('npm', ['view', 'node-llama-cpp', 'version'], { timeout: 60_000 }).status !== 0) {
    return t.skip('the npm registry is not reachable from here');
  }
  const dir = temporaryDir();
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  npm(root, 'run', 'build');
  const tarball = npm(path.join(root, 'dist'), 'pack', '--pack-destination', dir).trim().split('\n').at(-1) ?? '';
  // One engine binary is enough here; a plain install brings those for every kind of GPU.
  const engine = `@node-llama-cpp/${process.platform === 'win32' ? 'win' : process.platform === 'darwin' ? 'mac' : 'linux'}-${process.arch}@${engineVersion}`;
  npm(dir, 'init', '-y');
  npm(dir, 'install', '--omit=optional', `./${tarball}`, engine);

  const installed = path.join(dir, 'node_modules/meshnode');
  const manifest = JSON.parse(readFileSync(path.join(installed, 'package.json'), 'utf8')) as Record<string, unknown>;
  assert.deepEqual(
    [manifest['optionalDependencies'], manifest['devDependencies'], manifest['scripts']],
    [undefined, undefined, undefined],
  );
  assert.deepEqual(
    globSync('**/*.ts', { cwd: installed }).filter((file) => !file.endsWith('.d.ts')),
    [],
  );
  assert.equal(existsSync(path.join(dir, 'node_modules/node')), false);

  const node = new NodeProcess({
    bin: path.join(installed, 'cli/meshnode.js'),
    flags: ['--no-mdns', '--listen', '/ip4/127.0.0.1/tcp/0'],
  });
  t.after(() => node.kill());
  const { api } = await node.ready();
  const response = await fetch(`${api}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model: 'meshnode-demo',
      temperature: 0,
      messages: [{ role: 'user', content: 'What is 2 plus 2?' }],
    }),
  });
  const answer = (await response.json()) as { choices: { message: { content: string } }[] };
  assert.equal(answer.choices[0]?.message.content, '2 plus 2 is 4.');
});
