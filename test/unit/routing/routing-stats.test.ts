import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PENALTY_MS, RoutingStats } from '../../../node/routing/routing-stats.ts';
import fc from '../../support/fc.ts';
import { ManualClock } from '../../support/manual-clock.ts';

test('D-13 an attempt is active from its selection until its end, whatever the end, and ends once', () => {
  const stats = new RoutingStats({ clock: new ManualClock() });
  for (const outcome of ['success', 'failure', 'neutral'] as const) {
    const end = stats.begin('a', 'm');
    assert.equal(stats.of('a').activeRequests, 1);
    end(outcome, null);
    end('failure', null);
    assert.equal(stats.of('a').activeRequests, 0);
  }
  const { totalRequests, successCount, failureCount } = stats.of('a');
  assert.deepEqual([totalRequests, successCount, failureCount], [3, 1, 1]);
});

test('D-14 the time to a first token is smoothed, for each model of a backend apart', () => {
  const stats = new RoutingStats({ clock: new ManualClock() });
  const first = (model: string, ms: number): void => stats.firstToken('a', model, ms);
  first('small', 10);
  first('large', 900);
  assert.equal(stats.figures('a', 'small').firstTokenMs, 10);
  first('small', 110);
  assert.equal(stats.figures('a', 'small').firstTokenMs, 40);
  assert.equal(stats.figures('a', 'large').firstTokenMs, 900);
  assert.deepEqual([stats.figures('a', 'none').firstTokenMs, stats.figures('a', 'none').lastAsked], [null, 0]);
});

test('D-34 D-42 the mean latency is that of successful attempts and 0 before the first', () => {
  const stats = new RoutingStats({ clock: new ManualClock() });
  assert.equal(stats.of('a').avgLatencyMs, 0);
  for (const [ms, outcome] of [
    [10, 'success'],
    [30, 'success'],
    [999, 'failure'],
  ] as const) {
    stats.begin('a', 'm')(outcome, ms);
  }
  assert.equal(stats.of('a').avgLatencyMs, 20);
});

test('D-13 each failure weighs on its backend for two seconds, and they wear off one after another', () => {
  const clock = new ManualClock();
  const stats = new RoutingStats({ clock });
  for (let i = 0; i < 2; i++) stats.begin('a', 'm')('failure', null);
  assert.equal(stats.figures('a', 'm').penalty, 2);
  clock.advance(PENALTY_MS);
  assert.equal(stats.figures('a', 'm').penalty, 1);
  clock.advance(PENALTY_MS);
  assert.equal(stats.figures('a', 'm').penalty, 0);
  for (let i = 0; i < 99; i++) stats.begin('a', 'm')('failure', null);
  assert.equal(stats.figures('a', 'm').penalty, 4, 'it is bounded');
});

test('D-42 in any course of attempts successes, failures and active ones are at most the total', () => {
  const outcome = fc.constantFrom('success' as const, 'failure' as const, 'neutral' as const, null);
  fc.assert(
    fc.property(fc.array(outcome), (outcomes) => {
      const stats = new RoutingStats({ clock: new ManualClock() });
      for (const one of outcomes) {
        const end = stats.begin('a', 'm');
        if (one !== null) end(one, null);
      }
      const { totalRequests, successCount, failureCount, activeRequests } = stats.of('a');
      const neutral = outcomes.filter((one) => one === 'neutral').length;
      assert.equal(totalRequests, outcomes.length);
      assert.equal(successCount + failureCount + activeRequests + neutral, totalRequests);
    }),
  );
});

test('no more than 1,024 backends are remembered, and those at work are not forgotten', () => {
  const stats = new RoutingStats({ clock: new ManualClock() });
  stats.begin('working', 'm');
  for (let i = 0; i < 3000; i++) stats.begin(`peer ${i}`, 'm')('success', null);
  assert.equal(stats.of('working').activeRequests, 1);
  assert.equal(stats.of('peer 0').totalRequests, 0);
  assert.equal(stats.of('peer 2999').totalRequests, 1);
});
