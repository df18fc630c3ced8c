import assert from 'node:assert/strict';
import { test } from 'node:test';
import { slopeOf } from '../../bench/slope.ts';
import { nextStrike, seededRandom } from '../../bench/soak-faults.ts';
import fc from '../support/fc.ts';

const VICTIMS = { all: [0, 1, 2, 3], mortal: [1, 3], crashable: [0, 1] };

const schedule = (seed: number, victims = VICTIMS): string[] => {
  const random = seededRandom(seed);
  return Array.from({ length: 200 }, () => {
    const { fault, victim } = nextStrike(random, victims);
    return `${fault.name} of ${victim}`;
  });
};

test('the same seed gives the same schedule, another seed another one', () => {
  assert.deepEqual(schedule(7), schedule(7));
  assert.notDeepEqual(schedule(7), schedule(8));
  assert.ok(new Set(schedule(7)).size > 20, 'all kinds of faults strike');
});

test('only mortal machines end, and no engine child is struck when none may crash', () => {
  fc.assert(
    fc.property(fc.integer(), (seed) => {
      const random = seededRandom(seed);
      for (let strike = 0; strike < 50; strike++) {
        const { fault, victim } = nextStrike(random, { ...VICTIMS, crashable: [] });
        assert.ok(!fault.child);
        assert.ok(!fault.ends || VICTIMS.mortal.includes(victim));
      }
    }),
  );
});

test('the trend of a line is its slope whatever a fifth of its points say', () => {
  fc.assert(
    fc.property(fc.integer({ min: -100, max: 100 }), fc.integer({ min: -1e6, max: 1e6 }), (slope, outlier) => {
      const points = Array.from({ length: 40 }, (_, x) => ({ x, y: x % 10 === 3 ? outlier : slope * x }));
      const found = slopeOf(points);
      assert.equal(found.value, slope);
      assert.ok(found.low <= slope && slope <= found.high);
    }),
  );
});

test('of two points nothing can be said', () => {
  const { low, high } = slopeOf([
    { x: 0, y: 0 },
    { x: 1, y: 5 },
  ]);
  assert.deepEqual([low, high], [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY]);
});
