/** The table row → test, and that it has no holes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ROWS } from './routing-rows.ts';
import { allNamedTests, holes, missingFiles, namedTests, proofLines, type Row } from './row-check.ts';

test('every row of distributed routing has a test that names it, or says why not', (context) => {
  const tests = allNamedTests();
  for (const line of proofLines(ROWS, tests)) context.diagnostic(line);
  assert.deepEqual(holes(ROWS, tests), []);
});

test('the rows are D-1 to D-55 and N-1 to N-16, and the files that reasons name exist', () => {
  const wanted = [...Array(55).keys()].map((n) => `D-${n + 1}`).concat([...Array(16).keys()].map((n) => `N-${n + 1}`));
  assert.deepEqual(
    ROWS.map(({ id }) => id),
    wanted,
  );
  assert.deepEqual(missingFiles(ROWS), []);
});

test('the check bites: a row without either, a row with both and an unknown row are found', () => {
  const rows: Row[] = [
    { id: 'D-1', meaning: 'neither' },
    { id: 'D-2', meaning: 'both', reason: 'none' },
    { id: 'D-3', meaning: 'fine' },
  ];
  const source = `it('D-2 D-3 it\\'s so', () => {}); test(\n  'D-9 gone', f); test('about D-1', f); test('F-9 x', f);`;
  assert.deepEqual(holes(rows, namedTests('x.test.ts', source)), [
    'D-1 has no test and no reason',
    'D-2 has a reason and a test: drop the reason',
    'x.test.ts: "D-9 gone" names D-9, which is no row',
  ]);
});
