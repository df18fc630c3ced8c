/** Rows of the fault programme that strike a whole node or its engine child. */
import assert from 'node:assert/strict';
import { until } from '../support/fault-mesh.ts';
import type { FaultModel } from '../support/fault-questions.ts';
import { type FaultRun, REAL, SCRIPTED } from '../support/fault-run.ts';

const PAIRS: readonly [FaultModel, readonly [number, number]][] = [
  ['scripted', SCRIPTED],
  ['demo', REAL],
];

export function nodeRows(run: FaultRun): void {
  for (const [model, twins] of PAIRS) {
    run.row(`1: kill -9 of the serving node, ${model}`, async (mesh) => {
      const asked = run.ask(run.questions(model, 8));
      const victim = await run.giver(asked, twins);
      await mesh.kill(victim);
      const { resumed } = await run.settle(asked);
      assert.ok(resumed > 0, 'an answer went on elsewhere');
    });

    run.row(`2: SIGSTOP of the serving node, which later speaks again, ${model}`, async (mesh) => {
      const from = mesh.events(0).length;
      const asked = run.ask(run.questions(model, 8, model === 'scripted' ? { maxTokens: 200 } : {}));
      const victim = await run.giver(asked, twins);
      await mesh.signal(victim, 'SIGSTOP');
      const fingerprint = mesh.fingerprint(victim);
      await mesh.node(0).event((event) => event.event === 'peer_down' && event.fingerprint === fingerprint, from);
      // Its late tokens must not enter the answers that its twin gives now.
      await mesh.signal(victim, 'SIGCONT');
      const { resumed } = await run.settle(asked);
      assert.ok(resumed > 0, 'an answer went on elsewhere');
    });
  }

  run.row('1: kill -9 of one twin after the other, each back before the next goes', async (mesh) => {
    for (const victim of [...SCRIPTED, ...SCRIPTED]) {
      const asked = run.ask(run.questions('scripted', 8));
      await run.giver(asked, SCRIPTED);
      await mesh.kill(victim);
      await run.settle(asked);
      await mesh.start(victim);
      await mesh.whole();
    }
  });

  const crashes = new Map(REAL.map((machine) => [machine, 0]));
  for (const signal of ['SIGSEGV', 'SIGKILL', 'SIGSTOP'] as const) {
    run.row(`7: ${signal} of the engine child alone`, async (mesh) => {
      // A third crash within minutes would put the model in quarantine there: right, but not what this row is about.
      for (const [machine, count] of crashes) if (count >= 2) await mesh.restart(machine);
      const asked = run.ask(run.questions('demo', 8));
      const victim = await run.giver(asked, REAL);
      const pid = await mesh.pid(victim);
      crashes.set(victim, (crashes.get(victim) ?? 0) + 1);
      for (const child of await mesh.engineChildren(victim)) process.kill(child, signal);
      const { resumed } = await run.settle(asked);
      assert.ok(resumed > 0, 'an answer went on elsewhere');
      assert.equal(await mesh.pid(victim), pid, 'the node itself lived on');
      await run.settle(run.ask(run.questions('demo', 2, { local: true }), victim));
    });
  }

  run.row('6: one token a second is no failure', async (mesh) => {
    const [slow] = SCRIPTED;
    await mesh.restart(slow, { tokenDelayMs: 1000 });
    const asked = run.ask(run.questions('scripted', 6, { maxTokens: 5 }));
    await run.giver(asked, [slow]);
    const { resumed, retried } = await run.settle(asked);
    assert.deepEqual({ resumed, retried }, { resumed: 0, retried: 0 });
    await mesh.restart(slow, { tokenDelayMs: 20 });
  });

  run.row('11: rolling SIGTERM restart of every node under load', async (mesh) => {
    let turn = 0;
    // As many of the demo model as two cores that also run five nodes can answer.
    const next = () => run.question(turn % 4 === 0 ? 'demo' : 'scripted', turn++);
    const asked = await run.load(10, next, async () => {
      for (const index of [...SCRIPTED, ...REAL])
        assert.equal(await mesh.restart(index), 0, `machine ${index} drained`);
    });
    assert.ok((await run.settle(asked)).sent > 30);
    // The asking node itself: who has asked gets the answer, who comes later finds nobody.
    const last = run.ask([...run.questions('scripted', 6), ...run.questions('demo', 6)]);
    await run.giver(last, SCRIPTED);
    await mesh.signal(0, 'SIGTERM');
    await run.settle(last);
    assert.equal(await mesh.ended(0), 0);
  });

  run.row('12: the whole remote side dies', async (mesh) => {
    const asked = run.ask(run.questions('scripted', 8));
    await run.giver(asked, SCRIPTED);
    await Promise.all(SCRIPTED.map((index) => mesh.kill(index)));
    const { errors } = await run.settle(asked, { errors: 'allowed' });
    assert.equal(errors, asked.length, 'all are told');
    const { receipts } = await run.settle(run.ask(run.questions('scripted', 4)), { errors: 'allowed' });
    assert.deepEqual([...new Set(receipts.map(({ status }) => status))], [503]);
  });

  run.row('17: every peer is busy', async (mesh) => {
    const asked = run.ask(run.questions('scripted', 1, { prompt: 'busy' }));
    const { receipts } = await run.settle(asked, { errors: 'allowed' });
    const [{ status, attempts, error } = { status: 0, attempts: 0, error: null }] = receipts;
    assert.equal(status, 429);
    assert.ok(attempts !== null && attempts <= 2, `${attempts} attempts`);
    assert.ok((error?.retryAfterS ?? 0) >= 1);
    assert.equal(await mesh.hasOpenCircuit(0), false);
    await until('the peers have cooled off', async () => {
      const [asked] = run.ask(run.questions('scripted', 1));
      const error = (await asked?.receipt)?.error;
      return error?.code ?? null;
    });
  });

  run.row('18: clients hang up at any point', async (mesh) => {
    const leaving = (model: FaultModel) =>
      run.streams(model, 8).map((question, index) => ({ ...question, leaveAfter: 1 + index * 4 }));
    const asked = run.ask([...leaving('scripted'), ...leaving('demo')]);
    const whole = run.ask(run.questions('scripted', 2, { stream: false, client: 'http' }));
    await run.giver(asked, SCRIPTED);
    for (const one of whole) one.leave();
    const { left, completed } = await run.settle([...asked, ...whole]);
    assert.ok(left >= 12, `${left} left, ${completed} were quicker`);
    await mesh.quiet();
    assert.equal(await mesh.hasOpenCircuit(0), false);
    await run.settle(run.ask([...run.questions('scripted', 4), ...run.questions('demo', 4)]));
  });

  run.row('19: kill -9 of the asking node', async (mesh) => {
    const asked = run.ask([...run.streams('scripted', 6, { maxTokens: 3000 }), ...run.streams('demo', 6)]);
    await run.giver(asked, SCRIPTED);
    await mesh.kill(0);
    await run.settle(asked, { broken: 'allowed' });
    await mesh.quiet();
  });
}
