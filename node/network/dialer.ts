/** Keeps dialling the peers that somebody told us about until they are connected. */
import type { Clock } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';
import type { Startable } from '../common/lifecycle.ts';
import type { Logger } from '../common/logger.ts';
import type { DialOptions } from './swarm.ts';

/** Who named the peer: the user, mDNS, our memory of earlier runs, or another peer. */
export type DialSource = 'manual' | 'heard' | 'known' | 'hint';

export interface DialTarget {
  readonly source: DialSource;
  /** Null: whoever answers at the address. */
  readonly fingerprint: string | null;
  /** In the order to try. */
  readonly addresses: readonly string[];
  /** Wait before the first dial. Default 0. */
  readonly delayMs?: number;
}

export interface DialerComponents {
  readonly clock: Clock;
  readonly logger: Logger;
  /** Connects, bounded in time; resolves with who answered. */
  dial(addresses: readonly string[], signal: AbortSignal, options: DialOptions): Promise<string>;
  isConnected(fingerprint: string): boolean;
  /** Connected, but silent for so long that the connection is probably dead. */
  isSilent(fingerprint: string): boolean;
  /** A peer that was never connected is given up, or could not be reached once. */
  unreachable(fingerprint: string): void;
}

export interface DialerOptions {
  /** Dials at once. Default 8. */
  readonly concurrency?: number;
  /** 0 to 1; default `Math.random`. */
  readonly random?: () => number;
}

interface DialPolicy {
  readonly capMs: number;
  /** Failures in a row after which the target is forgotten. */
  readonly attempts: number;
  /** Forgotten when nobody named it again for this long. */
  readonly ttlMs: number;
}

const POLICIES: Record<DialSource, DialPolicy> = {
  manual: { capMs: 15_000, attempts: Number.POSITIVE_INFINITY, ttlMs: Number.POSITIVE_INFINITY },
  heard: { capMs: 15_000, attempts: Number.POSITIVE_INFINITY, ttlMs: 120_000 },
  known: { capMs: 60_000, attempts: Number.POSITIVE_INFINITY, ttlMs: Number.POSITIVE_INFINITY },
  hint: { capMs: 15_000, attempts: 4, ttlMs: 600_000 },
};
const RANK: Record<DialSource, number> = { manual: 3, heard: 2, known: 1, hint: 0 };
const FIRST_RETRY_MS = 250;
const MAX_TARGETS = 1024;

/** Wait after `failures` dials in a row failed: doubles from 250 ms to the cap, then ± 25 % so that nodes do not march in step. */
export function retryDelayMs(failures: number, capMs: number, random: number): number {
  const full = Math.min(capMs, FIRST_RETRY_MS * 2 ** Math.min(failures - 1, 16));
  return full * (0.75 + 0.5 * random);
}

interface Target {
  readonly key: string;
  source: DialSource;
  fingerprint: string | null;
  addresses: readonly string[];
  failures: number;
  namedAt: number;
  /** Cancels the wait for the next dial; null while none is planned. */
  cancel: (() => void) | null;
  dialling: boolean;
}

/** One loop over all targets: never two dials to one peer at once, few at a time, each failure waits longer. */
export class Dialer implements Startable {
  readonly #components: DialerComponents;
  readonly #concurrency: number;
  readonly #random: () => number;
  readonly #targets = new Map<string, Target>();
  readonly #queue: Target[] = [];
  readonly #stopped = new AbortController();
  #running = 0;

  constructor(components: DialerComponents, options: DialerOptions = {}) {
    this.#components = components;
    this.#concurrency = options.concurrency ?? 8;
    this.#random = options.random ?? Math.random;
  }

  start(): void {}

  stop(): void {
    this.#stopped.abort(new MeshError('draining', 'This node is stopping.'));
    for (const target of this.#targets.values()) target.cancel?.();
    this.#targets.clear();
    this.#queue.length = 0;
  }

  /** Targets that are kept. */
  get size(): number {
    return this.#targets.size;
  }

  /** Dials unless connected. Naming a peer again renews its addresses and makes the next dial due at once. */
  offer({ source, fingerprint, addresses, delayMs = 0 }: DialTarget): void {
    if (this.#stopped.signal.aborted || addresses.length === 0) return;
    const key = fingerprint ?? addresses[0] ?? '';
    let target = this.#targets.get(key);
    if (target === undefined) {
      if (this.#targets.size >= MAX_TARGETS) return;
      target = { key, source, fingerprint, addresses, failures: 0, namedAt: 0, cancel: null, dialling: false };
      this.#targets.set(key, target);
      this.#plan(target, delayMs);
    } else {
      if (RANK[source] >= RANK[target.source]) {
        target.source = source;
        target.addresses = addresses;
      }
      // A hint proves nothing; an answer heard now does.
      if (source === 'heard' || source === 'manual') this.#plan(target, delayMs);
    }
    target.namedAt = this.#components.clock.now();
  }

  /** The peer was lost: try again soon. Does nothing for peers that nobody named. */
  lost(fingerprint: string): void {
    for (const target of this.#targets.values()) {
      if (target.fingerprint !== fingerprint || target.dialling) continue;
      target.failures = 0;
      this.#plan(target, retryDelayMs(1, FIRST_RETRY_MS, this.#random()));
    }
  }

  /** The network of this machine changed: everything is worth a try now. */
  retryAll(): void {
    for (const target of this.#targets.values()) {
      target.failures = 0;
      this.#plan(target, 0);
    }
  }

  #plan(target: Target, delayMs: number): void {
    target.cancel?.();
    target.cancel = this.#components.clock.after(delayMs, () => {
      target.cancel = null;
      this.#queue.push(target);
      this.#work();
    });
  }

  #work(): void {
    while (this.#running < this.#concurrency) {
      const target = this.#queue.shift();
      if (target === undefined) return;
      if (target.dialling || this.#isReached(target) || this.#targets.get(target.key) !== target) continue;
      if (this.#isDialled(target)) {
        this.#plan(target, FIRST_RETRY_MS);
        continue;
      }
      this.#running += 1;
      target.dialling = true;
      void this.#dial(target).finally(() => {
        target.dialling = false;
        this.#running -= 1;
        this.#work();
      });
    }
  }

  /** By way of another target: an address that the user named may be that of a peer known by its fingerprint. */
  #isDialled({ fingerprint }: Target): boolean {
    if (fingerprint === null) return false;
    for (const other of this.#targets.values()) if (other.dialling && other.fingerprint === fingerprint) return true;
    return false;
  }

  #isReached({ fingerprint }: Target): boolean {
    const { isConnected, isSilent } = this.#components;
    return fingerprint !== null && isConnected(fingerprint) && !isSilent(fingerprint);
  }

  /** Never rejects. */
  async #dial(target: Target): Promise<void> {
    const { clock, dial, isConnected, logger, unreachable } = this.#components;
    const force = target.fingerprint !== null && isConnected(target.fingerprint);
    try {
      target.fingerprint = await dial(target.addresses, this.#stopped.signal, { force });
      target.failures = 0;
    } catch (error) {
      if (this.#stopped.signal.aborted) return;
      target.failures += 1;
      const policy = POLICIES[target.source];
      logger.debug({ peer: target.key, failures: target.failures, error }, 'dial failed');
      if (target.fingerprint !== null) unreachable(target.fingerprint);
      if (target.failures >= policy.attempts || clock.now() - target.namedAt > policy.ttlMs) {
        this.#targets.delete(target.key);
      } else if (target.cancel === null) {
        this.#plan(target, retryDelayMs(target.failures, policy.capMs, this.#random()));
      }
    }
  }
}
