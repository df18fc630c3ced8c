import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decideRoom, type Resident } from '../../../node/backends/llama-cpp/memory/residency.ts';
import fc from '../../support/fc.ts';

const resident = (model: string, over: Partial<Resident> = {}): Resident => ({
  model,
  needBytes: 4,
  state: 'idle',
  pinned: false,
  lastUsedAt: 0,
  ...over,
});

test('what fits is loaded, and nobody has to leave for it', () => {
  const residents = [resident('a')];
  assert.deepEqual(decideRoom({ needBytes: 6, budgetBytes: 10, residents }), { type: 'load' });
});

test('the least recently used idle models leave, no more of them than are needed', () => {
  const residents = [
    resident('new', { lastUsedAt: 3 }),
    resident('old', { lastUsedAt: 1 }),
    resident('middle', { lastUsedAt: 2 }),
  ];
  const ask = (needBytes: number) => decideRoom({ needBytes, budgetBytes: 12, residents });
  assert.deepEqual(ask(4), { type: 'evict', models: ['old'] });
  assert.deepEqual(ask(5), { type: 'evict', models: ['old', 'middle'] });
});

test('a pinned model never leaves, and what cannot fit beside it is refused', () => {
  const residents = [resident('pinned', { pinned: true }), resident('other', { lastUsedAt: 9 })];
  assert.deepEqual(decideRoom({ needBytes: 6, budgetBytes: 10, residents }), { type: 'evict', models: ['other'] });
  assert.deepEqual(decideRoom({ needBytes: 7, budgetBytes: 10, residents }), { type: 'never', pinnedBytes: 4 });
});

test('a busy model is waited for, and nobody leaves while that is so', () => {
  const residents = [resident('busy', { state: 'busy' }), resident('idle')];
  assert.deepEqual(decideRoom({ needBytes: 9, budgetBytes: 10, residents }), { type: 'wait' });
});

test('what is leaving already need not be made up for by others', () => {
  const residents = [resident('leaving', { state: 'leaving' }), resident('idle')];
  assert.deepEqual(decideRoom({ needBytes: 6, budgetBytes: 10, residents }), { type: 'wait' });
});

test('no decision exceeds the budget, evicts in vain, or touches what is pinned or in use', () => {
  const residents = fc.array(
    fc.record({
      model: fc.uuid(),
      needBytes: fc.integer({ min: 1, max: 50 }),
      state: fc.constantFrom('idle', 'busy', 'leaving'),
      pinned: fc.boolean(),
      lastUsedAt: fc.nat(100),
    }),
    { maxLength: 8 },
  );
  fc.assert(
    fc.property(residents, fc.integer({ min: 1, max: 100 }), fc.integer({ min: 1, max: 200 }), (all, need, budget) => {
      const total = (list: readonly Resident[]) => list.reduce((sum, { needBytes }) => sum + needBytes, 0);
      const decision = decideRoom({ needBytes: need, budgetBytes: budget, residents: all });
      if (decision.type === 'load') assert.ok(total(all) + need <= budget);
      if (decision.type === 'never') assert.ok(total(all.filter((one) => one.pinned)) + need > budget);
      if (decision.type === 'evict') {
        const gone = all.filter(({ model }) => decision.models.includes(model));
        const stay = all.filter(({ model, state }) => !decision.models.includes(model) && state !== 'leaving');
        assert.ok(gone.every(({ state, pinned }) => state === 'idle' && !pinned));
        assert.ok(total(stay) + need <= budget);
        const [newest] = gone.toSorted((a, b) => b.lastUsedAt - a.lastUsedAt);
        assert.ok(total(stay) + (newest?.needBytes ?? 0) + need > budget, 'the last of them is needed');
      }
    }),
  );
});
