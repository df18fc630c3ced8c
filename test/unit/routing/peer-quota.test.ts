import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../../node/common/errors.ts';
import { PeerQuota, type QuotaLease } from '../../../node/routing/peer-quota.ts';
import fc from '../../support/fc.ts';
import { ManualClock } from '../../support/manual-clock.ts';

function setUp() {
  const clock = new ManualClock();
  return { clock, quota: new PeerQuota({ clock }) };
}

/** The error of a refusal, or null. */
function refusal(enter: () => QuotaLease): MeshError | null {
  try {
    enter();
    return null;
  } catch (error) {
    assert.ok(error instanceof MeshError);
    return error;
  }
}

test('a peer has so many requests at once, and another peer as many of its own', () => {
  const { quota } = setUp();
  const limits = { inFlight: 2, tokensPerMinute: null };
  const [first] = [quota.enter('A', limits), quota.enter('A', limits)];
  const refused = refusal(() => quota.enter('A', limits));
  assert.equal(refused?.code, 'overloaded');
  assert.equal(refused.facts.retryAfterMs, 1000);
  quota.enter('B', limits);
  first.leave();
  first.leave();
  quota.enter('A', limits);
  assert.equal(refusal(() => quota.enter('A', limits))?.code, 'overloaded');
});

test('N-15 a peer whose tokens of this minute are used up waits as long as the bucket needs', () => {
  const { clock, quota } = setUp();
  const limits = { inFlight: null, tokensPerMinute: 60 };
  const lease = quota.enter('A', limits);
  lease.spend(90);
  lease.leave();
  const refused = refusal(() => quota.enter('A', limits));
  assert.equal(refused?.code, 'rate_limited');
  assert.equal(refused.facts.retryAfterMs, 31_000);
  clock.advance(30_999);
  assert.equal(refusal(() => quota.enter('A', limits))?.facts.retryAfterMs, 1);
  clock.advance(1);
  quota.enter('A', limits);
});

test('a raised limit does not forgive what is owed, and a lowered one counts at once', () => {
  const { clock, quota } = setUp();
  const lease = quota.enter('A', { inFlight: null, tokensPerMinute: 60 });
  lease.spend(120);
  assert.equal(refusal(() => quota.enter('A', { inFlight: null, tokensPerMinute: 600 }))?.code, 'rate_limited');
  clock.advance(60_000);
  quota.enter('A', { inFlight: null, tokensPerMinute: 600 }).spend(539);
  quota.enter('A', { inFlight: null, tokensPerMinute: 1 }).spend(1);
  assert.equal(refusal(() => quota.enter('A', { inFlight: null, tokensPerMinute: 1 }))?.facts.retryAfterMs, 60_000);
});

test('a late second leave does not touch the account of a later request', () => {
  const { quota } = setUp();
  const limits = { inFlight: 1, tokensPerMinute: null };
  const first = quota.enter('A', limits);
  first.leave();
  quota.enter('A', limits);
  first.leave();
  assert.equal(refusal(() => quota.enter('A', limits))?.code, 'overloaded');
});

test('over any time no more is let in than the bucket, its refill and one request overdrawn, and no refusal is for nothing', () => {
  const move = fc.record({ tokens: fc.nat(400), waitMs: fc.nat(20_000), refusedWait: fc.boolean() });
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 5000 }), fc.array(move, { maxLength: 60 }), (tokensPerMinute, moves) => {
      const { clock, quota } = setUp();
      const limits = { inFlight: null, tokensPerMinute };
      let spent = 0;
      for (const { tokens, waitMs, refusedWait } of moves) {
        clock.advance(waitMs);
        const refused = refusal(() => {
          const lease = quota.enter('A', limits);
          lease.spend(tokens);
          lease.leave();
          spent += tokens;
          return lease;
        });
        const allowed = tokensPerMinute * (1 + clock.now() / 60_000);
        assert.ok(spent <= allowed + 400 + 1e-3);
        if (refused === null) continue;
        assert.ok(spent > allowed - tokensPerMinute - 1, 'it was refused though it took little');
        if (!refusedWait) continue;
        clock.advance(refused.facts.retryAfterMs ?? 0);
        assert.equal(
          refusal(() => quota.enter('A', limits)),
          null,
          'coming back when told works',
        );
      }
    }),
  );
});
