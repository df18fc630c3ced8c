import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type BatchAnswer,
  progressText,
  remainingMs,
  type Sample,
  withSample,
} from '../../../cli/commands/batch-progress.ts';
import fc from '../../support/fc.ts';

const batchOf = (total: number, completed: number, failed: number, status = 'in_progress'): BatchAnswer => ({
  id: 'batch_x',
  status,
  endpoint: '/v1/chat/completions',
  created_at: 0,
  expires_at: 0,
  input_file_id: 'file-x',
  output_file_id: null,
  error_file_id: null,
  request_counts: { total, completed, failed },
  errors: null,
  metadata: null,
});

test('progress shows how much is done, what failed, and how long it will take', () => {
  assert.equal(
    progressText(batchOf(2000, 990, 10), 125_000, 80),
    '[############------------]  50 % 1,000 of 2,000, 10 failed, 2 min left'.replace(']  ', '] '),
  );
  assert.equal(progressText(batchOf(0, 0, 0, 'validating'), null, 80), 'validating: reading the lines');
});

test('progress fits the terminal, however narrow', () => {
  const counts = fc.integer({ min: 0, max: 50_000 });
  fc.assert(
    fc.property(counts, counts, counts, fc.integer({ min: 2, max: 200 }), (total, completed, failed, columns) => {
      const done = Math.min(total, completed);
      const text = progressText(batchOf(total, done, Math.min(failed, total - done)), 1e6, columns);
      assert.ok(text.length < columns && !/NaN|undefined/.test(text));
    }),
  );
});

test('the estimate follows the last minute, and is none while nothing moves', () => {
  assert.equal(remainingMs([], 10), null);
  assert.equal(
    remainingMs(
      [
        { at: 0, done: 5 },
        { at: 1000, done: 5 },
      ],
      10,
    ),
    null,
  );
  assert.equal(
    remainingMs(
      [
        { at: 0, done: 0 },
        { at: 1000, done: 10 },
      ],
      100,
    ),
    9000,
  );
  let samples: readonly Sample[] = [];
  for (let at = 0; at <= 300_000; at += 1000)
    samples = withSample(samples, { at, done: at < 200_000 ? 0 : (at - 200_000) / 1000 });
  assert.equal(Math.round(remainingMs(samples, 200) ?? 0), 100_000);
  assert.ok(samples.length <= 62);
});
