/** The memory that all models share: who gets in, who has to leave for it, who waits. Decisions are `residency.ts`'s. */
import type { Clock } from '../../../common/clock.ts';
import { MeshError } from '../../../common/errors.ts';
import type { MemoryNeed } from '../../backend.ts';
import { USABLE_SHARE } from './context-fit.ts';
import { decideRoom, type Resident } from './residency.ts';

/** How long a load waits for models that are in use. */
const DEFAULT_WAIT_MS = 30_000;
const RETRY_AFTER_MS = 5_000;

/** A model that wants memory or has some. One object stays the same one for its whole life. */
export interface Tenant {
  readonly model: string;
  readonly use: Resident['state'];
  readonly pinned: boolean;
  readonly lastUsedAt: number;
  /** Only asked of an idle one: its use is `leaving` at once, and `leave` follows when the memory is free. */
  evict(): void;
}

export interface MemoryRoomComponents {
  readonly clock: Clock;
  /** Bytes that programs could get now. Default: what the operating system says. */
  readonly freeBytes?: () => number;
}

export interface MemoryRoomOptions {
  /** For all models together; null for what is free while none is loaded, less a reserve. */
  readonly budgetBytes: number | null;
  readonly waitMs?: number;
}

interface Claim {
  readonly tenant: Tenant;
  readonly roomBytes: number;
  readonly need: MemoryNeed;
  readonly resolve: () => void;
  readonly reject: (error: MeshError) => void;
}

export class MemoryRoom {
  readonly #components: MemoryRoomComponents;
  readonly #options: MemoryRoomOptions;
  readonly #residents = new Map<Tenant, number>();
  readonly #claims: Claim[] = [];
  #measuredBytes: number | null = null;
  #deciding = false;

  constructor(components: MemoryRoomComponents, options: MemoryRoomOptions) {
    this.#components = components;
    this.#options = options;
  }

  /** For all models together. Measured anew while none is loaded: what they take themselves must not count as taken. */
  get budgetBytes(): number {
    const { budgetBytes } = this.#options;
    if (budgetBytes !== null) return budgetBytes;
    if (this.#measuredBytes === null || this.#residents.size === 0) {
      const freeBytes = this.#components.freeBytes ?? (() => process.availableMemory());
      this.#measuredBytes = Math.floor(freeBytes() * USABLE_SHARE);
    }
    return this.#measuredBytes;
  }

  /** The most that `tenant` could ever get: the budget without what pinned others have. */
  limitBytes(tenant: Tenant): number {
    let bytes = this.budgetBytes;
    for (const [other, taken] of this.#residents) if (other.pinned && other !== tenant) bytes -= taken;
    return bytes;
  }

  /**
   * Takes memory, once idle models have made room for it where need be. Give it back with `leave`.
   *
   * @throws MeshError `out_of_memory` when it can never fit, `overloaded` when those in use did not leave in time; the
   * signal's reason.
   */
  claim(tenant: Tenant, roomBytes: number, need: MemoryNeed, signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const claim: Claim = { tenant, roomBytes, need, resolve, reject };
    const waitMs = this.#options.waitMs ?? DEFAULT_WAIT_MS;
    const cancelWait = this.#components.clock.after(waitMs, () => this.#drop(claim, this.#taken(claim)));
    const onAbort = (): void => this.#drop(claim, signal.reason as MeshError);
    signal.addEventListener('abort', onAbort, { once: true });
    this.#claims.push(claim);
    this.changed();
    return promise.finally(() => {
      cancelWait();
      signal.removeEventListener('abort', onAbort);
    });
  }

  /** What it really takes in main memory, once that is known. */
  correct(tenant: Tenant, bytes: number): void {
    if (!this.#residents.has(tenant)) return;
    this.#residents.set(tenant, bytes);
    this.changed();
  }

  /** The memory of `tenant` is free. Unknown ones are ignored. */
  leave(tenant: Tenant): void {
    if (this.#residents.delete(tenant)) this.changed();
  }

  /** Somebody's use or pin changed: those who wait are looked at again. */
  changed(): void {
    // An eviction may change a use, which would come back here in the middle of a decision.
    if (this.#deciding) return;
    this.#deciding = true;
    try {
      for (const claim of [...this.#claims]) this.#decide(claim, claim === this.#claims[0]);
    } finally {
      this.#deciding = false;
    }
  }

  #decide(claim: Claim, isFirst: boolean): void {
    const budgetBytes = this.budgetBytes;
    const residents = [...this.#residents].map(([tenant, needBytes]): Resident => {
      const { model, use, pinned, lastUsedAt } = tenant;
      return { model, needBytes, state: use, pinned, lastUsedAt };
    });
    const decision = decideRoom({ needBytes: claim.roomBytes, budgetBytes, residents });
    if (decision.type === 'never') this.#drop(claim, neverFits(claim, budgetBytes, decision.pinnedBytes));
    // What is becoming free is the first one's; the others may have what nobody has to leave for.
    else if (decision.type === 'load' && (isFirst || residents.every(({ state }) => state !== 'leaving'))) {
      this.#residents.set(claim.tenant, claim.roomBytes);
      this.#settle(claim);
      claim.resolve();
    } else if (decision.type === 'evict' && isFirst) {
      const leaving = new Set(decision.models);
      for (const tenant of [...this.#residents.keys()]) if (isEvictable(tenant, leaving)) tenant.evict();
    }
  }

  #drop(claim: Claim, error: MeshError): void {
    if (!this.#settle(claim)) return;
    claim.reject(error);
    this.changed();
  }

  #settle(claim: Claim): boolean {
    const at = this.#claims.indexOf(claim);
    if (at !== -1) this.#claims.splice(at, 1);
    return at !== -1;
  }

  #taken({ tenant, roomBytes }: Claim): MeshError {
    const others = [...this.#residents.keys()].map(({ model }) => `"${model}"`).join(', ');
    return new MeshError(
      'overloaded',
      `"${tenant.model}" needs ${gibibytes(roomBytes)} and the ${gibibytes(this.budgetBytes)} for models are taken by ${others}, which is in use. Try again later, or start with more --memory.`,
      { retryAfterMs: RETRY_AFTER_MS },
    );
  }
}

function isEvictable({ model, use, pinned }: Tenant, leaving: ReadonlySet<string>): boolean {
  return use === 'idle' && !pinned && leaving.has(model);
}

function neverFits({ tenant, roomBytes, need }: Claim, budgetBytes: number, pinnedBytes: number): MeshError {
  const parts = `weights ${gibibytes(need.weightsBytes)}, context ${gibibytes(need.contextBytes)}, the rest ${gibibytes(need.computeBytes + need.processBytes)}`;
  const pins = pinnedBytes === 0 ? '' : `, of which pinned models have ${gibibytes(pinnedBytes)}`;
  return new MeshError(
    'out_of_memory',
    `"${tenant.model}" needs about ${gibibytes(roomBytes)} of memory (${parts}) and ${gibibytes(budgetBytes)} are there for models${pins}. Start with a smaller --context or --parallel, use a stronger quantisation, or allow more with --memory.`,
  );
}

function gibibytes(bytes: number): string {
  return bytes < 2 ** 30 ? `${Math.ceil(bytes / 2 ** 20)} MiB` : `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}
