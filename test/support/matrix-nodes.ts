/** Two real nodes: one has every model, the other none of them and asks it. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { demoModelPath } from '../../node/backends/llama-cpp/demo/demo-model.ts';
import { NodeProcess } from './node-process.ts';
import { writeTinyBert } from './tiny-bert.ts';

export const DEMO = 'meshnode-demo';
export const EMBED = 'tiny-embed';
export const RANK = 'tiny-rank';

const FLAGS = ['--no-mdns', '--gpu', 'off', '--listen', '/ip4/127.0.0.1/tcp/0'];

/** Where a request is asked: at the node that has the model, or at the one beside it. */
export const PLACES = ['local', 'hop'] as const;
export type Place = (typeof PLACES)[number];

export interface MatrixNodes {
  /** Base URL of each place, without `/v1`. */
  readonly urls: Readonly<Record<Place, string>>;
  /** Fingerprint of the node that has the models. */
  readonly serving: string;
  /** Requests that it works on or that wait there, as the other one last heard. */
  load(): Promise<number>;
  /** Kills the node that has the models. */
  loseServing(): Promise<void>;
  stop(): Promise<void>;
}

interface PeersBody {
  readonly peers: readonly { readonly load: { readonly inFlight: number; readonly queued: number } }[];
}

/** Starts both and waits until the asking node lists every model. */
export async function startMatrixNodes(): Promise<MatrixNodes> {
  const directory = mkdtempSync(path.join(tmpdir(), 'meshnode-matrix-'));
  const file = (id: string): string => path.join(directory, `${id}.gguf`);
  writeTinyBert(file(EMBED), 'embed');
  writeTinyBert(file(RANK), 'rank');
  writeTinyBert(file('unrelated'), 'embed');
  const models = [`${DEMO}=${demoModelPath()}`, file(EMBED), file(RANK)].flatMap((model) => ['--model', model]);
  const started: NodeProcess[] = [];
  const start = (flags: readonly string[]): NodeProcess => {
    const node = new NodeProcess({ flags: [...FLAGS, ...flags] });
    started.push(node);
    return node;
  };
  const stop = async (): Promise<void> => {
    await Promise.all(started.map((node) => node.kill()));
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    const serving = await start(models).ready();
    const asking = start(['--model', file('unrelated'), '--peer', serving.multiaddrs[0] ?? '']);
    const { api } = await asking.ready();
    await asking.event((event) => 'models' in event && event.models.includes(RANK));
    const load = async (): Promise<number> => {
      const { peers } = (await (await fetch(`${api}/api/v1/peers`)).json()) as PeersBody;
      return peers.reduce((sum, peer) => sum + peer.load.inFlight + peer.load.queued, 0);
    };
    const loseServing = async (): Promise<void> => {
      await started[0]?.kill();
    };
    return { urls: { local: serving.api, hop: api }, serving: serving.fingerprint, load, loseServing, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}
