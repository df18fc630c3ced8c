/** The table of cluster rows → tests, and that it has no holes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ROWS } from './cluster-rows.ts';
import { allNamedTests, holes, missingFiles, proofLines } from './row-check.ts';

test('every row of the cluster integration has a test that names it, or says why not', (context) => {
  const tests = allNamedTests();
  for (const line of proofLines(ROWS, tests)) context.diagnostic(line);
  assert.deepEqual(holes(ROWS, tests), []);
});

test('the rows are C-1 to C-18, and the files that reasons name exist', () => {
  assert.deepEqual(
    ROWS.map(({ id }) => id),
    [...Array(18).keys()].map((n) => `C-${n + 1}`),
  );
  assert.deepEqual(missingFiles(ROWS), []);
});
