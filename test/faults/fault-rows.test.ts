import { after, before, describe } from 'node:test';
import { FaultMesh } from '../support/fault-mesh.ts';
import { FaultRun } from '../support/fault-run.ts';
import { lanSwitchUnavailable, SwitchedLan } from '../support/lan-switch.ts';
import { networkRows } from './network-rows.ts';
import { nodeRows } from './node-rows.ts';

const unavailable = lanSwitchUnavailable();

/** One mesh for all rows: the node that asks, two twins with a scripted engine, two with the demo model. */
describe('an answer is never lost', { skip: unavailable ?? false }, () => {
  let mesh: FaultMesh;
  const run = new FaultRun(() => mesh);

  before(async () => {
    const scripted = { engine: 'scripted', models: ['scripted'], tokenDelayMs: 20 } as const;
    const real = { engine: 'real', models: ['demo'] } as const;
    const asking = { engine: 'scripted', models: [] } as const;
    mesh = new FaultMesh(await SwitchedLan.open(5), [asking, scripted, scripted, real, real]);
    await mesh.startAll();
    await run.learn();
  });
  after(async () => {
    console.log(run.table());
    await mesh.close();
  });

  nodeRows(run);
  networkRows(run);
});
