/** The table row → test for FIRST, and that it has no holes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FIRST_ROWS } from './first-rows.ts';
import { allNamedTests, holes, missingFiles, proofLines } from './row-check.ts';

test('every row of FIRST has a test that names it, or says why not', (context) => {
  const tests = allNamedTests();
  for (const line of proofLines(FIRST_ROWS, tests)) context.diagnostic(line);
  assert.deepEqual(holes(FIRST_ROWS, tests), []);
});

test('the rows are F-1 to F-21 and F-30 to F-43, and the files that reasons name exist', () => {
  const from = (first: number, last: number): string[] =>
    [...Array(last - first + 1).keys()].map((n) => `F-${first + n}`);
  assert.deepEqual(
    FIRST_ROWS.map(({ id }) => id),
    [...from(1, 21), ...from(30, 43)],
  );
  assert.deepEqual(missingFiles(FIRST_ROWS), []);
});
