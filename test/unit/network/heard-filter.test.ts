import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HeardFilter } from '../../../node/network/heard-filter.ts';

const heard = (fingerprint: string) => ({ fingerprint, addresses: ['/ip4/192.168.1.9/tcp/8643'] });

test('of 3,000 forged peers at most 256 are kept, and no more than ten new ones a second', () => {
  const filter = new HeardFilter();
  let admitted = 0;
  for (let i = 0; i < 3000; i += 1) if (filter.admit(heard(`forged-${i}`), false, i * 2)) admitted += 1;
  assert.ok(admitted <= 32 + 60, `${admitted} in six seconds`);
  for (let i = 0; i < 3000; i += 1) filter.admit(heard(`slow-${i}`), false, 6000 + i * 30);
  assert.ok(filter.size <= 256, `${filter.size} kept`);
});

test('an honest newcomer is admitted within two of its answers in the middle of a flood', () => {
  const filter = new HeardFilter();
  const admissions: number[] = [];
  for (let ms = 0; ms < 10_000; ms += 2) {
    filter.admit(heard(`forged-${ms}`), false, ms);
    if (ms >= 4000 && ms % 2000 === 0 && filter.admit(heard('honest'), false, ms)) admissions.push(ms);
  }
  assert.ok((admissions[0] ?? Number.POSITIVE_INFINITY) <= 6000, `first admitted at ${admissions[0]} ms`);
});

test('peers that were connected pass whatever else is heard', () => {
  const filter = new HeardFilter({ unknown: 1, burst: 1 });
  assert.equal(filter.admit(heard('a'), false, 0), true);
  assert.equal(filter.admit(heard('b'), false, 0), false);
  assert.equal(filter.admit(heard('b'), true, 0), true);
  assert.equal(filter.admit(heard('a'), false, 0), true);
});

test('a place is free again when its peer could not be reached, or was not heard for two minutes', () => {
  const filter = new HeardFilter({ unknown: 1, burst: 10 });
  assert.equal(filter.admit(heard('a'), false, 0), true);
  assert.equal(filter.admit(heard('b'), false, 1), false);
  filter.release('a');
  assert.equal(filter.admit(heard('b'), false, 2), true);
  assert.equal(filter.admit(heard('c'), false, 120_003), true);
});
