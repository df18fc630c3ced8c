/** Rows of the fault programme that strike the network, and the one that starves the asking node. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { FaultMesh } from '../support/fault-mesh.ts';
import { ASKING, type FaultRun, REAL, SCRIPTED } from '../support/fault-run.ts';

const [TWIN, OTHER] = SCRIPTED;

/** Peers that the asking node gave up since its event number `from`. */
const givenUp = (mesh: FaultMesh, from: number): number =>
  mesh.events(ASKING, from).filter(({ event }) => event === 'peer_down').length;

export function networkRows(run: FaultRun): void {
  const cables: readonly [string, (mesh: FaultMesh, serving: number) => Promise<void>][] = [
    ['the cable of the serving node is cut', ({ lan }, serving) => lan.cut(serving)],
    ['only what the serving node sends is lost', ({ lan }, serving) => lan.shape([serving], [ASKING], { cut: true })],
    [
      'only what is sent to the serving node is lost',
      ({ lan }, serving) => lan.shape([ASKING], [serving], { cut: true }),
    ],
  ];
  for (const [name, strike] of cables) {
    run.row(`3: ${name}`, async (mesh) => {
      const asked = run.ask(run.questions('scripted', 8));
      await strike(mesh, await run.giver(asked, SCRIPTED));
      const { resumed } = await run.settle(asked);
      assert.ok(resumed > 0, 'an answer went on elsewhere');
    });
  }

  for (const percent of [5, 15, 30]) {
    run.row(`4: ${percent} % loss and 100 ms each way`, async (mesh) => {
      await mesh.lan.shapeAll({ delayMs: 100, loss: percent / 100 });
      const from = mesh.events(ASKING).length;
      const asked = run.ask([...run.questions('scripted', 6), ...run.questions('demo', 3)]);
      const { resumed } = await run.settle(asked);
      // At 15 % four heartbeats in a row are late now and then: that is one peer given up, never a storm.
      const most = percent < 15 ? 0 : 1;
      if (percent < 30) assert.ok(Math.max(resumed, givenUp(mesh, from)) <= most, `${resumed} resumed`);
    });
  }

  run.row('5: 200 ms round trip, 50 ms jitter, frames overtake each other', async (mesh) => {
    await mesh.lan.shapeAll({ delayMs: 100, jitterMs: 50 });
    const from = mesh.events(ASKING).length;
    const { resumed, retried } = await run.settle(run.ask(run.questions('scripted', 6)));
    assert.deepEqual({ resumed, retried, givenUp: givenUp(mesh, from) }, { resumed: 0, retried: 0, givenUp: 0 });
  });

  for (const tokens of [1, 15, 29, 30]) {
    run.row(`8: the connection is reset after token ${tokens} of 30`, async (mesh) => {
      const asked = run.ask(run.streams('scripted', 1, { prompt: `hang ${tokens}`, maxTokens: 30 }), ASKING, [tokens]);
      const serving = mesh.machineOf((await asked[0]?.chunks(tokens)) ?? null);
      mesh.lan.reset(serving);
      try {
        await run.settle(asked);
      } finally {
        mesh.lan.heal(serving);
      }
      // Four resets without a success between them would open circuits, which later rows do not expect.
      await run.settle(run.ask(run.questions('scripted', 8)));
    });
  }

  run.row('13: the mesh falls in two and heals', async (mesh) => {
    const [mine, theirs] = [
      [ASKING, TWIN],
      [OTHER, ...REAL],
    ];
    const from = mesh.events(ASKING).length;
    const asked = run.ask(run.questions('scripted', 8));
    await run.giver(asked, [OTHER]);
    await mesh.lan.cutBetween(mine, theirs);
    await run.settle(asked);
    for (const index of theirs) {
      const fingerprint = mesh.fingerprint(index);
      await mesh.node(ASKING).event((event) => event.event === 'peer_down' && event.fingerprint === fingerprint, from);
    }
    await run.settle(run.ask(run.questions('scripted', 4)));
    await run.settle(run.ask(run.questions('demo', 4), OTHER));
    const { receipts } = await run.settle(run.ask(run.questions('demo', 2)), { errors: 'allowed' });
    assert.deepEqual([...new Set(receipts.map(({ status }) => status))], [503]);
    await mesh.lan.mendAll();
    await mesh.whole();
    await run.settle(run.ask(run.questions('demo', 4)));
  });

  run.row('14: a node comes back with another address', async (mesh) => {
    const move = async (address: string): Promise<void> => {
      await mesh.signal(TWIN, 'SIGTERM');
      await mesh.ended(TWIN);
      mesh.lan.readdress(TWIN, address);
      await mesh.start(TWIN);
      await mesh.whole();
      const asked = run.ask(run.questions('scripted', 6));
      await run.giver(asked, [TWIN]);
      await run.settle(asked);
    };
    await move('10.77.0.51');
    await move(mesh.lan.address(TWIN));
  });

  run.row('15: the asking node is starved of its processor', async (mesh) => {
    const from = mesh.events(ASKING).length;
    const asked = run.ask(run.questions('scripted', 8, { maxTokens: 200 }));
    await run.giver(asked, [TWIN]);
    for (const stoppedMs of [700, 1500, 700, 2500, 700]) {
      await mesh.signal(ASKING, 'SIGSTOP');
      await sleep(stoppedMs);
      await mesh.signal(ASKING, 'SIGCONT');
      await sleep(300);
    }
    const { resumed, retried } = await run.settle(asked);
    assert.deepEqual({ resumed, retried, givenUp: givenUp(mesh, from) }, { resumed: 0, retried: 0, givenUp: 0 });
  });

  run.row('19: the cable of the asking node is cut', async (mesh) => {
    // A minute of tokens each: that the slots are free before is not because the answers were over.
    const asked = run.ask(run.streams('scripted', 6, { maxTokens: 3000 }));
    await run.giver(asked, SCRIPTED);
    await mesh.lan.cut(ASKING);
    await mesh.quiet();
    await mesh.lan.mend(ASKING);
    const { errors } = await run.settle(asked, { errors: 'allowed' });
    assert.equal(errors, asked.length, 'all are told');
  });

  run.row('16: a peer flaps, three seconds gone and three back', async (mesh) => {
    let turn = 0;
    const next = () => run.question('scripted', turn++);
    const asked = await run.load(4, next, async () => {
      for (let round = 0; round < 2; round++) {
        await mesh.lan.cut(TWIN);
        await sleep(3000);
        await mesh.lan.mend(TWIN);
        await sleep(3000);
      }
    });
    await run.settle(asked);
  });
}
