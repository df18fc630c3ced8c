/** Services beyond the mesh that answer with what nobody expects: an error of theirs each time, never one of ours. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ComputeSessions } from '../../node/backends/cluster-sessions/compute-sessions.ts';
import { GlobusAccount } from '../../node/backends/globus-compute/globus-account.ts';
import { failureOf, resultText } from '../../node/backends/globus-compute/task-report.ts';
import { systemClock } from '../../node/common/clock.ts';
import { MeshError } from '../../node/common/errors.ts';
import { GlobusStandIn } from '../support/globus-stand-in.ts';
import { ACCOUNT, ENDPOINT } from '../support/globus-stand-in-site.ts';

const NO_TEXT = { toString: 1, valueOf: 1 };
const signal = AbortSignal.timeout(30_000);

test('Globus says how many nodes there are by something that is no number', async (t) => {
  const globus = await GlobusStandIn.start();
  globus.accounts.set(ACCOUNT.id, ACCOUNT.secret);
  const account = new GlobusAccount({ clock: systemClock, credentials: ACCOUNT }, globus.hosts);
  t.after(async () => {
    account.close();
    await globus.stop();
  });
  for (const managers of [NO_TEXT, '4', [4], null, 1.5, {}]) {
    globus.failNext(/status/, { status: 200, body: { status: 'online', details: { managers } } });
    assert.deepEqual(await account.status(ENDPOINT, signal), { isOnline: true, managers: null });
  }
  globus.failNext(/status/, { status: 500, body: { reason: NO_TEXT, error: { message: NO_TEXT, code: NO_TEXT } } });
  await assert.rejects(account.status(ENDPOINT, signal), { code: 'upstream_error' });
});

test('a remote function returns what nests too deep, or fails at a length that nobody reads', () => {
  const deep = `11\n${'['.repeat(100_000)}${']'.repeat(100_000)}`;
  assert.throws(() => resultText({ taskId: 'a', result: deep }, 'site'));
  const refused = 'API request failed with status code: 429\nResponse text: slow down\nResponse time: 1';
  const failure = failureOf(`${'API request failed with status code: 500\n'.repeat(200_000)}${refused}`, 'site');
  assert.ok(failure instanceof MeshError);
  assert.equal(failure.code, 'rate_limited');
});

test('a manager lists more sessions than anybody asked for', async () => {
  const items = Array.from({ length: 50_000 }, (_, index) => ({
    name: `s${index}`,
    status: 'RUNNING',
    image: NO_TEXT,
  }));
  const manager = { call: async () => ({ compute_session_list: { items } }), sessionPrefix: async () => '/session' };
  const sessions = new ComputeSessions({ manager: manager as never, cluster: 'lab', clock: systemClock });
  assert.equal((await sessions.list({ all: true }, signal)).length, 1000);
});
