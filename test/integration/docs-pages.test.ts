/** The pages of docs/: those with commands say which test runs them, and batch.md is run here. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fencesOf } from '../support/page-fences.ts';
import { openPage } from '../support/runnable-page.ts';

const ROOT = path.resolve(import.meta.dirname, '../..');
/** Half an hour of root's network namespaces: `npm run soak`. */
const NOT_RUN = ['docs/GUARANTEES.md'];

const pages = readdirSync(path.join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.md'))
  .map((name) => `docs/${name}`)
  .filter((page) => !NOT_RUN.includes(page));

test('every page with commands names the test that runs it', () => {
  const withCommands = pages.filter((page) =>
    fencesOf(readFileSync(path.join(ROOT, page), 'utf8')).some(({ info }) => /^(sh|console|bash|shell)\b/.test(info)),
  );
  assert.ok(withCommands.length > 8, withCommands.join());
  for (const page of withCommands) {
    const [, file = ''] = /`(test\/[\w/-]+\.test\.ts)`/.exec(readFileSync(path.join(ROOT, page), 'utf8')) ?? [];
    assert.notEqual(file, '', `${page} names no test`);
    const runner = readFileSync(path.join(ROOT, file), 'utf8');
    assert.ok(runner.includes(path.basename(page, '.md')), `${file} does not name ${page}`);
  }
});

test('docs/batch.md works as written, with the demo model', async (t) => {
  const page = await openPage(t, 'batch.md', { serves: 'meshnode-demo' });
  const [answered = ''] = await page.follow();
  assert.equal(answered.match(/"object":"chat.completion"/g)?.length, 2);
});
