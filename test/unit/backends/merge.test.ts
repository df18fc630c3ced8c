import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Merge } from '../../../node/backends/llama-cpp/merge.ts';

test('the reader gets the values of all producers in the order in which they were put', async () => {
  const merge = new Merge<number>();
  const produced = Promise.all(
    [10, 20].map(async (first) => {
      for (const value of [first, first + 1]) await merge.put(value);
    }),
  ).then(() => merge.end());
  const values: number[] = [];
  for await (const value of merge.values()) values.push(value);
  await produced;
  assert.deepEqual(values, [10, 20, 11, 21]);
});

test('a producer waits until its value is taken', async () => {
  const merge = new Merge<number>();
  const order: string[] = [];
  const put = merge.put(1).then(() => order.push('put'));
  await Promise.resolve();
  order.push('read');
  await merge.values().next();
  await put;
  assert.deepEqual(order, ['read', 'put']);
});

test('a failure comes after what was put, and lets every producer go', async () => {
  const merge = new Merge<number>();
  const waiting = merge.put(1);
  merge.fail(new Error('lost'));
  await waiting;
  await merge.put(2);
  const values = merge.values();
  assert.equal((await values.next()).value, 1);
  await assert.rejects(values.next(), /lost/);
});
