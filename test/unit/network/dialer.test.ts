import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentLogger } from '../../../node/common/logger.ts';
import { Dialer, retryDelayMs } from '../../../node/network/dialer.ts';
import fc from '../../support/fc.ts';
import { ManualClock } from '../../support/manual-clock.ts';

interface Dial {
  readonly addresses: readonly string[];
  readonly at: number;
  readonly force: boolean;
  succeed(fingerprint: string): Promise<void>;
  fail(): Promise<void>;
}

/** A dialer whose dials the test answers. */
function harness(options: { concurrency?: number } = {}) {
  const clock = new ManualClock();
  const dials: Dial[] = [];
  const connected = new Set<string>();
  const silent = new Set<string>();
  const unreachable: string[] = [];
  const dialer = new Dialer(
    {
      clock,
      logger: silentLogger,
      dial: (addresses, _signal, { force }) => {
        const { promise, resolve, reject } = Promise.withResolvers<string>();
        dials.push({
          addresses,
          at: clock.now(),
          force: force ?? false,
          async succeed(fingerprint) {
            connected.add(fingerprint);
            resolve(fingerprint);
            await settle();
          },
          async fail() {
            reject(new Error('refused'));
            await settle();
          },
        });
        return promise;
      },
      isConnected: (fingerprint) => connected.has(fingerprint),
      isSilent: (fingerprint) => silent.has(fingerprint),
      unreachable: (fingerprint) => unreachable.push(fingerprint),
    },
    { random: () => 0.5, ...options },
  );
  return { clock, dialer, dials, connected, silent, unreachable };
}

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const lastOf = (dials: readonly Dial[]): Dial => {
  const last = dials.at(-1);
  assert.ok(last, 'no dial yet');
  return last;
};

test('a manual peer is dialled for ever, from 250 ms up to every 15 s', async () => {
  const { clock, dialer, dials } = harness();
  dialer.offer({ source: 'manual', fingerprint: null, addresses: ['/x'] });
  clock.advance(0);
  const gaps: number[] = [];
  for (let i = 0; i < 12; i += 1) {
    const before = clock.now();
    await lastOf(dials).fail();
    const made = dials.length;
    while (dials.length === made) clock.advance(50);
    gaps.push(clock.now() - before);
  }
  assert.deepEqual(gaps, [250, 500, 1000, 2000, 4000, 8000, 15_000, 15_000, 15_000, 15_000, 15_000, 15_000]);
});

test('a peer heard again is dialled at once, whatever its backoff', async () => {
  const { clock, dialer, dials } = harness();
  const offer = { source: 'heard', fingerprint: 'P', addresses: ['/x'] } as const;
  dialer.offer(offer);
  clock.advance(0);
  for (let i = 0; i < 8; i += 1) {
    await lastOf(dials).fail();
    const made = dials.length;
    while (dials.length === made) clock.advance(50);
  }
  await lastOf(dials).fail();
  const made = dials.length;
  dialer.offer({ ...offer, addresses: ['/y'] });
  clock.advance(0);
  assert.equal(dials.length, made + 1);
  assert.deepEqual(lastOf(dials).addresses, ['/y']);
});

test('there are never two dials to one peer at once, named by address and by fingerprint', async () => {
  const { clock, dialer, dials } = harness();
  dialer.offer({ source: 'manual', fingerprint: null, addresses: ['/x'] });
  clock.advance(0);
  await lastOf(dials).succeed('P');
  dialer.offer({ source: 'known', fingerprint: 'P', addresses: ['/z'] });
  clock.advance(60_000);
  assert.equal(dials.length, 1, 'connected');
  dialer.lost('P');
  clock.advance(100);
  assert.equal(dials.length, 1);
});

test('a lost peer is dialled again within a second, once', async () => {
  const { clock, connected, dialer, dials } = harness();
  dialer.offer({ source: 'manual', fingerprint: null, addresses: ['/x'] });
  clock.advance(0);
  await lastOf(dials).succeed('P');
  dialer.offer({ source: 'known', fingerprint: 'P', addresses: ['/z'] });
  connected.delete('P');
  dialer.lost('P');
  clock.advance(1000);
  assert.equal(dials.length, 2);
});

test('a silent peer is dialled past its dead connection', async () => {
  const { clock, dialer, dials, silent } = harness();
  dialer.offer({ source: 'known', fingerprint: 'P', addresses: ['/x'] });
  clock.advance(0);
  await lastOf(dials).succeed('P');
  silent.add('P');
  dialer.lost('P');
  clock.advance(1000);
  assert.deepEqual(
    dials.map(({ force }) => force),
    [false, true],
  );
});

test('no more dials run at once than allowed', async () => {
  const { clock, dialer, dials } = harness({ concurrency: 3 });
  for (let i = 0; i < 10; i += 1) dialer.offer({ source: 'heard', fingerprint: `P${i}`, addresses: ['/x'] });
  clock.advance(0);
  assert.equal(dials.length, 3);
  await lastOf(dials).succeed('P2');
  assert.equal(dials.length, 4);
});

test('a hint is given up after four failures, a heard peer two minutes after it was last heard', async () => {
  const { clock, dialer, dials, unreachable } = harness();
  dialer.offer({ source: 'hint', fingerprint: 'H', addresses: ['/x'] });
  clock.advance(0);
  for (let i = 0; i < 4; i += 1) {
    await lastOf(dials).fail();
    clock.advance(20_000);
  }
  assert.equal(dials.length, 4);
  assert.equal(dialer.size, 0);
  assert.deepEqual(unreachable, ['H', 'H', 'H', 'H']);
  dialer.offer({ source: 'heard', fingerprint: 'M', addresses: ['/x'] });
  for (let i = 0; i < 40 && dialer.size > 0; i += 1) {
    const made = dials.length;
    clock.advance(20_000);
    if (dials.length > made) await lastOf(dials).fail();
  }
  assert.equal(dialer.size, 0);
});

test('after stop nothing is dialled any more', () => {
  const { clock, dialer, dials } = harness();
  dialer.offer({ source: 'manual', fingerprint: null, addresses: ['/x'] });
  dialer.stop();
  dialer.offer({ source: 'manual', fingerprint: null, addresses: ['/y'] });
  clock.advance(60_000);
  assert.equal(dials.length, 0);
});

test('the retry delay stays between three quarters of the first and five quarters of the cap', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 100_000 }),
      fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      (failures, random) => {
        const delay = retryDelayMs(failures, 15_000, random);
        assert.ok(delay >= 187.5 && delay <= 18_750);
      },
    ),
  );
});
