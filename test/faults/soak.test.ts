import assert from 'node:assert/strict';
import { test } from 'node:test';
import { slopeOf } from '../../bench/slope.ts';
import { nextStrike, type SoakFault, seededRandom } from '../../bench/soak-faults.ts';
import { SoakLedger } from '../../bench/soak-ledger.ts';
import { FaultQuestions } from '../support/fault-questions.ts';
import fc from '../support/fc.ts';
import type { Receipt } from '../support/ledger.ts';

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

/** Broken promises when a client on machine 2, which serves `scripted` itself, gets an error while machine `struck` is struck. */
async function brokenPromises(costs: SoakFault['costs'], struck: number, served: boolean): Promise<number> {
  const questions = new FaultQuestions();
  const ledger = new SoakLedger(questions, () => served);
  const settle = ledger.strikes(struck, { name: 'fault', costs });
  const now = performance.timeOrigin + performance.now();
  const question = questions.one('scripted', 0);
  const receipt: Receipt = {
    id: question.id,
    status: 502,
    text: '',
    finish: null,
    done: false,
    completionTokens: null,
    error: { code: 'peer_unreachable', message: '', retryAfterS: null },
    broken: null,
    timedOut: false,
    left: false,
    requestId: null,
    node: null,
    attempts: 1,
    resumed: 0,
    nodes: [],
    sentAtMs: now,
    endedAtMs: now,
    textAtMs: [],
  };
  const asked = { question, receipt: Promise.resolve(receipt), chunks: async () => null, leave: () => {} };
  await ledger.asked(asked, 2, async () => '');
  settle();
  return ledger.violations().length;
}

test('clients of a struck machine may only suffer what the fault takes from them, and nobody else anything', async () => {
  const rows: [SoakFault['costs'], struck: number, served: boolean, broken: number][] = [
    ['everything', 2, true, 0],
    ['everything', 1, true, 1],
    ['others', 2, false, 0],
    ['others', 2, true, 1],
    ['others', 1, false, 1],
    ['nothing', 2, false, 1],
  ];
  for (const [costs, struck, served, broken] of rows) {
    assert.equal(await brokenPromises(costs, struck, served), broken, `${costs} of ${struck}, served here: ${served}`);
  }
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
