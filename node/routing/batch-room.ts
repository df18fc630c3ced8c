/** How much batch work the mesh has room for: the slots that nobody uses. */
import type { Boundary, InferenceKind } from '../../protocols/inference/events.ts';
import type { Clock } from '../common/clock.ts';
import type { Candidate } from './candidate.ts';
import type { MeshDispatcherComponents } from './mesh-dispatcher-components.ts';
import { substitutes } from './model-chain.ts';
import { isWithin, type SelectorHealth } from './selector.ts';

type Candidates = MeshDispatcherComponents['router'];

export interface BatchRoomComponents {
  readonly router: Candidates;
  readonly health: SelectorHealth;
  /** Requests for the model that run or wait at the engine here. */
  readonly used: (model: string) => number;
  /** The models that a name stands for. Default: itself. */
  readonly chainOf?: (name: string) => readonly string[];
  readonly clock: Clock;
}

/** Heartbeats tell a peer's load this late at most, so that what it says may be ours that has ended since. */
const REPORT_MS = 1000;
/** Backends whose attempts are remembered before those that were not asked lately are forgotten. */
const KEPT_PEAKS = 1024;

/** Attempts of ours on one backend, now and lately. */
export interface OwnUse {
  readonly now: number;
  /** The most of the last second or two. */
  readonly lately: number;
}

/**
 * Slots of the candidate that are free for batch work. `usedHere`: of the engine here, what runs or waits, whoever asked.
 * One of several slots stays free, for whoever comes: a server cannot be told that we would yield, and an engine would
 * first have to end a step of ours. Pure.
 */
export function freeSlots({ backend, entry, load, suspect }: Candidate, own: OwnUse, usedHere: number): number {
  const slots = Math.max(1, entry.slots);
  const isCold = entry.state === 'on-disk' || suspect;
  // A load is begun for one line, on a machine that does nothing else.
  const usable = isCold ? 1 : Math.max(1, slots - 1);
  if (backend.kind === 'engine') return Math.max(0, usable - Math.max(usedHere, own.now));
  const others = load === null ? 0 : Math.max(0, load.inFlight + load.queued - own.lately);
  return Math.max(0, usable - others - own.now);
}

export class BatchRoom implements Candidates {
  readonly #components: BatchRoomComponents;
  /** By backend: the most attempts of the present and of the last window. */
  readonly #peaks = new Map<string, { at: number; now: number; before: number }>();

  constructor(components: BatchRoomComponents) {
    this.#components = components;
  }

  /**
   * Those with room: the rest is not asked. The engine here is none of them while others have more of it: whoever began a
   * batch sits at this machine, and what is here is asked first otherwise.
   */
  candidates(model: string): readonly Candidate[] {
    const roomy: Candidate[] = [];
    let mostShare = 0;
    let here: { readonly candidate: Candidate; readonly share: number } | null = null;
    for (const candidate of this.#components.router.candidates(model)) {
      const free = this.#free(candidate, model);
      if (free <= 0) continue;
      const share = free / Math.max(1, candidate.entry.slots);
      if (candidate.backend.kind === 'engine') here = { candidate, share };
      else {
        roomy.push(candidate);
        mostShare = Math.max(mostShare, share);
      }
    }
    return here === null || here.share < mostShare ? roomy : [here.candidate, ...roomy];
  }

  /** Lines of this kind for the name that can be begun now; null when nobody within the boundary has what it stands for. */
  free(name: string, kind: InferenceKind, boundary: Boundary): number | null {
    const { router } = this.#components;
    let free: number | null = null;
    for (const model of substitutes(kind, this.#chainOf(name))) {
      const holders = router.candidates(model).filter((one) => isWithin(boundary, one.boundary));
      for (const candidate of holders) free = (free ?? 0) + this.#free(candidate, model);
    }
    return free;
  }

  /** Only for models that nobody has: one that is merely busy is not looked for. `name`: what they may stand for. */
  async lookFurther(name: string, signal: AbortSignal): Promise<void> {
    const { router } = this.#components;
    const missing = this.#chainOf(name).filter((model) => router.candidates(model).length === 0);
    await Promise.all(missing.map((model) => router.lookFurther(model, signal)));
  }

  forget(backendId: string, model: string): void {
    this.#components.router.forget(backendId, model);
  }

  #chainOf(name: string): readonly string[] {
    return this.#components.chainOf?.(name) ?? [name];
  }

  #free(candidate: Candidate, model: string): number {
    const { health, used } = this.#components;
    const { id, kind } = candidate.backend;
    const lately = this.#lately(candidate);
    if (health.isUnauthorized(id) || health.obstacle(id, model) !== null) return 0;
    const usedHere = kind === 'engine' ? used(model) : 0;
    return freeSlots(candidate, { now: candidate.activeRequests, lately }, usedHere);
  }

  #lately({ backend: { id }, activeRequests }: Candidate): number {
    const now = this.#components.clock.now();
    const peak = this.#peaks.get(id) ?? { at: now, now: 0, before: 0 };
    if (this.#peaks.size >= KEPT_PEAKS && !this.#peaks.has(id)) this.#forgetOld(now);
    this.#peaks.set(id, peak);
    if (now - peak.at >= REPORT_MS) {
      peak.before = now - peak.at < 2 * REPORT_MS ? peak.now : 0;
      peak.now = 0;
      peak.at = now;
    }
    peak.now = Math.max(peak.now, activeRequests);
    return Math.max(peak.now, peak.before);
  }

  #forgetOld(now: number): void {
    for (const [id, { at }] of this.#peaks) if (now - at >= 2 * REPORT_MS) this.#peaks.delete(id);
  }
}
