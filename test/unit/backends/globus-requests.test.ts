/** How often Globus is asked: its limit of requests, one poller for all tasks, one token for all who need it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AccountToken } from '../../../node/backends/globus-compute/account-token.ts';
import { JobsWatch } from '../../../node/backends/globus-compute/jobs-watch.ts';
import { GLOBUS_BUDGET, RequestBudget } from '../../../node/backends/globus-compute/request-budget.ts';
import { TaskPoller } from '../../../node/backends/globus-compute/task-poller.ts';
import type { TaskReport } from '../../../node/backends/globus-compute/task-report.ts';
import { type GlobusTask, TaskSubmitter } from '../../../node/backends/globus-compute/task-submitter.ts';
import { MeshError } from '../../../node/common/errors.ts';
import fc from '../../support/fc.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const never = new AbortController().signal;

/** Lets everything run that waits for no timer. */
const settled = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Moves time on in steps, with everything run in between. */
async function pass(clock: ManualClock, ms: number, stepMs = 100): Promise<void> {
  for (let left = ms; left > 0; left -= stepMs) {
    clock.advance(Math.min(stepMs, left));
    await settled();
  }
}

/** The most of these times that lie within one window. */
function densest(times: readonly number[], windowMs: number): number {
  return Math.max(0, ...times.map((at) => times.filter((each) => each >= at && each < at + windowMs).length));
}

test('requests beyond the limit wait until the window has moved on, those that are due first go first', async () => {
  const clock = new ManualClock();
  const budget = new RequestBudget({ clock }, { requests: 2, windowMs: 1000 });
  const order: string[] = [];
  const take = (name: string, patienceMs: number): void => {
    void budget.take(patienceMs, never).then(() => order.push(`${name} ${clock.now()}`));
  };
  for (const [name, patienceMs] of [
    ['a', 0],
    ['b', 0],
    ['status', 5000],
    ['poll', 500],
    ['submit', 0],
  ] as const) {
    take(name, patienceMs);
  }
  await settled();
  await pass(clock, 1000);
  take('late', 0);
  await pass(clock, 2500);
  assert.deepEqual(order, ['a 0', 'b 0', 'submit 1000', 'poll 1000', 'late 2000', 'status 2000']);
});

test('whoever has waited long goes before who just came', async () => {
  const clock = new ManualClock();
  const budget = new RequestBudget({ clock }, { requests: 1, windowMs: 1000 });
  const order: string[] = [];
  void budget.take(0, never).then(() => order.push('first'));
  void budget.take(2500, never).then(() => order.push('patient'));
  for (let n = 0; n < 6; n += 1) {
    void budget.take(0, never).then(() => order.push('submit'));
    await pass(clock, 1000);
  }
  assert.ok(order.indexOf('patient') <= 4, order.join());
});

test('a pause that the service asked for holds everybody, and who gives up takes no turn', async () => {
  const clock = new ManualClock();
  const budget = new RequestBudget({ clock }, { requests: 1, windowMs: 100 });
  budget.pause(5000);
  const gone = new AbortController();
  const order: string[] = [];
  const left = budget.take(0, gone.signal);
  void budget.take(0, never).then(() => order.push(`second ${clock.now()}`));
  await pass(clock, 4900);
  assert.deepEqual(order, []);
  gone.abort(new Error('gone'));
  await assert.rejects(left, { message: 'gone' });
  await pass(clock, 200);
  assert.deepEqual(order, ['second 5000']);
});

test('however requests come, no window has more than the limit, and all go in the end', async () => {
  const arrivals = fc.array(fc.record({ gapMs: fc.nat(700), patienceMs: fc.nat(20_000) }), { maxLength: 60 });
  await fc.assert(
    fc.asyncProperty(arrivals, async (all) => {
      const clock = new ManualClock();
      const budget = new RequestBudget({ clock }, GLOBUS_BUDGET);
      const times: number[] = [];
      for (const { gapMs, patienceMs } of all) {
        void budget.take(patienceMs, never).then(() => times.push(clock.now()));
        clock.advance(gapMs);
        await Promise.resolve();
      }
      for (let n = 0; n < 5; n += 1) {
        clock.advance(GLOBUS_BUDGET.windowMs);
        await settled();
      }
      assert.equal(times.length, all.length);
      assert.ok(densest(times, 10_000) <= 20);
    }),
    { numRuns: 50 },
  );
});

test('a queue function that gives no result is not submitted again each minute, and one that gives one is', async () => {
  const clock = new ManualClock();
  let submits = 0;
  let isAnswering = false;
  const account = {
    status: () => Promise.reject(new Error('not asked')),
    submit: async () => {
      submits += 1;
      return `task-${submits}`;
    },
    result: (taskId: string, signal: AbortSignal): Promise<TaskReport> =>
      isAnswering
        ? Promise.resolve({ taskId, result: `11\n${JSON.stringify('{"queued":[{"Models":"m"}]}')}` })
        : new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error))),
  };
  const place = { endpointUuid: 'e', functionUuid: 'f' };
  const watch = new JobsWatch({ clock, account: () => account, onChange: () => {} }, place);
  watch.look();
  await pass(clock, 540_000, 5000);
  assert.equal(submits, 1);
  isAnswering = true;
  await pass(clock, 150_000, 5000);
  assert.equal(watch.jobs?.models.get('m'), 'queued');
  assert.ok(submits >= 2, `${submits} submits`);
  await watch.stop();
  await pass(clock, 300_001, 100_000);
  assert.equal(watch.jobs, null, 'what is five minutes old is not said any more');
});

/** A poller whose questions keep the budget, and the times of its questions. */
function polling(clock: ManualClock, answer: (ids: readonly string[]) => readonly TaskReport[]) {
  const budget = new RequestBudget({ clock });
  const asked: { readonly at: number; readonly count: number }[] = [];
  const poller = new TaskPoller({
    clock,
    ask: async (ids, signal) => {
      await budget.take(1000, signal);
      asked.push({ at: clock.now(), count: ids.length });
      return answer(ids);
    },
  });
  return { poller, budget, asked };
}

test('a hundred tasks cost one question each time, at most once in two seconds after a while, within the limit', async () => {
  const clock = new ManualClock();
  const { poller, budget, asked } = polling(clock, () => []);
  const submits: number[] = [];
  const gone = new AbortController();
  for (let n = 0; n < 100; n += 1) {
    void budget.take(0, never).then(() => {
      submits.push(clock.now());
      poller.wait(`task-${n}`, gone.signal).catch(() => {});
    });
    await pass(clock, 500);
  }
  await pass(clock, 30_000);
  assert.equal(submits.length, 100);
  assert.equal(asked.at(-1)?.count, 100);
  assert.ok(densest([...submits, ...asked.map(({ at }) => at)], 10_000) <= 20);
  const late = asked.filter(({ at }) => at > clock.now() - 20_000).length;
  assert.ok(late >= 9 && late <= 11, `${late} questions in 20 s`);
  gone.abort(new Error('gone'));
});

test('each waiter gets its own report; a service that fails meanwhile is asked again; a refused account ends the wait', async () => {
  const clock = new ManualClock();
  let fail: MeshError | null = null;
  let ended: readonly string[] = [];
  const { poller, asked } = polling(clock, (ids) => {
    if (fail !== null) throw fail;
    return ids.filter((id) => ended.includes(id)).map((taskId) => ({ taskId, result: `of ${taskId}` }));
  });
  const [a, b] = [poller.wait('a', never), poller.wait('b', never)];
  await pass(clock, 1000);
  fail = new MeshError('peer_unreachable', 'cut');
  await pass(clock, 10_000);
  fail = null;
  ended = ['b'];
  await pass(clock, 3000);
  assert.deepEqual(await b, { taskId: 'b', result: 'of b' });
  fail = new MeshError('unauthorized', 'no longer');
  const refused = assert.rejects(a, { code: 'unauthorized' });
  await pass(clock, 3000);
  await refused;
  const { length } = asked;
  await pass(clock, 60_000);
  assert.equal(asked.length, length, 'nobody waits, nobody is asked');
});

test('a poller that is closed fails whoever waits', async () => {
  const { poller } = polling(new ManualClock(), () => []);
  const wait = assert.rejects(poller.wait('a', never), { code: 'draining' });
  poller.close();
  await wait;
});

test('of tasks that one submit holds, each gets its own id, whichever function it calls', async () => {
  const sent: (readonly GlobusTask[])[] = [];
  let release = (): void => {};
  const turn = new Promise<void>((resolve) => {
    release = resolve;
  });
  const submitter = new TaskSubmitter({
    turn: () => turn,
    send: async (tasks) => {
      sent.push(tasks);
      const ids: Record<string, string[]> = {};
      for (const { functionUuid, packed } of tasks)
        ids[functionUuid] = [...(ids[functionUuid] ?? []), `id of ${packed}`];
      return { tasks: ids };
    },
  });
  const submit = (functionUuid: string, packed: string, signal = never): Promise<string> =>
    submitter.submit({ endpointUuid: 'e', functionUuid, packed }, signal);
  const gone = new AbortController();
  const left = submit('f', 'left', gone.signal);
  const all = [submit('f', '1'), submit('g', '2'), submit('f', '3')];
  gone.abort(new Error('gone'));
  release();
  await assert.rejects(left, { message: 'gone' });
  assert.deepEqual(await Promise.all(all), ['id of 1', 'id of 2', 'id of 3']);
  assert.deepEqual(
    sent.map((tasks) => tasks.map(({ packed }) => packed)),
    [['1', '2', '3']],
  );
});

test('a token is asked for once at a time, kept until five minutes before its end, and anew after a refusal', async () => {
  const clock = new ManualClock();
  let count = 0;
  const token = new AccountToken({
    clock,
    request: async () => {
      count += 1;
      await settled();
      return { accessToken: `token-${count}`, expiresInMs: 3_600_000 };
    },
  });
  assert.deepEqual(await Promise.all([token.get(never), token.get(never)]), ['token-1', 'token-1']);
  clock.advance(3_299_000);
  assert.equal(await token.get(never), 'token-1');
  clock.advance(1000);
  assert.equal(await token.get(never), 'token-2');
  token.invalidate('token-1');
  assert.equal(await token.get(never), 'token-2', 'an old one says nothing of this one');
  token.invalidate('token-2');
  assert.equal(await token.get(never), 'token-3');
});

test('a refused account is not tried again for ten seconds; another failure is not kept', async () => {
  const clock = new ManualClock();
  let failure = new MeshError('unauthorized', 'wrong secret');
  let count = 0;
  const token = new AccountToken({
    clock,
    request: async () => {
      count += 1;
      throw failure;
    },
  });
  for (let n = 0; n < 3; n += 1) await assert.rejects(token.get(never), { code: 'unauthorized' });
  assert.equal(count, 1);
  clock.advance(10_000);
  failure = new MeshError('peer_unreachable', 'cut');
  for (let n = 0; n < 3; n += 1) await assert.rejects(token.get(never), { code: 'peer_unreachable' });
  assert.equal(count, 4);
});
