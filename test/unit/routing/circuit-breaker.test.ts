import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Breakers } from '../../../node/routing/breakers.ts';
import { CircuitBreaker, DEFAULT_BREAKER } from '../../../node/routing/circuit-breaker.ts';
import { ManualClock } from '../../support/manual-clock.ts';

function setUp(): { clock: ManualClock; breaker: CircuitBreaker; fail: (times: number) => void } {
  const clock = new ManualClock();
  const breaker = new CircuitBreaker({ clock });
  return {
    clock,
    breaker,
    fail: (times) => {
      for (let i = 0; i < times; i++) breaker.acquire()?.failure();
    },
  };
}

test('D-17 D-22 opens after three consecutive failures and skips the backend for sixty seconds', () => {
  const { clock, breaker, fail } = setUp();
  assert.deepEqual([DEFAULT_BREAKER.failureThreshold, DEFAULT_BREAKER.resetTimeoutMs], [3, 60_000]);
  fail(2);
  assert.notEqual(breaker.acquire(), null);
  fail(1);
  assert.equal(breaker.acquire(), null);
  assert.deepEqual(breaker.view(), { state: 'open', open: true, consecutiveFailures: 3, retryInMs: 60_000 });
  clock.advance(59_999);
  assert.equal(breaker.acquire(), null);
  clock.advance(1);
  assert.notEqual(breaker.acquire(), null);
});

test('D-17 D-42 a success between failures starts the count again', () => {
  const { breaker, fail } = setUp();
  fail(2);
  breaker.acquire()?.success();
  assert.equal(breaker.view().consecutiveFailures, 0);
  fail(2);
  assert.equal(breaker.view().open, false);
});

test('D-18 D-19 lets a single probe through, closes on its success and opens at once on its failure', () => {
  const { clock, breaker, fail } = setUp();
  fail(3);
  clock.advance(60_000);
  const probe = breaker.acquire();
  assert.equal(breaker.acquire(), null);
  assert.equal(breaker.view().state, 'half-open');
  probe?.failure();
  assert.equal(breaker.view().retryInMs, 60_000);
  assert.equal(breaker.acquire(), null);
  clock.advance(60_000);
  breaker.acquire()?.success();
  assert.deepEqual(breaker.view(), { state: 'closed', open: false, consecutiveFailures: 0, retryInMs: 0 });
});

test('D-18 a probe whose client went away gives its lease back', () => {
  const { clock, breaker, fail } = setUp();
  fail(3);
  clock.advance(60_000);
  breaker.acquire()?.neutral();
  assert.notEqual(breaker.acquire(), null);
});

test('D-18 a probe that never gives a verdict loses its lease in the end', () => {
  const { clock, breaker, fail } = setUp();
  fail(3);
  clock.advance(60_000);
  const lost = breaker.acquire();
  clock.advance(DEFAULT_BREAKER.probeLeaseMs - 1);
  assert.equal(breaker.acquire(), null);
  clock.advance(1);
  const probe = breaker.acquire();
  lost?.success();
  assert.equal(breaker.view().state, 'half-open', 'its late verdict is stale');
  probe?.success();
  assert.equal(breaker.view().state, 'closed');
});

test('verdicts of attempts that began before the circuit opened are ignored', () => {
  const { clock, breaker, fail } = setUp();
  const early = [breaker.acquire(), breaker.acquire(), breaker.acquire()];
  fail(3);
  early[0]?.success();
  assert.equal(breaker.view().open, true);
  clock.advance(60_000);
  const probe = breaker.acquire();
  early[1]?.failure();
  early[2]?.neutral();
  assert.equal(breaker.view().state, 'half-open');
  probe?.success();
  assert.equal(breaker.view().state, 'closed');
});

test('forgiven failures do not count, and a circuit that only they opened closes', () => {
  const { clock, breaker, fail } = setUp();
  fail(1);
  clock.advance(5000);
  fail(2);
  breaker.forgive(5000);
  assert.deepEqual([breaker.view().state, breaker.view().consecutiveFailures], ['closed', 1]);
  fail(2);
  assert.equal(breaker.view().open, true);
});

test('a circuit that a probe found broken is not closed by forgiving', () => {
  const { clock, breaker, fail } = setUp();
  fail(3);
  clock.advance(60_000);
  fail(1);
  breaker.forgive(0);
  assert.equal(breaker.view().open, true);
});

test('D-16 every backend has its own breaker, and each model there another', () => {
  const clock = new ManualClock();
  const breakers = new Breakers({ clock });
  for (let i = 0; i < 3; i++) breakers.of('a').acquire()?.failure();
  for (let i = 0; i < 3; i++) breakers.ofModel('b', 'broken').acquire()?.failure();
  assert.deepEqual(
    [breakers.admits('a', 'm'), breakers.admits('b', 'm'), breakers.admits('b', 'broken'), breakers.admits('c', 'm')],
    [false, true, false, true],
  );
  assert.deepEqual([breakers.view('a').open, breakers.view('b').open], [true, false]);
  assert.equal(breakers.retryInMs('b', 'broken'), 60_000);
});

test('D-16 breakers without a failure are dropped beyond 1,024, and those with one are kept', () => {
  const breakers = new Breakers({ clock: new ManualClock() });
  for (let i = 0; i < 3; i++) breakers.of('failing').acquire()?.failure();
  breakers.of('shaky').acquire()?.failure();
  for (let i = 0; i < 5000; i++) {
    breakers.of(`peer ${i}`).acquire()?.success();
    assert.ok(breakers.size <= 1024);
  }
  assert.deepEqual([breakers.view('failing').open, breakers.view('shaky').consecutiveFailures], [true, 1]);
});
