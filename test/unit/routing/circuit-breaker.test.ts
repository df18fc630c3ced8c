import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CircuitBreaker, type Permit } from '../../../node/routing/circuit-breaker.ts';
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

test('opens after three consecutive failures and skips the backend for sixty seconds', () => {
  const { clock, breaker, fail } = setUp();
  fail(2);
  assert.notEqual(breaker.acquire(), null);
  fail(1);
  assert.equal(breaker.acquire(), null);
  assert.deepEqual(breaker.view(), { open: true, consecutiveFailures: 3, retryInMs: 60_000 });
  clock.advance(59_999);
  assert.equal(breaker.acquire(), null);
  clock.advance(1);
  assert.notEqual(breaker.acquire(), null);
});

test('a success between failures starts the count again', () => {
  const { breaker, fail } = setUp();
  fail(2);
  breaker.acquire()?.success();
  fail(2);
  assert.equal(breaker.view().open, false);
});

test('lets a single probe through, closes on its success and opens again on its failure', () => {
  const { clock, breaker, fail } = setUp();
  fail(3);
  clock.advance(60_000);
  const probe = breaker.acquire();
  assert.equal(breaker.acquire(), null);
  probe?.failure();
  assert.equal(breaker.acquire(), null);
  clock.advance(60_000);
  breaker.acquire()?.success();
  assert.deepEqual(breaker.view(), { open: false, consecutiveFailures: 0, retryInMs: 0 });
});

test('a probe whose client went away gives its lease back', () => {
  const { clock, breaker, fail } = setUp();
  fail(3);
  clock.advance(60_000);
  breaker.acquire()?.neutral();
  assert.notEqual(breaker.acquire(), null);
});

test('verdicts of attempts that began before the circuit opened are ignored', () => {
  const { breaker, fail } = setUp();
  const early = breaker.acquire();
  fail(3);
  early?.success();
  assert.equal(breaker.view().open, true);
});

/** Plays one random event and returns how many failures it counted. */
function play(action: Action, clock: ManualClock, breaker: CircuitBreaker, pending: Permit[]): number {
  if (action.kind === 'advance') clock.advance(action.ms);
  if (action.kind === 'acquire') {
    const wasOpen = breaker.view().open;
    const permit = breaker.acquire();
    if (permit !== null) pending.push(permit);
    if (wasOpen && permit !== null) assert.equal(breaker.acquire(), null, 'one probe at a time');
  }
  if (action.kind !== 'verdict') return 0;
  pending.splice(action.which % Math.max(1, pending.length), 1)[0]?.[action.verdict]();
  return action.verdict === 'failure' ? 1 : 0;
}

const ACTION = fc.oneof(
  fc.constant({ kind: 'acquire' as const }),
  fc.record({
    kind: fc.constant('verdict' as const),
    verdict: fc.constantFrom('success' as const, 'failure' as const, 'neutral' as const),
    which: fc.nat(20),
  }),
  fc.record({ kind: fc.constant('advance' as const), ms: fc.integer({ min: 1, max: 70_000 }) }),
);
type Action = typeof ACTION extends fc.Arbitrary<infer T> ? T : never;

test('any course of events: never two probes, never open with fewer than three failures, always half-open in the end', () => {
  fc.assert(
    fc.property(fc.array(ACTION, { maxLength: 200 }), (actions) => {
      const clock = new ManualClock();
      const breaker = new CircuitBreaker({ clock });
      const pending: Permit[] = [];
      let failures = 0;
      for (const action of actions) {
        failures += play(action, clock, breaker, pending);
        if (breaker.view().open) assert.ok(failures >= 3);
      }
      for (const permit of pending) permit.neutral();
      clock.advance(60_000);
      assert.notEqual(breaker.acquire(), null);
    }),
  );
});
