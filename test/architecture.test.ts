import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

const root = path.resolve(import.meta.dirname, '..');

/** Path prefixes, lowest floor first; the first match counts. A file may import its own floor and lower ones. */
const FLOORS: readonly (readonly [prefix: string, floor: number])[] = [
  ['node/common/', 0],
  ['protocols/', 1],
  ['node/storage/', 2],
  ['node/network/', 3],
  ['node/backends/', 4],
  ['node/routing/', 5],
  ['node/api/', 6],
  ['node/', 7],
  ['cli/', 8],
];
const CLI_MAY_IMPORT = ['node/index.ts', 'node/config.ts'];

/** Packages with one home. */
const HOMES: readonly (readonly [pattern: RegExp, home: string])[] = [
  [/^(fastify|@fastify\/.*)$/, 'node/api/'],
  [/^node-llama-cpp$/, 'node/backends/llama-cpp/'],
  [/^@napi-rs\/keyring$/, 'node/storage/'],
  [/^(libp2p|@libp2p\/(mdns|kad-dht|tcp|identify|ping)|@chainsafe\/.*)$/, 'node/network/'],
];
const MOST_LINES = 300;
const COMMON = ['clock.ts', 'errors.ts', 'lifecycle.ts', 'logger.ts', 'metrics.ts'];

const floorOf = (file: string): number | undefined => FLOORS.find(([prefix]) => file.startsWith(prefix))?.[1];
const importsOf = (source: string): string[] =>
  [
    ...source.matchAll(
      /^\s*(?:import|export)\s[^;]*?from\s+'([^']+)'|^import\s+'([^']+)'|\bimport\(\s*'([^']+)'\s*\)/gm,
    ),
  ]
    .map((match) => match[1] ?? match[2] ?? match[3] ?? '')
    .filter((specifier) => specifier !== '');

function wrongImport(file: string, specifier: string): string | null {
  if (!specifier.startsWith('.')) {
    const home = HOMES.find(([pattern]) => pattern.test(specifier))?.[1];
    return home === undefined || file.startsWith(home) ? null : `${file} imports ${specifier}: only ${home} may`;
  }
  const target = path.posix.join(path.posix.dirname(file), specifier);
  const [from, to] = [floorOf(file), floorOf(target)];
  if (from === undefined) return null;
  if (to === undefined) return `${file} imports ${target}, which is on no floor`;
  if (from < to) return `${file} (floor ${from}) imports ${target} (floor ${to})`;
  const outsideCli = from === 8 && to !== 8 && !CLI_MAY_IMPORT.includes(target);
  return outsideCli ? `${file} imports ${target}: cli/ may import only ${CLI_MAY_IMPORT.join(' and ')}` : null;
}

/** Every breach of the floors in a tree given as path → source. */
function breaches(tree: ReadonlyMap<string, string>): string[] {
  const found: string[] = [];
  for (const [file, source] of tree) {
    for (const specifier of importsOf(source)) {
      const breach = wrongImport(file, specifier);
      if (breach !== null) found.push(breach);
    }
    const lines = source.split('\n').length;
    if (lines > MOST_LINES) found.push(`${file} has ${lines} lines: past ${MOST_LINES} it wants a new design`);
  }
  return found;
}

function sources(patterns: readonly string[]): Map<string, string> {
  const files = globSync([...patterns], { cwd: root }).map((file) => file.split(path.sep).join('/'));
  return new Map(files.map((file) => [file, readFileSync(path.join(root, file), 'utf8')]));
}

test('imports go down the floors only, packages stay in their homes, files stay small', () => {
  const tree = sources(['{node,protocols,cli}/**/*.ts']);
  assert.ok(tree.size > 40, `reads the tree (${tree.size} files)`);
  assert.deepEqual(breaches(tree), []);
});

test('the rule bites: upward, type-only, dynamic and misplaced imports and long files are found', () => {
  const planted = new Map([
    ['protocols/a.ts', "import { x } from '../node/storage/b.ts';"],
    ['node/routing/b.ts', "import type { Y } from '../api/server.ts';"],
    ['node/storage/c.ts', "const late = await import('../network/swarm.ts');"],
    ['node/routing/d.ts', "import Fastify from 'fastify';"],
    ['node/api/e.ts', "import {\n  createLibp2p,\n} from 'libp2p';"],
    ['cli/f.ts', "import { z } from '../node/storage/data-dir.ts';"],
    ['node/common/g.ts', '\n'.repeat(MOST_LINES)],
    ['node/api/fine.ts', "import Fastify from 'fastify';\nimport { b } from '../routing/b.ts';"],
    ['cli/fine.ts', "import { c } from '../node/config.ts';"],
  ]);
  assert.deepEqual(
    breaches(planted).map((breach) => breach.split(' ')[0]),
    [
      'protocols/a.ts',
      'node/routing/b.ts',
      'node/storage/c.ts',
      'node/routing/d.ts',
      'node/api/e.ts',
      'cli/f.ts',
      'node/common/g.ts',
    ],
  );
});

test('node/common is a closed list', () => {
  assert.deepEqual(globSync('*', { cwd: path.join(root, 'node/common') }).toSorted(), COMMON);
});

test("the README's map names every folder of the tree", () => {
  const readme = readFileSync(path.join(root, 'README.md'), 'utf8');
  const folders = new Set(
    [...sources(['{node,protocols,cli,bench,test}/**/*.ts']).keys()].map((file) => path.posix.dirname(file)),
  );
  const shown = [...folders].filter((folder) => !folder.startsWith('test/') && !folder.includes('/demo'));
  assert.deepEqual(
    shown.filter((folder) => !readme.includes(`${folder}/`)),
    [],
  );
});
