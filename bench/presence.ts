/** How soon five nodes on a LAN of the bench's own agree that one of them is gone, and that it is back. Linux, root. */
import { rmSync } from 'node:fs';
import path from 'node:path';
import type { NodeEvent } from '../node/node-event.ts';
import { Lan, namespacesUnavailable } from '../test/support/namespaces.ts';
import { NodeProcess, signalQuietly, temporaryDir } from '../test/support/node-process.ts';
import { quantile } from './quantile.ts';
import type { BenchResult, BenchRow } from './result.ts';

const NODES = 5;
const ROUNDS = 8;
const VICTIM = NODES - 1;
const BIN = path.resolve(import.meta.dirname, '../test/support/scripted-node-main.ts');

/** What happens to the victim, and how it is undone. */
interface Fault {
  readonly name: string;
  readonly strike: () => Promise<void>;
  readonly undo: () => Promise<void>;
}

export async function benchPresence(): Promise<BenchResult> {
  const unavailable = namespacesUnavailable();
  if (unavailable !== null) throw new Error(unavailable);
  const lan = new Lan(NODES);
  const dirs = Array.from({ length: NODES }, temporaryDir);
  const nodes: NodeProcess[] = [];
  const start = async (index: number): Promise<void> => {
    const node = new NodeProcess({
      bin: BIN,
      on: lan.on(index),
      dataDir: dirs[index] ?? '',
      flags: ['--name', `machine-${index}`],
      env: { SCRIPTED_MODELS: `model-${index}` },
    });
    nodes[index] = node;
    await node.ready();
  };
  const victim = async (): Promise<number> => (await nodes[VICTIM]?.pid()) ?? 0;
  try {
    for (let index = 0; index < NODES; index++) await start(index);
    const fingerprint = (await nodes[VICTIM]?.ready())?.fingerprint ?? '';
    await everywhere(nodes, [0, 0, 0, 0], isUp(fingerprint));
    const faults: Fault[] = [
      {
        name: 'kill -9',
        strike: async () => signalQuietly(await victim(), 'SIGKILL'),
        undo: async () => {
          await nodes[VICTIM]?.exit();
          await start(VICTIM);
        },
      },
      {
        name: 'SIGSTOP',
        strike: async () => signalQuietly(await victim(), 'SIGSTOP'),
        undo: async () => signalQuietly(await victim(), 'SIGCONT'),
      },
      { name: 'cable cut', strike: async () => lan.cut(VICTIM), undo: async () => lan.mend(VICTIM) },
      {
        name: 'SIGTERM',
        strike: async () => signalQuietly(await victim(), 'SIGTERM'),
        undo: async () => {
          await nodes[VICTIM]?.exit();
          await start(VICTIM);
        },
      },
    ];
    const rows: BenchRow[] = [];
    for (const fault of faults) rows.push(...(await measure(fault, nodes, fingerprint)));
    return { name: 'presence', rows };
  } finally {
    for (const node of nodes) await node.kill();
    lan.close();
    for (const dir of dirs) rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
  }
}

async function measure(fault: Fault, nodes: readonly NodeProcess[], fingerprint: string): Promise<BenchRow[]> {
  const [gone, back]: [number[], number[]] = [[], []];
  for (let round = 0; round < ROUNDS; round++) {
    gone.push(await timed(nodes, fault.strike, isDown(fingerprint)));
    back.push(await timed(nodes, fault.undo, isUp(fingerprint)));
  }
  const row = (what: string, values: readonly number[], q: number, target: string): BenchRow => ({
    what: `${fault.name}: ${what}, p${q * 100}`,
    value: quantile(values, q),
    unit: 'ms',
    target,
  });
  return [
    row('gone everywhere', gone, 0.5, ''),
    row('gone everywhere', gone, 0.95, '<= 2500 ms'),
    row('back everywhere', back, 0.5, ''),
    row('back everywhere', back, 0.95, '<= 2000 ms'),
  ];
}

/** From the act to the moment when the last of the others has noticed, milliseconds. */
async function timed(nodes: readonly NodeProcess[], act: () => Promise<void>, noticed: Wanted): Promise<number> {
  const from = nodes.slice(0, VICTIM).map((node) => node.events.length);
  const startedAt = performance.now();
  await act();
  await everywhere(nodes, from, noticed);
  return performance.now() - startedAt;
}

type Wanted = (event: NodeEvent) => boolean;

const isDown =
  (fingerprint: string): Wanted =>
  (event) =>
    event.event === 'peer_down' && event.fingerprint === fingerprint;

const isUp =
  (fingerprint: string): Wanted =>
  (event) =>
    event.event === 'peer_up' && event.fingerprint === fingerprint && event.models.length > 0;

async function everywhere(nodes: readonly NodeProcess[], from: readonly number[], wanted: Wanted): Promise<void> {
  await Promise.all(nodes.slice(0, VICTIM).map((node, index) => node.event(wanted, from[index] ?? 0)));
}
