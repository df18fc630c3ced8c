import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { InferenceRequest } from '../../../protocols/inference/events.ts';
import { decodeOpen, encodeRequest, requestOf } from '../../../protocols/inference/open-message.ts';

const REQUEST: InferenceRequest = {
  requestId: 'ab'.repeat(16),
  kind: 'chat',
  model: 'm',
  body: Buffer.from('{}'),
  seed: 1,
};

const travelled = (request: InferenceRequest, more: object = {}): InferenceRequest => {
  const [open] = [...encodeRequest(request, { hops: 1 })];
  assert.ok(open !== undefined);
  const head = JSON.parse(JSON.stringify({ ...open.head, ...more })) as Record<string, unknown>;
  return requestOf(decodeOpen({ type: open.type, head, body: Buffer.from(open.body ?? '') }), request.body);
};

test('that nobody waits for a request travels, and is absent where somebody does', () => {
  assert.equal(travelled({ ...REQUEST, priority: 'batch' }).priority, 'batch');
  assert.ok(!('priority' in travelled(REQUEST)));
});

test('a priority of a later release is as if absent', () => {
  assert.ok(!('priority' in travelled(REQUEST, { priority: 'urgent' })));
});
