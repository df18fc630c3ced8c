/** How long a client waits for its next token when the node that answers, or its engine child, dies in the middle. */
import type { Asked } from '../test/support/fault-asker.ts';
import { FaultMesh, type MachinePlan, until } from '../test/support/fault-mesh.ts';
import { SwitchedLan } from '../test/support/lan-switch.ts';
import type { Question } from '../test/support/ledger.ts';
import { quantile } from './quantile.ts';
import type { BenchRow } from './result.ts';

const ASKING = 0;
const DEATHS = 50;
/** A busy machine comes to fewer deaths; the last row of each kind says how many. */
const SERIES_MS = 240_000;
/** Before each token of a scripted engine: a part of every gap, and small beside it. */
const TOKEN_DELAY_MS = 5;
/** Crashes of a model's child that a node bears within minutes; the next puts the model in quarantine there. */
const CRASHES = 2;

/** A way to die, and how the victim is brought back. */
interface Death {
  readonly name: string;
  readonly target: string;
  readonly strike: (mesh: FaultMesh, victim: number) => Promise<void>;
  readonly undo: (mesh: FaultMesh, victim: number) => Promise<void>;
}

const KILL: Death = {
  name: 'kill -9',
  target: '<= 500 ms',
  strike: (mesh, victim) => mesh.signal(victim, 'SIGKILL'),
  undo: async (mesh, victim) => {
    await mesh.ended(victim);
    await mesh.start(victim);
  },
};
const STOP: Death = {
  name: 'SIGSTOP',
  target: '<= 2500 ms',
  strike: (mesh, victim) => mesh.signal(victim, 'SIGSTOP'),
  undo: (mesh, victim) => mesh.signal(victim, 'SIGCONT'),
};
const CUT: Death = {
  name: 'cable cut',
  target: '<= 2500 ms',
  strike: (mesh, victim) => mesh.lan.cut(victim),
  undo: (mesh, victim) => mesh.lan.mend(victim),
};

const childDeath = (name: string, signal: NodeJS.Signals): Death => {
  const crashes = new Map<number, number>();
  return {
    name,
    target: '',
    strike: async (mesh, victim) => {
      for (const pid of await mesh.engineChildren(victim)) process.kill(pid, signal);
    },
    undo: async (mesh, victim) => {
      const count = (crashes.get(victim) ?? 0) + 1;
      crashes.set(victim, count % CRASHES);
      if (count === CRASHES) await mesh.restart(victim);
    },
  };
};

/** All rows; several minutes. */
export async function failoverDeaths(): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  rows.push(...(await series(KILL, 'scripted')));
  rows.push(...(await series(childDeath('engine child, kill -9', 'SIGKILL'), 'real')));
  // These wait more than they work, so they do not disturb each other.
  const childStop = childDeath('engine child, SIGSTOP', 'SIGSTOP');
  const waiting = [series(STOP, 'scripted'), series(CUT, 'scripted'), series(childStop, 'real')];
  rows.push(...(await Promise.all(waiting)).flat());
  return rows;
}

async function series(death: Death, engine: MachinePlan['engine']): Promise<BenchRow[]> {
  const twin: MachinePlan = { engine, models: [engine], tokenDelayMs: TOKEN_DELAY_MS };
  const twins = engine === 'real' ? 2 : 3;
  const plans = [{ engine: 'scripted', models: [] } as const, ...Array.from({ length: twins }, () => twin)];
  const mesh = new FaultMesh(await SwitchedLan.open(plans.length), plans);
  const gaps: number[] = [];
  let lost = 0;
  try {
    await mesh.startAll();
    const giveUpAtMs = performance.now() + SERIES_MS;
    for (let round = 0; gaps.length + lost < DEATHS && performance.now() < giveUpAtMs; round++) {
      if (engine === 'real') await load(mesh, twins, round);
      // Successes in between, so that no circuit opens because of the bench.
      await Promise.all(ask(mesh, engine, 2 * twins, { maxTokens: 2 }, round).map(({ receipt }) => receipt));
      const gap = await oneDeath(mesh, death, engine, round);
      if (gap === null) lost += 1;
      else gaps.push(gap.ms);
      if (gap !== null) await death.undo(mesh, gap.victim);
      else await mesh.restore();
      await mesh.whole();
    }
  } finally {
    await mesh.close();
  }
  const row = (what: string, value: number, target = ''): BenchRow => ({
    ...{ what: `${death.name}: death to next token, ${what}`, value, unit: 'ms', target },
  });
  return [
    row('p50', quantile(gaps, 0.5)),
    row('p95', quantile(gaps, 0.95), death.target),
    row('max', Math.max(...gaps)),
    { what: `${death.name}: answers lost, of ${gaps.length + lost}`, value: lost, unit: '', target: '0' },
  ];
}

/** Strikes whoever gives an answer. Null when the answer did not come to its end. */
async function oneDeath(
  mesh: FaultMesh,
  death: Death,
  engine: MachinePlan['engine'],
  round: number,
): Promise<{ ms: number; victim: number } | null> {
  const [asked] = ask(mesh, engine, 1, {}, round + 0.5);
  if (asked === undefined) return null;
  const victim = mesh.machineOf(await asked.chunks(5));
  const struckAtMs = performance.timeOrigin + performance.now();
  await death.strike(mesh, victim);
  const { done, resumed, textAtMs } = await asked.receipt;
  if (!done || resumed === 0) return null;
  return { ms: gapAfter(textAtMs, struckAtMs), victim };
}

/** From the death to the end of the longest pause after it: tokens that were on their way do not end the gap. */
function gapAfter(textAtMs: readonly number[], struckAtMs: number): number {
  let [longest, endedAt] = [0, struckAtMs];
  let before = struckAtMs;
  for (const at of textAtMs) {
    if (at <= struckAtMs) continue;
    if (at - before > longest) [longest, endedAt] = [at - before, at];
    before = at;
  }
  return endedAt - struckAtMs;
}

function ask(
  mesh: FaultMesh,
  engine: MachinePlan['engine'],
  count: number,
  more: Partial<Question>,
  round: number,
): Asked[] {
  return Array.from({ length: count }, (_, index) => {
    const question: Question = {
      ...{ id: `r${round}-${index}`, model: engine, prompt: 'Tell me a story about a fox named Anna.', seed: 1 },
      ...{ temperature: 0, maxTokens: engine === 'real' ? 120 : 80, stream: true, client: 'http', ...more },
    };
    return mesh.ask(question, ASKING, [5]);
  });
}

/** Every twin has its model loaded, and the asking node knows: loading is not what is measured here. */
async function load(mesh: FaultMesh, twins: number, round: number): Promise<void> {
  for (let machine = 1; machine <= twins; machine++) {
    const id = `load ${machine} ${round}`;
    const own = { id, model: 'real', prompt: 'Hello!', seed: 1, temperature: 0, maxTokens: 4, local: true };
    await mesh.ask({ ...own, stream: false, client: 'http' }, machine).receipt;
  }
  await until('all models are seen loaded', async () => {
    const resident = JSON.stringify(await mesh.peers(ASKING)).match(/"state":"resident"/g) ?? [];
    return resident.length === twins ? null : `${resident.length} are`;
  });
}
