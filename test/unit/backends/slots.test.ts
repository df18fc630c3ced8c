import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Slots } from '../../../node/backends/llama-cpp/slots.ts';

test('the lowest free slot is handed out, and none when all are busy', () => {
  const slots = new Slots(3);
  assert.deepEqual([slots.acquire(), slots.acquire(), slots.acquire(), slots.acquire()], [0, 1, 2, null]);
  slots.release(2);
  slots.release(0);
  assert.deepEqual([slots.acquire(), slots.acquire(), slots.acquire()], [0, 2, null]);
});
