import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../../node/common/errors.ts';
import { Admission } from '../../../node/routing/admission.ts';
import { ServiceState } from '../../../node/routing/service-state.ts';
import fc from '../../support/fc.ts';
import { HeldEngine } from '../../support/held-engine.ts';
import { ManualClock } from '../../support/manual-clock.ts';
import { catalogEntry } from '../../support/swarm.ts';

interface Asked {
  readonly id: string;
  readonly isBatch: boolean;
  outcome: string;
}

const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

function setUp(slots: number) {
  const clock = new ManualClock();
  const engine = new HeldEngine([catalogEntry('m', { slots })]);
  const admission = new Admission({ engine, clock, state: new ServiceState() });
  const asked: Asked[] = [];
  const ask = (from: string | null, isBatch = false): Asked => {
    const one: Asked = { id: String(asked.length), isBatch, outcome: 'waiting' };
    asked.push(one);
    const rank = isBatch ? { priority: 'batch' as const } : {};
    const request = { requestId: one.id, kind: 'chat', model: 'm', body: new Uint8Array(), seed: 1, ...rank } as const;
    const run = async (): Promise<void> => {
      try {
        const backend = from === null ? admission.local : admission.forPeer(from);
        for await (const event of backend.infer(request, { signal: new AbortController().signal })) {
          if (event.type === 'accepted') one.outcome = 'running';
          if (event.type === 'end') one.outcome = 'ok';
        }
      } catch (error) {
        assert.ok(error instanceof MeshError, String(error));
        one.outcome = error.code;
      }
    };
    void run();
    return one;
  };
  const finish = async (): Promise<void> => {
    engine.running[0]?.finish();
    await settled();
  };
  return { clock, engine, admission, ask, asked, finish };
}

test('batch requests wait behind all others, those of peers too', async () => {
  const { engine, ask, finish } = setUp(1);
  ask(null);
  ask(null, true);
  ask('A', true);
  ask('A');
  ask(null);
  await settled();
  while (engine.running.length > 0) await finish();
  assert.deepEqual(engine.started, ['0', '4', '3', '1', '2']);
});

test('whoever is waited for gets the slot of the youngest batch answer at once', async () => {
  const { engine, ask, admission } = setUp(2);
  const [older, younger] = [ask(null, true), ask('B', true)];
  await settled();
  const person = ask('A');
  await settled();
  assert.deepEqual([older.outcome, younger.outcome, person.outcome], ['running', 'overloaded', 'running']);
  assert.equal(admission.used('m'), 2);
  const [second, third] = [ask(null), ask(null)];
  await settled();
  assert.deepEqual([older.outcome, second.outcome, third.outcome], ['overloaded', 'running', 'waiting']);
  assert.equal(engine.running.length, 2);
});

test('batch answers, however long they take, do not make a person be refused for a long wait', async () => {
  const { clock, ask, finish } = setUp(1);
  ask(null);
  await settled();
  clock.advance(29_000);
  await finish();
  ask(null, true);
  await settled();
  clock.advance(500_000);
  await finish();
  const batch = ask(null, true);
  await settled();
  const [first, second] = [ask('A'), ask('A')];
  await settled();
  assert.deepEqual([batch.outcome, first.outcome, second.outcome], ['overloaded', 'running', 'waiting']);
});

test('never do more run than there are slots, and no person waits while a batch answer runs', async () => {
  const step = fc.record({ kind: fc.constantFrom('person', 'peer', 'batch', 'peer batch', 'finish') });
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 3 }), fc.array(step, { maxLength: 25 }), async (slots, steps) => {
      const { engine, ask, asked, finish, admission } = setUp(slots);
      for (const { kind } of steps) {
        if (kind === 'finish') await finish();
        else ask(kind.startsWith('peer') ? 'A' : null, kind.endsWith('batch'));
        await settled();
        assert.ok(engine.running.length <= slots);
        const isWaiting = asked.some(({ isBatch, outcome }) => !isBatch && outcome === 'waiting');
        const batchRuns = asked.some(({ isBatch, outcome }) => isBatch && outcome === 'running');
        assert.ok(!(isWaiting && batchRuns));
      }
      while (engine.running.length > 0) await finish();
      assert.ok(asked.every(({ outcome }) => outcome === 'ok' || outcome === 'overloaded'));
      assert.equal(admission.used('m'), 0);
    }),
  );
});
