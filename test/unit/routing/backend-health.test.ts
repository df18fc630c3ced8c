import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BackendKind } from '../../../node/backends/backend.ts';
import { type ErrorCode, MeshError } from '../../../node/common/errors.ts';
import { BackendHealth } from '../../../node/routing/backend-health.ts';
import { Breakers } from '../../../node/routing/breakers.ts';
import { ManualClock } from '../../support/manual-clock.ts';

function setUp(ownTrouble: () => boolean = () => false) {
  const clock = new ManualClock();
  const breakers = new Breakers({ clock });
  const health = new BackendHealth({ breakers, clock, ownTrouble });
  const permit = (id: string, kind: BackendKind = 'peer', model = 'm') => health.acquire({ id, kind, model });
  const fail = (id: string, code: ErrorCode, kind: BackendKind = 'peer', retryAfterMs?: number): void => {
    const facts = retryAfterMs === undefined ? {} : { retryAfterMs };
    permit(id, kind)?.failed(new MeshError(code, code, facts));
  };
  return { clock, breakers, health, permit, fail };
}

test('D-17 failures of transport and server count against the backend, refusals against nobody', () => {
  const { health, fail } = setUp();
  const counting: ErrorCode[] = ['wedged', 'upstream_error', 'first_token_timeout', 'protocol_violation', 'peer_lost'];
  const neutral: ErrorCode[] = ['invalid_request', 'client_closed', 'model_not_loaded', 'draining', 'unauthorized'];
  for (const code of counting) {
    for (let i = 0; i < 3; i++) fail(code, code);
    assert.equal(health.obstacle(code, 'm')?.kind, 'circuit_open', code);
  }
  for (const code of neutral) {
    for (let i = 0; i < 9; i++) fail(code, code);
    assert.equal(health.obstacle(code, 'm'), null, code);
  }
});

test('an engine that fails on one model closes that model there and not the backend', () => {
  for (const code of ['engine_failed', 'out_of_memory'] as const) {
    const { health, fail, breakers } = setUp();
    for (let i = 0; i < 3; i++) fail('a', code);
    assert.equal(health.obstacle('a', 'm')?.kind, 'circuit_open');
    assert.equal(health.obstacle('a', 'other'), null);
    assert.equal(breakers.view('a').consecutiveFailures, 0);
  }
});

test('D-18 the probe of a backend is the probe of one model, and both get a verdict', () => {
  const { clock, health, fail, permit } = setUp();
  for (let i = 0; i < 3; i++) fail('a', 'wedged');
  clock.advance(60_000);
  const probe = permit('a');
  assert.equal(permit('a'), null);
  assert.equal(permit('a', 'peer', 'other'), null);
  probe?.released();
  permit('a', 'peer', 'other')?.succeeded();
  assert.equal(health.obstacle('a', 'm'), null);
});

test("failures while this host is in trouble are nobody else's", () => {
  let trouble = true;
  const { health, fail } = setUp(() => trouble);
  for (let i = 0; i < 9; i++) fail('a', 'wedged');
  assert.equal(health.obstacle('a', 'm'), null);
  for (let i = 0; i < 3; i++) fail('here', 'wedged', 'engine');
  assert.equal(health.obstacle('here', 'm')?.kind, 'circuit_open', 'but those of the engine here are its own');
  trouble = false;
  for (let i = 0; i < 3; i++) fail('a', 'wedged');
  assert.equal(health.obstacle('a', 'm')?.kind, 'circuit_open');
});

test('two peers that become unreachable within a second were cut off here: what was counted is taken back', () => {
  const { clock, health, fail, breakers } = setUp();
  for (let i = 0; i < 3; i++) fail('a', 'peer_unreachable');
  assert.equal(health.obstacle('a', 'm')?.kind, 'circuit_open');
  clock.advance(999);
  for (let i = 0; i < 3; i++) fail('b', 'peer_unreachable');
  assert.deepEqual([breakers.view('a').consecutiveFailures, breakers.view('b').consecutiveFailures], [0, 0]);
  assert.equal(health.obstacle('a', 'm'), null);
});

test('peers that become unreachable apart in time, or while another is reached, are counted', () => {
  const apart = setUp();
  for (let i = 0; i < 3; i++) apart.fail('a', 'peer_unreachable');
  apart.clock.advance(1000);
  for (let i = 0; i < 3; i++) apart.fail('b', 'peer_unreachable');
  assert.deepEqual([apart.breakers.view('a').open, apart.breakers.view('b').open], [true, true]);

  const reached = setUp();
  reached.clock.advance(5000);
  reached.permit('c')?.reached();
  for (const id of ['a', 'b']) for (let i = 0; i < 3; i++) reached.fail(id, 'peer_unreachable');
  assert.deepEqual([reached.breakers.view('a').open, reached.breakers.view('b').open], [true, true]);
});

test('when all peers fall silent at about the same time none of them is blamed, before or after', () => {
  const { clock, health, fail } = setUp();
  clock.advance(5000);
  for (let i = 0; i < 3; i++) fail('a', 'peer_unreachable');
  clock.advance(1500);
  health.peerLost('a', 1);
  clock.advance(500);
  assert.equal(health.obstacle('a', 'm')?.kind, 'circuit_open');
  health.peerLost('b', 0);
  assert.equal(health.obstacle('a', 'm'), null);
  for (let i = 0; i < 3; i++) fail('b', 'peer_unreachable');
  assert.equal(health.obstacle('b', 'm'), null);
  for (let i = 0; i < 3; i++) fail('b', 'wedged');
  assert.equal(health.obstacle('b', 'm')?.kind, 'circuit_open', 'but for what it did itself');
});

test('the only peer that is lost is blamed, and so is one of several', () => {
  const { clock, health, fail } = setUp();
  health.peerLost('a', 0);
  health.peerLost('a', 0);
  for (let i = 0; i < 3; i++) fail('a', 'peer_unreachable');
  assert.equal(health.obstacle('a', 'm')?.kind, 'circuit_open');
  clock.advance(5000);
  health.peerLost('b', 3);
  for (let i = 0; i < 3; i++) fail('b', 'peer_unreachable');
  assert.equal(health.obstacle('b', 'm')?.kind, 'circuit_open');
});

test('a peer that comes back is asked at once, and its next failure opens its circuit again', () => {
  const { health, fail } = setUp();
  for (let i = 0; i < 3; i++) fail('a', 'peer_unreachable');
  health.peerReturned('a');
  assert.equal(health.obstacle('a', 'm'), null);
  fail('a', 'peer_unreachable');
  assert.equal(health.obstacle('a', 'm')?.kind, 'circuit_open');
});

test('HTTP nodes that refuse connections one after another are counted: a refusal shows that the network works', () => {
  const { breakers, fail } = setUp();
  for (const id of ['api:a', 'api:b']) for (let i = 0; i < 3; i++) fail(id, 'peer_unreachable', 'http');
  assert.deepEqual([breakers.view('api:a').open, breakers.view('api:b').open], [true, true]);
});

test('a 429 cools its backend off for as long as it asked, thirty seconds at most', () => {
  const { clock, health, fail } = setUp();
  fail('a', 'rate_limited', 'http', 5000);
  fail('b', 'overloaded', 'peer', 900_000);
  fail('c', 'rate_limited', 'http');
  assert.deepEqual(
    ['a', 'b', 'c'].map((id) => health.obstacle(id, 'm')),
    [5000, 30_000, 1000].map((retryInMs) => ({ kind: 'cooling_off', retryInMs })),
  );
  assert.equal(health.acquire({ id: 'a', kind: 'http', model: 'm' }), null);
  clock.advance(5000);
  assert.equal(health.obstacle('a', 'm'), null);
});

test('the engine here never cools off: its queue is the place to wait', () => {
  const { health, fail } = setUp();
  fail('here', 'overloaded', 'engine', 5000);
  assert.equal(health.obstacle('here', 'm'), null);
});

test('D-47 a refused key marks the backend for five minutes, until it is cleared or an answer comes', () => {
  const { clock, health, fail, permit } = setUp();
  fail('a', 'unauthorized');
  fail('b', 'forbidden');
  fail('c', 'unauthorized');
  assert.deepEqual(
    ['a', 'b', 'c', 'd'].map((id) => health.isUnauthorized(id)),
    [true, true, true, false],
  );
  health.clearUnauthorized('b');
  permit('c')?.succeeded();
  assert.deepEqual(
    ['a', 'b', 'c'].map((id) => health.isUnauthorized(id)),
    [true, false, false],
  );
  clock.advance(300_000);
  assert.equal(health.isUnauthorized('a'), false);
});

test('an engine that rests after a crash says for how long: it is left alone so long, and it counts as no new failure', () => {
  for (const kind of ['engine', 'peer'] as const) {
    for (const code of ['wedged', 'engine_failed', 'out_of_memory'] as const) {
      const { clock, health, fail, breakers } = setUp();
      fail('a', code, kind);
      for (let i = 0; i < 9; i++) {
        fail('a', code, kind, 4000);
        assert.deepEqual(health.obstacle('a', 'm'), { kind: 'circuit_open', retryInMs: 4000 }, `${kind} ${code}`);
        assert.equal(health.obstacle('a', 'other'), null, 'its other models go on');
        clock.advance(4000);
        assert.equal(health.obstacle('a', 'm'), null);
      }
      assert.equal(breakers.view('a').state, 'closed');
    }
  }
});

test('an engine that would rest for long is asked again after a minute', () => {
  const { clock, health, fail } = setUp();
  fail('a', 'engine_failed', 'engine', 900_000);
  clock.advance(60_000);
  assert.equal(health.obstacle('a', 'm'), null);
});
