import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryRoom, type Tenant } from '../../../node/backends/llama-cpp/memory/memory-room.ts';
import { MeshError } from '../../../node/common/errors.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const NEED = { weightsBytes: 0, contextBytes: 0, computeBytes: 0, processBytes: 0, totalBytes: 0 };
const MIB = 2 ** 20;

/** A model whose child ends when the test says so. */
class Model implements Tenant {
  readonly model: string;
  use: Tenant['use'] = 'busy';
  pinned = false;
  lastUsedAt = 0;

  constructor(model: string, over: Partial<Pick<Model, 'use' | 'pinned' | 'lastUsedAt'>> = {}) {
    this.model = model;
    Object.assign(this, over);
  }

  evict(): void {
    assert.equal(this.use, 'idle');
    this.use = 'leaving';
  }
}

interface Place {
  readonly room: MemoryRoom;
  readonly clock: ManualClock;
  claim(model: Model, mib: number, signal?: AbortSignal): Promise<void>;
}

function place(budgetMib: number): Place {
  const clock = new ManualClock();
  const room = new MemoryRoom({ clock }, { budgetBytes: budgetMib * MIB });
  const never = new AbortController().signal;
  return { clock, room, claim: (model, mib, signal = never) => room.claim(model, mib * MIB, NEED, signal) };
}

const refusal = (code: string, pattern: RegExp) => (error: unknown) =>
  error instanceof MeshError && error.code === code && pattern.test(error.message);

test('a claim waits until the evicted model is really gone', async () => {
  const { room, claim } = place(10);
  const old = new Model('old', { use: 'idle' });
  await claim(old, 8);
  let granted = false;
  const next = claim(new Model('next'), 8).then(() => {
    granted = true;
  });
  assert.equal(old.use, 'leaving');
  await Promise.resolve();
  assert.equal(granted, false);
  room.leave(old);
  await next;
});

test('a claim waits for a busy model and evicts it once it is idle', async () => {
  const { room, claim } = place(10);
  const busy = new Model('busy');
  await claim(busy, 8);
  const next = claim(new Model('next'), 8);
  room.changed();
  assert.equal(busy.use, 'busy');
  busy.use = 'idle';
  room.changed();
  assert.equal(busy.use, 'leaving');
  room.leave(busy);
  await next;
});

test('who waits in vain is told who has the memory and when to come back', async () => {
  const { clock, claim } = place(10);
  await claim(new Model('busy'), 8);
  const refused = assert.rejects(claim(new Model('next'), 8), (error) => {
    assert.ok(refusal('overloaded', /"next" needs 8 MiB .* 10 MiB .* "busy", which is in use.*--memory/)(error));
    return error instanceof MeshError && error.facts.retryAfterMs !== undefined;
  });
  clock.advance(30_000);
  await refused;
});

test('what never fits is refused at once, with need, budget and what to do', async () => {
  const { claim } = place(10);
  await assert.rejects(
    claim(new Model('huge'), 11),
    refusal('out_of_memory', /"huge" needs about 11 MiB .* 10 MiB are there.*--context or --parallel.*--memory/),
  );
  await claim(new Model('pinned', { use: 'idle', pinned: true }), 4);
  await assert.rejects(claim(new Model('big'), 7), refusal('out_of_memory', /pinned models have 4 MiB/));
});

test('one that fits beside a busy model does not queue behind one that does not', async () => {
  const { room, claim } = place(10);
  const busy = new Model('busy');
  await claim(busy, 6);
  const big = claim(new Model('big'), 8);
  await claim(new Model('small'), 4);
  room.leave(busy);
  await Promise.race([big, Promise.resolve()]);
});

test('a claim that is given up takes nothing', async () => {
  const { room, claim } = place(10);
  const busy = new Model('busy');
  await claim(busy, 8);
  const abort = new AbortController();
  const given = claim(new Model('given-up'), 8, abort.signal);
  abort.abort(new MeshError('client_closed', 'nobody waits'));
  await assert.rejects(given, refusal('client_closed', /nobody/));
  room.leave(busy);
  await claim(new Model('next'), 10);
});

test('unasked, the budget is what is free while no model is loaded, less a reserve', async () => {
  let freeBytes = 100;
  const room = new MemoryRoom({ clock: new ManualClock(), freeBytes: () => freeBytes }, { budgetBytes: null });
  assert.equal(room.budgetBytes, 90);
  const model = new Model('a');
  await room.claim(model, 50, NEED, new AbortController().signal);
  freeBytes = 50;
  assert.equal(room.budgetBytes, 90, 'what the models take themselves is not taken twice');
  room.leave(model);
  assert.equal(room.budgetBytes, 45);
});
