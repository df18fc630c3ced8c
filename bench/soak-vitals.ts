/** Memory, handles and descriptors of nodes that live through a whole soak. */
import { readdirSync } from 'node:fs';
import type { FaultMesh } from '../test/support/fault-mesh.ts';
import type { Vitals } from '../test/support/vitals-main.ts';
import { type Slope, slopeOf } from './slope.ts';

const MIB = 2 ** 20;
const HOUR_MS = 3_600_000;

interface Sample extends Vitals {
  readonly atMs: number;
  readonly descriptors: number;
}

/** MiB/h after warm-up, garbage collected and its pages given back. */
export interface VitalTrend {
  readonly machine: number;
  /** Resident. */
  readonly live: Slope;
  readonly heap: Slope;
  /** Resident, but not JavaScript's heap. */
  readonly native: Slope;
  /** Samples after warm-up that the slopes rest on. */
  readonly samples: number;
  /** At rest, before the first fault and after the last. */
  readonly before: Sample;
  readonly after: Sample;
}

export class SoakVitals {
  readonly #mesh: FaultMesh;
  readonly #samples = new Map<number, Sample[]>();

  constructor(mesh: FaultMesh, machines: readonly number[]) {
    this.#mesh = mesh;
    for (const machine of machines) this.#samples.set(machine, []);
  }

  /** One sample of each machine; a node that is stopped right now is left out. */
  async take(): Promise<void> {
    for (const [machine, samples] of this.#samples) {
      const vitals = await this.#mesh.vitals(machine);
      if (vitals === null) continue;
      const descriptors = readdirSync(`/proc/${await this.#mesh.pid(machine)}/fd`).length;
      samples.push({ ...vitals, atMs: performance.now(), descriptors });
    }
  }

  /** `7: 180 MiB, 112 live (heap 38)` for each machine. */
  line(): string {
    const mib = (bytes: number): number => Math.round(bytes / MIB);
    const now = [...this.#samples].map(([machine, samples]) => {
      const { held = 0, rss = 0, heapUsed = 0 } = samples.at(-1) ?? {};
      return `${machine}: ${mib(held)} MiB, ${mib(rss)} live (heap ${mib(heapUsed)})`;
    });
    return now.join('; ');
  }

  /** Trends of the samples after the first `warmUpMs`; the first and the last sample are to be taken at rest. */
  trends(warmUpMs: number): VitalTrend[] {
    return [...this.#samples].flatMap(([machine, samples]) => {
      const begunAtMs = samples[0]?.atMs ?? 0;
      const warm = samples.filter(({ atMs }) => atMs - begunAtMs >= warmUpMs);
      const [before, after] = [samples[0], samples.at(-1)];
      if (before === undefined || after === undefined) return [];
      const trend = (bytes: (sample: Sample) => number): Slope =>
        slopeOf(warm.map((sample) => ({ x: sample.atMs / HOUR_MS, y: bytes(sample) / MIB })));
      const slopes = {
        live: trend((sample) => sample.rss),
        heap: trend((sample) => sample.heapUsed),
        native: trend((sample) => sample.native),
      };
      return [{ machine, ...slopes, samples: warm.length, before, after }];
    });
  }
}
