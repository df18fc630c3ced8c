import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FailureDetector, LoopLag, thresholdsFor, type Verdict } from '../../../node/network/liveness.ts';
import fc from '../../support/fc.ts';

const RANK: Record<Verdict, number> = { alive: 0, suspect: 1, dead: 2 };

/** A detector after `count` heartbeats that came `lateMs(i)` after they were due, and the time of the last. */
function afterHeartbeats(count: number, lateMs: (i: number) => number): { detector: FailureDetector; at: number } {
  const detector = new FailureDetector(0);
  let at = 0;
  for (let i = 0; i < count; i += 1) {
    at += 500 + lateMs(i);
    detector.heartbeat(at);
  }
  return { detector, at };
}

test('a regular peer is suspect after 1.2 s of silence and dead after 2 s', () => {
  const { detector, at } = afterHeartbeats(200, (i) => i % 50);
  const verdicts = [1199, 1200, 1999, 2000].map((silence) => detector.verdict(at + silence, 0));
  assert.deepEqual(verdicts, ['alive', 'suspect', 'suspect', 'dead']);
});

test('one outlier changes nothing, a habit of lateness does', () => {
  const outlier = afterHeartbeats(50, (i) => (i === 30 ? 1400 : 0));
  assert.deepEqual(outlier.detector.thresholds, { suspectMs: 1200, deadMs: 2000 });
  const habit = afterHeartbeats(50, (i) => (i % 10 === 0 ? 900 : 0));
  assert.deepEqual(habit.detector.thresholds, { suspectMs: 2400, deadMs: 4400 });
  assert.equal(habit.detector.verdict(habit.at + 2100, 0), 'alive');
});

test('the silence of a dead peer that comes back is no jitter', () => {
  const { detector, at } = afterHeartbeats(3, () => 0);
  for (const silence of [60_000, 120_000, 180_000]) {
    assert.equal(detector.verdict(at + silence - 1, 0), 'dead');
    detector.heartbeat(at + silence);
    assert.equal(detector.verdict(at + silence, 0), 'alive');
  }
  assert.deepEqual(detector.thresholds, { suspectMs: 1200, deadMs: 2000 });
});

test('a node that was stopped itself does not blame its peers for the time it slept', () => {
  const { detector, at } = afterHeartbeats(20, () => 0);
  const lag = new LoopLag(at, 100);
  lag.tick(at + 30_000);
  assert.equal(detector.verdict(at + 30_000, lag.recentMs(at + 30_000)), 'alive');
  // It had five seconds to hear of them.
  for (let ms = 100; ms <= 5100; ms += 100) lag.tick(at + 30_000 + ms);
  assert.equal(detector.verdict(at + 35_100, lag.recentMs(at + 35_100)), 'dead');
});

test('ordinary lag of the own event loop does not stretch anything', () => {
  const { detector, at } = afterHeartbeats(20, () => 0);
  assert.equal(detector.verdict(at + 2000, 200), 'dead');
  assert.equal(detector.verdict(at + 2000, 201), 'suspect');
});

test('thresholds stay ordered and bounded for any jitter', () => {
  fc.assert(
    fc.property(fc.double({ min: 0, max: 1e9, noNaN: true }), (jitter) => {
      const { suspectMs, deadMs } = thresholdsFor(jitter);
      assert.ok(suspectMs >= 1200 && suspectMs <= 6000 && deadMs >= 2000 && deadMs <= 12_000 && suspectMs < deadMs);
    }),
  );
});

test('longer silence is never healthier, own lag never makes a peer look worse, and a heartbeat always heals', () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 5000 }), { maxLength: 300 }),
      fc.integer({ min: 0, max: 20_000 }),
      fc.integer({ min: 0, max: 20_000 }),
      fc.integer({ min: 0, max: 20_000 }),
      (late, silence, more, lag) => {
        const { detector, at } = afterHeartbeats(late.length, (i) => late[i] ?? 0);
        const verdict = RANK[detector.verdict(at + silence, 0)];
        assert.ok(RANK[detector.verdict(at + silence + more, 0)] >= verdict);
        assert.ok(RANK[detector.verdict(at + silence, lag)] <= verdict);
        detector.heartbeat(at + silence + more);
        assert.equal(detector.verdict(at + silence + more, 0), 'alive');
      },
    ),
  );
});
