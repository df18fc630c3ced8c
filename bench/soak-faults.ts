/** The faults of the soak: which comes next is decided by a seed, what it does by this table. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { FaultMesh } from '../test/support/fault-mesh.ts';

/** Numbers from 0 to 1, the same for the same seed. Source: mulberry32, public domain. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export interface SoakFault {
  readonly name: string;
  readonly strike: (mesh: FaultMesh, victim: number) => Promise<void>;
  /** The process of the node ends. */
  readonly ends: boolean;
  /** Strikes the engine child of a real node. */
  readonly child: boolean;
  /**
   * What clients on the struck machine may not get: anything, when their node ends; what others serve, when it is cut
   * off; nothing otherwise.
   */
  readonly costs: 'everything' | 'others' | 'nothing';
}

const LASTS_MS = 5000;
const FLAP_MS = 1500;

const ofChild = (signal: NodeJS.Signals) => async (mesh: FaultMesh, victim: number) => {
  for (const pid of await mesh.engineChildren(victim)) process.kill(pid, signal);
};

const fault = (
  name: string,
  strike: SoakFault['strike'],
  kind: Partial<Pick<SoakFault, 'ends' | 'child' | 'costs'>> = {},
): SoakFault => ({ name, strike, ends: false, child: false, costs: 'nothing', ...kind });

const ENDS = { ends: true, costs: 'everything' } as const;
const CUT_OFF = { costs: 'others' } as const;

export const SOAK_FAULTS: readonly SoakFault[] = [
  fault('kill -9 and start', (mesh, victim) => mesh.kill(victim).then(() => mesh.start(victim)), ENDS),
  fault('SIGTERM and start', (mesh, victim) => mesh.restart(victim).then(() => {}), ENDS),
  fault('SIGSTOP for 5 s', async (mesh, victim) => {
    await mesh.signal(victim, 'SIGSTOP');
    await sleep(LASTS_MS);
    await mesh.signal(victim, 'SIGCONT');
  }),
  fault(
    'cable cut for 5 s',
    async (mesh, victim) => {
      await mesh.lan.cut(victim);
      await sleep(LASTS_MS);
      await mesh.lan.mend(victim);
    },
    CUT_OFF,
  ),
  fault(
    'flapping cable',
    async (mesh, victim) => {
      for (let round = 0; round < 3; round++) {
        await mesh.lan.cut(victim);
        await sleep(FLAP_MS);
        await mesh.lan.mend(victim);
        await sleep(FLAP_MS);
      }
    },
    CUT_OFF,
  ),
  fault(
    'connections reset',
    async (mesh, victim) => {
      mesh.lan.reset(victim);
      await sleep(FLAP_MS);
      mesh.lan.heal(victim);
    },
    CUT_OFF,
  ),
  fault('engine child killed', ofChild('SIGKILL'), { child: true }),
  fault('engine child stopped', ofChild('SIGSTOP'), { child: true }),
];

/** Which machines a fault may strike. */
export interface Victims {
  readonly all: readonly number[];
  /** Their processes may end; the others live from the first minute to the last, so that leaks show. */
  readonly mortal: readonly number[];
  /** Those whose engine child may still crash without being put in quarantine. */
  readonly crashable: readonly number[];
}

export interface Strike {
  readonly fault: SoakFault;
  readonly victim: number;
}

/** The next strike. Draws two numbers whatever comes of it, so that the schedule depends on little but the seed. */
export function nextStrike(random: () => number, { all, mortal, crashable }: Victims): Strike {
  const possible = SOAK_FAULTS.filter(({ child }) => !child || crashable.length > 0);
  const chosen = possible[Math.floor(random() * possible.length)] ?? SOAK_FAULTS[0];
  if (chosen === undefined) throw new Error('there are no faults');
  const candidates = chosen.child ? crashable : chosen.ends ? mortal : all;
  return { fault: chosen, victim: candidates[Math.floor(random() * candidates.length)] ?? 0 };
}
