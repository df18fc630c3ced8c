/** Two real nodes on loopback that know each other: `asking` lists the model `far`, which only `serving` has. */
import { demoModelPath } from '../node/backends/llama-cpp/demo/demo-model.ts';
import { NodeProcess } from '../test/support/node-process.ts';

export const FAR_MODEL = 'far';

export interface MeshPair {
  readonly serving: NodeProcess;
  readonly asking: NodeProcess;
  close(): Promise<void>;
}

const LOOPBACK = ['--no-mdns', '--listen', '/ip4/127.0.0.1/tcp/0', '--log-level', 'silent'];

export function startServing(): NodeProcess {
  return new NodeProcess({ flags: [...LOOPBACK, '--model', `${FAR_MODEL}=${demoModelPath()}`] });
}

/** A node that dials `peer`. */
export function startAsking(peer: string): NodeProcess {
  return new NodeProcess({ flags: [...LOOPBACK, '--peer', peer] });
}

export async function startMeshPair(): Promise<MeshPair> {
  const serving = startServing();
  const { multiaddrs } = await serving.ready();
  const asking = startAsking(multiaddrs[0] ?? '');
  await asking.ready();
  await asking.event((event) => event.event === 'peer_up');
  return {
    serving,
    asking,
    async close() {
      await asking.kill();
      await serving.kill();
    },
  };
}
