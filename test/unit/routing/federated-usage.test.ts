import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FederatedUsage } from '../../../node/routing/federated-usage.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const LIMITS = { slug: 's', tpmModel: 100, tpmUser: 60 };

test('F-35 an endpoint whose tokens of the minute are used up says so with the figures, and is free in the next one', () => {
  const clock = new ManualClock();
  const usage = new FederatedUsage({ clock });
  assert.equal(usage.exhausted(LIMITS, null), null);
  usage.count('s', 99);
  assert.equal(usage.exhausted(LIMITS, null), null);
  usage.count('s', 40);
  clock.advance(15_000);
  const reached = { limit: 'tpm_model', limitTokens: 100, usedTokens: 139, retryAfterMs: 45_000 };
  assert.deepEqual(usage.exhausted(LIMITS, 'me'), reached);
  assert.equal(usage.exhausted({ ...LIMITS, slug: 'other' }, null), null);
  clock.advance(45_000);
  assert.equal(usage.exhausted(LIMITS, null), null);
});

test('F-35 one caller reaches the limit of callers, others go on', () => {
  const usage = new FederatedUsage({ clock: new ManualClock() });
  usage.countFor('s', 'me', 60);
  assert.equal(usage.exhausted(LIMITS, 'me')?.limit, 'tpm_user');
  assert.equal(usage.exhausted(LIMITS, 'you'), null);
});

test('F-35 a limit of 0 is none', () => {
  const usage = new FederatedUsage({ clock: new ManualClock() });
  usage.count('s', 1e9);
  usage.countFor('s', 'me', 1e9);
  assert.equal(usage.exhausted({ slug: 's', tpmModel: 0, tpmUser: 0 }, 'me'), null);
});

test('callers past what is remembered are counted together, so that memory is bounded', () => {
  const usage = new FederatedUsage({ clock: new ManualClock() });
  for (let caller = 0; caller < 12_000; caller += 1) usage.countFor('s', `c${caller}`, 1);
  assert.equal(usage.exhausted({ slug: 's', tpmModel: 0, tpmUser: 100 }, 'a newcomer')?.usedTokens, 2000);
  assert.equal(usage.exhausted({ slug: 's', tpmModel: 0, tpmUser: 100 }, 'c3'), null);
});
