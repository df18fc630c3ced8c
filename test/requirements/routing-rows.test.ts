/** The table row → test, and that it has no holes. */
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { ROWS, type Row } from './routing-rows.ts';

const root = path.resolve(import.meta.dirname, '../..');
const TEST_NAME = /\b(?:test|it)\(\s*(['"`])((?:\\.|(?!\1)[^\\])*)\1/g;
const IDS_FIRST = /^(?:[A-Z]-\d+[ ,]+)+/;

interface NamedTest {
  readonly file: string;
  readonly name: string;
  readonly ids: readonly string[];
}

/** Every test of a source whose name begins with ids of rows. */
function namedTests(file: string, source: string): NamedTest[] {
  return [...source.matchAll(TEST_NAME)].flatMap(([, , name = '']) => {
    const ids =
      IDS_FIRST.exec(name)?.[0]
        .split(/[ ,]+/)
        .filter((id) => id !== '') ?? [];
    return ids.length === 0 ? [] : [{ file, name, ids }];
  });
}

/** What is wrong between rows and tests, one line each. */
function holes(rows: readonly Row[], tests: readonly NamedTest[]): string[] {
  const known = new Set(rows.map(({ id }) => id));
  const proved = new Set(tests.flatMap(({ ids }) => ids));
  return [
    ...rows.flatMap(({ id, reason }) => {
      if (reason === undefined && !proved.has(id)) return [`${id} has no test and no reason`];
      return reason !== undefined && proved.has(id) ? [`${id} has a reason and a test: drop the reason`] : [];
    }),
    ...tests.flatMap(({ file, name, ids }) =>
      ids.filter((id) => !known.has(id)).map((id) => `${file}: "${name}" names ${id}, which is no row`),
    ),
  ];
}

const files = globSync('test/{unit,integration,e2e}/**/*.test.ts', { cwd: root }).toSorted();
const tests = files.flatMap((file) => namedTests(file, readFileSync(path.join(root, file), 'utf8')));

test('every row of distributed routing has a test that names it, or says why not', (context) => {
  for (const { id, meaning, reason } of ROWS) {
    context.diagnostic(`${id}: ${meaning}`);
    if (reason !== undefined) context.diagnostic(`    no test of its own: ${reason}`);
    for (const { file, name } of tests.filter(({ ids }) => ids.includes(id)))
      context.diagnostic(`    ${path.basename(file)}: ${name.replace(IDS_FIRST, '')}`);
  }
  assert.deepEqual(holes(ROWS, tests), []);
});

test('the rows are D-1 to D-55 and N-1 to N-16, and the files that reasons name exist', () => {
  const wanted = [...Array(55).keys()].map((n) => `D-${n + 1}`).concat([...Array(16).keys()].map((n) => `N-${n + 1}`));
  assert.deepEqual(
    ROWS.map(({ id }) => id),
    wanted,
  );
  for (const { id, reason = '' } of ROWS)
    for (const [file] of reason.matchAll(/test\/\S+\.test\.ts/g)) assert.ok(existsSync(path.join(root, file)), id);
});

test('the check bites: a row without either, a row with both and an unknown row are found', () => {
  const rows: Row[] = [
    { id: 'D-1', meaning: 'neither' },
    { id: 'D-2', meaning: 'both', reason: 'none' },
    { id: 'D-3', meaning: 'fine' },
  ];
  const source = `it('D-2 D-3 it\\'s so', () => {}); test(\n  'D-9 gone', f); test('about D-1', f);`;
  assert.deepEqual(holes(rows, namedTests('x.test.ts', source)), [
    'D-1 has no test and no reason',
    'D-2 has a reason and a test: drop the reason',
    'x.test.ts: "D-9 gone" names D-9, which is no row',
  ]);
});
