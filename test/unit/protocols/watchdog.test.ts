import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Watchdog } from '../../../protocols/watchdog.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const late = (): Error => new Error('late');

test('a wait over its bound aborts with the reason, and not before', () => {
  const clock = new ManualClock();
  const watchdog = new Watchdog(clock);
  watchdog.arm(100, late);
  clock.advance(99);
  assert.equal(watchdog.signal.aborted, false);
  clock.advance(1);
  assert.equal((watchdog.signal.reason as Error).message, 'late');
});

test('arming again starts the bound again, longer or shorter', () => {
  const clock = new ManualClock();
  const watchdog = new Watchdog(clock);
  for (let n = 0; n < 10; n++) {
    watchdog.arm(100, late);
    clock.advance(60);
  }
  assert.equal(watchdog.signal.aborted, false);
  watchdog.arm(10, late);
  clock.advance(10);
  assert.equal(watchdog.signal.aborted, true);
});

test('a disarmed watchdog never aborts, and can be armed again', () => {
  const clock = new ManualClock();
  const watchdog = new Watchdog(clock);
  watchdog.arm(100, late);
  watchdog.disarm();
  clock.advance(1000);
  assert.equal(watchdog.signal.aborted, false);
  watchdog.arm(100, late);
  clock.advance(100);
  assert.equal(watchdog.signal.aborted, true);
});

test('the parent aborts it, until it is disposed', () => {
  const clock = new ManualClock();
  const parent = new AbortController();
  const heeding = new Watchdog(clock, parent.signal);
  const disposed = new Watchdog(clock, parent.signal);
  disposed.arm(100, late);
  disposed[Symbol.dispose]();
  parent.abort(new Error('parent'));
  clock.advance(1000);
  assert.equal((heeding.signal.reason as Error).message, 'parent');
  assert.equal(disposed.signal.aborted, false);
  assert.equal(new Watchdog(clock, parent.signal).signal.aborted, true);
});
