/** What is decided about batch work: which lines are requests, what a failure leads to, where there is room. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ERROR_TABLE, type ErrorCode, MeshError } from '../../../node/common/errors.ts';
import { BackendHealth } from '../../../node/routing/backend-health.ts';
import { batchHealth } from '../../../node/routing/batch-health.ts';
import { answeredLine, isMistake, lineIdentity, readBatchLine, refusedLine } from '../../../node/routing/batch-line.ts';
import { MOST_TRIES, verdictOf } from '../../../node/routing/batch-retry.ts';
import { BatchRoom, freeSlots } from '../../../node/routing/batch-room.ts';
import { Breakers } from '../../../node/routing/breakers.ts';
import type { Candidate } from '../../../node/routing/candidate.ts';
import fc from '../../support/fc.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { sketched } from '../../support/sketched-candidate.ts';

const ENDPOINT = '/v1/chat/completions';

test('any bytes are a request or a mistake that does not tell what they were', () => {
  fc.assert(
    fc.property(fc.oneof(fc.json(), fc.string()), (text) => {
      const read = readBatchLine(Buffer.from(text), ENDPOINT);
      assert.ok(isMistake(read));
      assert.ok(read.code.length > 0 && read.message.length > 0);
    }),
  );
  const secret = 'xyzzy-secret';
  const read = readBatchLine(Buffer.from(JSON.stringify({ custom_id: secret, url: secret, method: secret })), ENDPOINT);
  assert.ok(isMistake(read) && !read.message.includes(secret));
});

test('a request is read as it was written', () => {
  const body = { model: 'm', messages: [] };
  const line = { custom_id: 'a', method: 'POST', url: ENDPOINT, body };
  assert.deepEqual(readBatchLine(Buffer.from(JSON.stringify(line)), ENDPOINT), { customId: 'a', model: 'm', body });
});

test('each line has an identity of its own, the same at every try', () => {
  assert.deepEqual(lineIdentity('batch_a', 1), lineIdentity('batch_a', 1));
  const all = [lineIdentity('batch_a', 1), lineIdentity('batch_a', 2), lineIdentity('batch_b', 1)];
  assert.equal(new Set(all.map(({ requestId }) => requestId)).size, 3);
  for (const { requestId } of all) assert.match(requestId, /^[0-9a-f]{32}$/);
});

test('what is written is JSON that the client reads, whatever the custom id', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.json(), (customId, body) => {
      const { requestId } = lineIdentity('b', 1);
      const parsed = JSON.parse(answeredLine({ requestId, customId }, body)) as { custom_id: string; response: object };
      assert.equal(parsed.custom_id, customId);
      assert.deepEqual(parsed.response, { status_code: 200, request_id: requestId, body: JSON.parse(body) });
      const refused = refusedLine({ requestId, customId }, new MeshError('invalid_request', 'no', { param: 'x' }));
      assert.ok(!refused.includes('\n'));
    }),
  );
});

test('a failure that may pass is tried again, less and less often, and not for ever; all others are final', () => {
  const codes = Object.keys(ERROR_TABLE) as ErrorCode[];
  for (const code of codes) {
    const error = new MeshError(code, 'no');
    const first = verdictOf(error, 0);
    const counts = first.kind === 'again' && first.counts;
    assert.equal(verdictOf(error, MOST_TRIES - 1).kind, counts || first.kind === 'final' ? 'final' : 'again', code);
  }
  const kindOf = (code: ErrorCode): string => verdictOf(new MeshError(code, 'no'), 0).kind;
  assert.deepEqual(
    (['invalid_request', 'context_length_exceeded', 'unauthorized', 'forbidden', 'payload_too_large'] as const).map(
      kindOf,
    ),
    ['final', 'final', 'final', 'final', 'final'],
  );
  assert.deepEqual(verdictOf(new MeshError('overloaded', 'no', { retryAfterMs: 2000 }), 99), {
    kind: 'again',
    afterMs: 2000,
    counts: false,
  });
  assert.deepEqual(verdictOf(new MeshError('model_starting', 'no', { retryAfterMs: 600_000 }), 99), {
    kind: 'again',
    afterMs: 30_000,
    counts: false,
  });
  const pauses = [0, 1, 2, 3].map((tries) => verdictOf(new MeshError('engine_failed', 'no'), tries));
  assert.deepEqual(
    pauses.map((verdict) => (verdict.kind === 'again' ? verdict.afterMs : null)),
    [500, 1000, 2000, 4000],
  );
});

test('room is what nobody uses: here by what runs, at a peer by what it reports without what is ours', () => {
  const none = { now: 0, lately: 0 };
  assert.equal(freeSlots(sketched({ id: 'here', kind: 'engine' }), none, 0), 3);
  assert.equal(freeSlots(sketched({ id: 'here', kind: 'engine' }), none, 2), 1);
  assert.equal(freeSlots(sketched({ id: 'here', kind: 'engine', slots: 1 }), none, 0), 1);
  assert.equal(freeSlots(sketched({ id: 'here', kind: 'engine' }), { now: 4, lately: 4 }, 0), 0);
  assert.equal(freeSlots(sketched({ id: 'p', reported: 2 }), none, 0), 1);
  assert.equal(freeSlots(sketched({ id: 'p', reported: 2 }), { now: 1, lately: 2 }, 0), 2);
  assert.equal(freeSlots(sketched({ id: 'p', reported: 9 }), none, 0), 0);
  assert.equal(freeSlots(sketched({ id: 'api:x', kind: 'http' }), none, 0), 3);
  assert.equal(freeSlots(sketched({ id: 'api:x', kind: 'http', slots: 1 }), none, 0), 1);
  assert.equal(freeSlots(sketched({ id: 'p', state: 'on-disk', reported: 0 }), none, 0), 1);
  assert.equal(freeSlots(sketched({ id: 'p', state: 'on-disk', reported: 1 }), none, 0), 0);
});

function roomOver(candidates: (model: string) => readonly Candidate[], chain: readonly string[] = ['m']) {
  const clock = new ManualClock();
  const health = new BackendHealth({ breakers: new Breakers({ clock }), clock });
  const looked: string[] = [];
  const lookFurther = async (model: string): Promise<void> => void looked.push(model);
  const router = { candidates, lookFurther, forget: () => {} };
  const seen = batchHealth(health, clock);
  const room = new BatchRoom({ router, health: seen, used: () => 0, chainOf: () => chain, clock });
  return { clock, health, seen, looked, room };
}

test('whoever has more room than this machine is asked first, and who has none is not asked', () => {
  let here = 0;
  const { room } = roomOver(() => [
    sketched({ id: 'here', kind: 'engine', active: here }),
    sketched({ id: 'free', reported: 1 }),
    sketched({ id: 'full', reported: 4 }),
  ]);
  const idsOf = (): string[] => room.candidates('m').map(({ backend }) => backend.id);
  assert.deepEqual(idsOf(), ['here', 'free']);
  here = 2;
  assert.deepEqual(idsOf(), ['free']);
  assert.equal(room.free('m', 'chat', 'public'), 3);
  assert.equal(room.free('m', 'chat', 'local'), 1);
});

test('a model that nobody within the boundary has is told from one that is busy', () => {
  const { room } = roomOver(() => [sketched({ id: 'full', reported: 4 })]);
  assert.equal(room.free('m', 'chat', 'mesh'), 0);
  assert.equal(room.free('m', 'chat', 'local'), null);
});

test('a peer that has no room for batch work is left alone by batch work, and by nobody else', () => {
  const { health, seen, clock } = roomOver(() => []);
  const target = { id: 'p', kind: 'peer', model: 'm' } as const;
  seen.acquire(target)?.failed(new MeshError('overloaded', 'later', { retryAfterMs: 1000 }));
  assert.equal(seen.obstacle('p', 'm')?.kind, 'cooling_off');
  assert.equal(health.obstacle('p', 'm'), null);
  clock.advance(1001);
  assert.equal(seen.obstacle('p', 'm'), null);
});

test('a model that starts is left alone by batch work until it makes sense to come back, the others there are not', () => {
  for (const kind of ['http', 'peer'] as const) {
    const { health, seen, clock } = roomOver(() => []);
    seen.acquire({ id: 'x', kind, model: 'm' })?.failed(new MeshError('model_starting', 'no', { retryAfterMs: 5000 }));
    assert.deepEqual(seen.obstacle('x', 'm'), { kind: 'cooling_off', retryInMs: 5000 });
    assert.equal(seen.obstacle('x', 'other'), null);
    assert.equal(health.obstacle('x', 'm'), null);
    clock.advance(5001);
    assert.equal(seen.obstacle('x', 'm'), null);
  }
});

test('a name has the room of all that it stands for, vectors only that of the first, and what is missing is looked for', async () => {
  const { room, looked } = roomOver((model) => (model === 'near' ? [sketched({ id: 'p' })] : []), ['far', 'near']);
  assert.equal(room.free('name', 'chat', 'public'), 3);
  assert.equal(room.free('name', 'embedding', 'public'), null);
  await room.lookFurther('name', new AbortController().signal);
  assert.deepEqual(looked, ['far']);
});
