/** One model's life against a manager in memory, on a clock that is moved by hand. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import type { ManagerCaller } from '../../../node/backends/cluster-sessions/manager-caller.ts';
import { Provision } from '../../../node/backends/cluster-sessions/provision.ts';
import { provisionRule } from '../../../node/backends/cluster-sessions/provision-rule.ts';
import { MeshError } from '../../../node/common/errors.ts';
import { silentLogger } from '../../../node/common/logger.ts';
import { ManualClock } from '../../support/manual-clock.ts';

/** A manager that knows one service, and refuses on request. */
class MemoryManager {
  refusal: MeshError | null = null;
  desired = 0;
  active = 0;
  errors: readonly string[] = [];
  exists = false;
  readonly asked: string[] = [];

  readonly call: ManagerCaller['call'] = async <T>(ask: {
    method: string;
    path: string;
    body?: unknown;
  }): Promise<T> => {
    if (this.refusal !== null) throw this.refusal;
    if (ask.method !== 'GET') this.asked.push(`${ask.method} ${ask.path} ${JSON.stringify(ask.body)}`.slice(0, 40));
    return this.#answer(ask.path, ask.body) as T;
  };

  readonly sessionPrefix = async () => '/session' as const;

  #answer(path: string, body: unknown): unknown {
    if (path.endsWith('/errors')) return { errors: this.errors.map((error) => ({ error })) };
    if (path.endsWith('/scale')) this.desired = (body as { to: number }).to;
    else if (body !== undefined) [this.exists, this.desired] = [true, 1];
    const counts = { desired_session_count: this.desired, active_route_count: this.active };
    const service = { id: 's1', name: RULE.service, ...counts, service_endpoint: 'http://x', is_public: false };
    return path.startsWith('/services?') ? (this.exists ? [service] : []) : service;
  }
}

const RULE = provisionRule({ cluster: 'lab', model: 'llama', image: 'vllm', idleMs: 60_000 });

function started(): {
  clock: ManualClock;
  manager: MemoryManager;
  provision: Provision;
  pass(ms: number): Promise<void>;
} {
  const clock = new ManualClock();
  const manager = new MemoryManager();
  const provision = new Provision(
    {
      clock,
      logger: silentLogger,
      cluster: () => ({ name: 'lab', manager, look: () => {} }),
      isLive: () => manager.active > 0,
      othersRunning: () => [],
      onChange: () => {},
    },
    { rule: RULE },
  );
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 20; i += 1) await setImmediate();
  };
  const pass = async (ms: number): Promise<void> => {
    await settle();
    for (let left = ms; left > 0; left -= 1000) {
      clock.advance(Math.min(left, 1000));
      await settle();
    }
  };
  return { clock, manager, provision, pass };
}

const failureOf = (provision: Provision): MeshError => {
  try {
    provision.begin();
  } catch (error) {
    if (error instanceof MeshError) return error;
  }
  return assert.fail('it was begun');
};

test('C-5 failures in a row are tried again after 15, 30, 60 seconds, and a success forgets them', async () => {
  const { manager, provision, pass } = started();
  manager.refusal = new MeshError('forbidden', 'lab answered 403: the access key may not do this');
  for (const pauseMs of [15_000, 30_000, 60_000]) {
    provision.begin();
    await pass(0);
    const failure = failureOf(provision);
    assert.deepEqual([failure.code, failure.facts.retryAfterMs], ['model_starting', pauseMs]);
    assert.match(failure.message, /could not be started on lab: .*may not do this/);
    await pass(pauseMs);
  }
  manager.refusal = null;
  provision.begin();
  await pass(2000);
  manager.active = 1;
  await pass(10_000);
  assert.deepEqual([provision.isStarting, provision.problem], [false, null]);
  provision.begin();
});

test('a start has an end: what does not run in time is given up and scaled to zero', async () => {
  const { manager, provision, pass } = started();
  provision.begin();
  await pass(1_190_000);
  assert.equal(provision.isStarting, true);
  await pass(20_000);
  assert.equal(provision.isStarting, false);
  assert.match(failureOf(provision).message, /did not run within 1200 s/);
  assert.equal(manager.desired, 0);
});

test('a start that somebody else began is awaited, and not ended when it fails', async () => {
  const { manager, provision, pass } = started();
  [manager.exists, manager.desired, manager.errors] = [true, 1, ['an old one']];
  provision.begin();
  await pass(10_000);
  assert.deepEqual([provision.isStarting, manager.asked], [true, []], 'problems of before are not of this start');
  manager.errors = ['an old one', 'out of GPUs'];
  await pass(10_000);
  assert.match(failureOf(provision).message, /out of GPUs/);
  assert.deepEqual(manager.asked, []);
});

test('C-5 idle time counts from the end of the last request, and from the first look at what ran before', async () => {
  const { manager, provision, pass } = started();
  [manager.exists, manager.desired, manager.active] = [true, 1, 1];
  await provision.parkIfIdle();
  await pass(59_000);
  await provision.parkIfIdle();
  assert.equal(manager.desired, 1);
  const done = provision.use();
  await pass(90_000);
  await provision.parkIfIdle();
  assert.equal(manager.desired, 1, 'a request runs');
  done();
  done();
  await pass(59_000);
  await provision.parkIfIdle();
  assert.equal(manager.desired, 1);
  await pass(1000);
  await provision.parkIfIdle();
  assert.equal(manager.desired, 0);
});

test('a node that stops leaves what it started, and tells who waits', async () => {
  const { manager, provision, pass } = started();
  provision.begin();
  await pass(3000);
  await provision.stop();
  assert.equal(manager.desired, 1);
  assert.equal(failureOf(provision).code, 'model_starting');
});
