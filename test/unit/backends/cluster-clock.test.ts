/** Clocks that disagree with a manager's: what is corrected, when, and what people are told. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type ClusterState, stateOf } from '../../../node/backends/cluster/cluster-check.ts';
import { ManagerClock } from '../../../node/backends/cluster/manager-clock.ts';
import { errorOfManager } from '../../../node/backends/cluster/manager-problem.ts';
import { MeshError } from '../../../node/common/errors.ts';
import fc from '../../support/fc.ts';

const NOW = Date.parse('2026-03-04T05:06:07Z');
const MINUTE = 60_000;

function clockOf(offsetMs: number): ManagerClock {
  const clock = new ManagerClock(() => NOW);
  clock.heard(new Date(NOW + offsetMs).toUTCString());
  return clock;
}

test('within 15 minutes nothing is corrected, whatever was refused', () => {
  for (const minutes of [0, 1, -14, 14]) {
    const clock = clockOf(minutes * MINUTE);
    assert.equal(clock.correct(), false);
    assert.equal(clock.sentence('lab'), null);
    assert.equal(clock.date().getTime(), NOW);
  }
});

test('past 15 minutes requests are dated by the manager, and people are told which clock is wrong', () => {
  const ahead = clockOf(-17 * MINUTE);
  assert.equal(ahead.sentence('lab'), "the clock here is 17 min ahead of lab's");
  assert.equal(ahead.date().getTime(), NOW);
  assert.equal(ahead.correct(), true);
  assert.equal(ahead.date().getTime(), NOW - 17 * MINUTE);
  assert.equal(ahead.correct(), false);
  assert.equal(clockOf(16 * MINUTE).sentence('lab'), "the clock here is 16 min behind lab's");
});

test('a clock that was put right again is believed again', () => {
  let now = NOW;
  const clock = new ManagerClock(() => now);
  clock.heard(new Date(NOW + 20 * MINUTE).toUTCString());
  assert.equal(clock.correct(), true);
  now = NOW + 20 * MINUTE;
  clock.heard(new Date(now).toUTCString());
  assert.equal(clock.correct(), true);
  assert.equal(clock.date().getTime(), now);
  assert.equal(clock.sentence('lab'), null);
});

test('a date that is days away is never taken over', () => {
  const clock = clockOf(3 * 24 * 60 * MINUTE);
  assert.equal(clock.correct(), false);
  assert.equal(clock.date().getTime(), NOW);
  assert.match(clock.sentence('lab') ?? '', /4320 min behind/);
});

test('whatever a server says as its date, requests are dated within 26 hours of the clock here', () => {
  const header = fc.oneof(
    fc.string(),
    fc.date({ noInvalidDate: true }).map((date) => date.toUTCString()),
  );
  fc.assert(
    fc.property(fc.array(header, { maxLength: 8 }), (headers) => {
      const clock = new ManagerClock(() => NOW);
      for (const text of headers) {
        clock.heard(text);
        clock.correct();
        assert.equal(clock.correct(), false);
        assert.ok(Math.abs(clock.date().getTime() - NOW) <= 26 * 60 * MINUTE);
      }
    }),
  );
});

test('a state is named after what was refused, not after what is wrong besides', () => {
  const refusal = (status: number, kind: string, title: string): MeshError =>
    errorOfManager({ name: 'lab', status, headers: {}, body: JSON.stringify({ type: `x/${kind}`, title }), nowMs: 0 });
  const skew = "the clock here is 17 min ahead of lab's";
  const rows: readonly [MeshError | null, string | null, ClusterState][] = [
    [null, null, 'connected'],
    [null, skew, 'clock_skew'],
    [refusal(401, 'invalid-auth-params', 'Date/time sync error.'), null, 'clock_skew'],
    [refusal(400, 'invalid-auth-params', 'Date/time sync error.'), skew, 'clock_skew'],
    [refusal(401, 'auth-failed', 'Credential/signature mismatch.'), skew, 'auth_error'],
    [refusal(403, 'generic-forbidden', 'No.'), skew, 'auth_error'],
    [refusal(502, '', ''), skew, 'unreachable'],
    [new MeshError('peer_unreachable', 'x'), null, 'unreachable'],
  ];
  for (const [error, clockProblem, state] of rows) assert.equal(stateOf(error, clockProblem), state);
});
