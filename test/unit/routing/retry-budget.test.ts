import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RetryBudget } from '../../../node/routing/retry-budget.ts';
import fc from '../../support/fc.ts';
import { ManualClock } from '../../support/manual-clock.ts';

/** Takes until it is refused. */
function takeAll(budget: RetryBudget): number {
  let taken = 0;
  while (budget.take()) taken += 1;
  return taken;
}

test('retries are three plus a fifth of the requests of the last ten seconds', () => {
  const clock = new ManualClock();
  const budget = new RetryBudget({ clock }, { ratio: 0.2, floor: 3, windowMs: 10_000 });
  assert.equal(takeAll(budget), 3);
  for (let i = 0; i < 50; i++) budget.request();
  assert.equal(takeAll(budget), 10);
  clock.advance(10_000);
  assert.equal(takeAll(budget), 3);
});

test('in any ten seconds no more retries are given than the budget of the requests around them', () => {
  const step = fc.record({ requests: fc.nat(20), takes: fc.nat(20), ms: fc.nat(3000) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const clock = new ManualClock();
      const budget = new RetryBudget({ clock }, { ratio: 0.2, floor: 3, windowMs: 10_000 });
      const given: number[] = [];
      const asked: number[] = [];
      for (const { requests, takes, ms } of steps) {
        for (let i = 0; i < requests; i++) {
          budget.request();
          asked.push(clock.now());
        }
        for (let i = 0; i < takes; i++) if (budget.take()) given.push(clock.now());
        // A part of the window (1 s) ages as a whole: counted generously, nothing older than 11 s matters.
        const recent = (times: number[], ms: number): number => times.filter((at) => at > clock.now() - ms).length;
        assert.ok(recent(given, 9000) <= 3 + 0.2 * recent(asked, 21_000));
        clock.advance(ms);
      }
    }),
  );
});
