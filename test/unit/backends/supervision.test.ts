import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BeatWatch } from '../../../node/backends/llama-cpp/beat-watch.ts';
import { childEnvironment } from '../../../node/backends/llama-cpp/child-environment.ts';
import { RestartPolicy } from '../../../node/backends/llama-cpp/restart-policy.ts';
import { Speed } from '../../../node/backends/llama-cpp/speed.ts';

const MINUTE_MS = 60_000;

test('restarts back off from one second to a minute', () => {
  const policy = new RestartPolicy();
  const delays = Array.from({ length: 8 }, (_, index) => {
    const now = index * 3 * MINUTE_MS;
    return policy.failed(now).notBefore - now;
  });
  assert.deepEqual(delays, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
});

test('three failures in five minutes quarantine, the same three further apart do not', () => {
  const close = new RestartPolicy();
  assert.deepEqual(
    [0, MINUTE_MS, 2 * MINUTE_MS].map((now) => close.failed(now).quarantined),
    [false, false, true],
  );
  const apart = new RestartPolicy();
  assert.deepEqual(
    [0, 3 * MINUTE_MS, 6 * MINUTE_MS].map((now) => apart.failed(now).quarantined),
    [false, false, false],
  );
});

const BOUNDS = { tickMs: 250, silenceMs: 2_000, loadingSilenceMs: 60_000, stepMs: 180_000 };

/** Ticks on time from 250 ms on until wedged; the time of the verdict, or null. */
function verdict(watch: BeatWatch, untilMs: number, meddle: (now: number) => void = () => {}): number | null {
  for (let now = 250; now <= untilMs; now += 250) {
    meddle(now);
    if (watch.tick(now, 'busy')) return now;
  }
  return null;
}

test('a child that is silent for more than two seconds while it has work is wedged', () => {
  assert.equal(verdict(new BeatWatch(BOUNDS, 0), 10_000), 2_500);
});

test('a child that beats is not, however long it works', () => {
  const watch = new BeatWatch(BOUNDS, 0);
  assert.equal(
    verdict(watch, 30_000, (now) => {
      if (now % 1_000 === 0) watch.beat(now, 900);
    }),
    null,
  );
});

test('a child whose steps take minutes is wedged although it beats', () => {
  const watch = new BeatWatch(BOUNDS, 0);
  watch.beat(0, 180_001);
  assert.equal(watch.tick(250, 'busy'), true);
});

test("this process's own pauses do not count as the child's silence", () => {
  const watch = new BeatWatch(BOUNDS, 0);
  for (let now = 0; now < 100_000; now += 5_000) assert.equal(watch.tick(now, 'busy'), false);
});

test('an idle child may be silent, and a loading one for longer', () => {
  const watch = new BeatWatch(BOUNDS, 0);
  for (let now = 250; now < 20_000; now += 250) assert.equal(watch.tick(now, 'idle'), false);
  for (let now = 20_000; now < 70_000; now += 250) assert.equal(watch.tick(now, 'loading'), false);
});

test('the age of the last step goes on growing when beats stop', () => {
  const watch = new BeatWatch(BOUNDS, 0);
  watch.beat(1_000, 300);
  assert.equal(watch.ageMs(1_500), 800);
  watch.stepped(2_000);
  assert.equal(watch.ageMs(2_010), 10);
});

test('a child sees paths and GPU settings, and no secret', () => {
  const environment = childEnvironment(
    { PATH: '/bin', HOME: '/home/a', CUDA_VISIBLE_DEVICES: '1', MESHNODE_API_KEY: 'x', NODE_OPTIONS: '-r evil' },
    2,
  );
  const kept = { PATH: '/bin', HOME: '/home/a', CUDA_VISIBLE_DEVICES: '1' };
  const memory = { MALLOC_ARENA_MAX: '2', MALLOC_MMAP_THRESHOLD_: '131072', MALLOC_TRIM_THRESHOLD_: '1048576' };
  assert.deepEqual(environment, { ...kept, ...memory, UV_THREADPOOL_SIZE: '4' });
});

test('the speed follows recent answers and ignores very short ones', () => {
  const speed = new Speed();
  speed.measured(3, 1);
  assert.equal(speed.tokensPerSecond, null);
  speed.measured(101, 1_000);
  assert.equal(speed.tokensPerSecond, 100);
  speed.measured(201, 1_000);
  assert.equal(speed.tokensPerSecond, 125);
});
