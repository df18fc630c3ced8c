/** All peers as this node sees them: what each said last, and whether it can be believed now. */
import type { CatalogEntry, NodeHello, NodeLoad } from '../../protocols/catalog/catalog.ts';

/** online: use it; suspect: silent for a moment, last choice; offline: gone, serves nothing. */
export type PeerStatus = 'online' | 'suspect' | 'offline';

/** A snapshot; never changes once handed out. */
export interface PeerView {
  readonly fingerprint: string;
  readonly name: string;
  readonly version: string;
  readonly engineBuild: string;
  /** Start of its process, Unix milliseconds. */
  readonly epoch: number;
  readonly status: PeerStatus;
  /** Multiaddrs at which it says it listens. */
  readonly addresses: readonly string[];
  /** Smoothed round trip of heartbeats, null before the first. */
  readonly latencyMs: number | null;
  /** Null before the first heartbeat. */
  readonly load: NodeLoad | null;
  /** Empty while offline. */
  readonly models: readonly CatalogEntry[];
  /** Unix milliseconds of the last sign of life. */
  readonly lastSeen: number;
}

export interface PeerChange {
  /** up and down: became usable, ceased to be. status: online to suspect or back. */
  readonly kind: 'up' | 'down' | 'models' | 'status' | 'load';
  readonly peer: PeerView;
  /** Only with `down`. */
  readonly reason?: 'goodbye' | 'lost';
}

export interface PeerTableOptions {
  /** Offline peers that stay listed; the one seen longest ago goes first. Default 256. */
  readonly offlineLimit?: number;
  /** Unix milliseconds. Default `Date.now`. */
  readonly wallClock?: () => number;
}

interface Entry {
  readonly fingerprint: string;
  hello: NodeHello;
  status: PeerStatus;
  addresses: readonly string[];
  latencyMs: number | null;
  load: NodeLoad | null;
  /** What it said, kept while offline: a peer that only was silent has not changed its mind. Null: nothing said yet. */
  models: ReadonlyMap<string, CatalogEntry> | null;
  lastSeen: number;
  /** When it was declared gone without a goodbye, Unix milliseconds. */
  lostAt: number;
  view: PeerView | null;
}

/** Weight of the newest round trip in the smoothed latency. */
const LATENCY_WEIGHT = 0.2;
/** A connection that broke is there again in this time, and mostly a node that was started again, ms. */
const RETURN_MS = 4000;

/** A peer enters with its HELLO and is `online` from its first snapshot on: connected is not ready. */
export class PeerTable {
  readonly #entries = new Map<string, Entry>();
  readonly #listeners = new Set<(change: PeerChange) => void>();
  readonly #offlineLimit: number;
  readonly #wallClock: () => number;

  constructor(options: PeerTableOptions = {}) {
    this.#offlineLimit = options.offlineLimit ?? 256;
    this.#wallClock = options.wallClock ?? Date.now;
  }

  /** Every peer that ever was online, and still is remembered. */
  list(): readonly PeerView[] {
    return [...this.#entries.values()].filter((entry) => entry.models !== null || entry.lastSeen > 0).map(viewOf);
  }

  onlineCount(): number {
    let count = 0;
    for (const { status } of this.#entries.values()) if (status === 'online') count += 1;
    return count;
  }

  get(fingerprint: string): PeerView | null {
    const entry = this.#entries.get(fingerprint);
    return entry === undefined ? null : viewOf(entry);
  }

  /** Did a peer that has the model fall silent so lately that it may be back at once? */
  isAwaited(modelId: string): boolean {
    const since = this.#wallClock() - RETURN_MS;
    for (const { status, lostAt, models } of this.#entries.values()) {
      if (status === 'offline' && lostAt > since && models?.has(modelId) === true) return true;
    }
    return false;
  }

  /** Calls `listener` at each change, synchronously; returns the unsubscribe. */
  onChange(listener: (change: PeerChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * The peer introduced itself. Another epoch makes everything void that it said before. While it is in use an earlier
   * one is ignored; of a peer that was gone it is believed, for a clock may be set back between two lives.
   */
  hello(fingerprint: string, hello: NodeHello): void {
    const known = this.#entries.get(fingerprint);
    if (known === undefined) {
      this.#entries.set(fingerprint, newEntry(fingerprint, hello));
      return;
    }
    if (hello.epoch < known.hello.epoch && known.status !== 'offline') return;
    if (hello.epoch !== known.hello.epoch) {
      this.#down(known, 'lost');
      known.models = null;
      known.load = null;
    }
    const renamed = hello.name !== known.hello.name;
    known.hello = hello;
    known.view = null;
    if (renamed && known.status === 'online') this.#emit('models', known);
  }

  /** Its whole catalog: from now on it is online. Ignored without a HELLO. */
  snapshot(fingerprint: string, models: readonly CatalogEntry[]): void {
    const entry = this.#entries.get(fingerprint);
    if (entry === undefined) return;
    const same = sameModels(entry.models, models);
    entry.models = new Map(models.map((model) => [model.id, model]));
    entry.view = null;
    if (entry.status !== 'online') this.alive(fingerprint);
    else if (!same) this.#emit('models', entry);
  }

  /** Changes of its catalog; ignored before its snapshot. */
  delta(fingerprint: string, upsert: readonly CatalogEntry[], remove: readonly string[]): void {
    const entry = this.#entries.get(fingerprint);
    if (entry === undefined || entry.models === null) return;
    const models = new Map(entry.models);
    for (const id of remove) models.delete(id);
    for (const model of upsert) models.set(model.id, model);
    entry.models = models;
    entry.view = null;
    if (entry.status !== 'offline') this.#emit('models', entry);
  }

  load(fingerprint: string, load: NodeLoad): void {
    const entry = this.#entries.get(fingerprint);
    if (entry === undefined) return;
    const changed = !sameLoad(entry.load, load);
    entry.lastSeen = this.#wallClock();
    entry.view = null;
    entry.load = load;
    if (changed && entry.status !== 'offline') this.#emit('load', entry);
  }

  /** A heartbeat of ours came back after `roundTripMs`. */
  roundTrip(fingerprint: string, roundTripMs: number): void {
    const entry = this.#entries.get(fingerprint);
    if (entry === undefined) return;
    entry.latencyMs =
      entry.latencyMs === null ? roundTripMs : entry.latencyMs + LATENCY_WEIGHT * (roundTripMs - entry.latencyMs);
    entry.view = null;
    if (entry.status !== 'offline') this.#emit('load', entry);
  }

  addresses(fingerprint: string, addresses: readonly string[]): void {
    const entry = this.#entries.get(fingerprint);
    if (entry === undefined) return;
    entry.addresses = addresses;
    entry.view = null;
  }

  /** It gives signs of life. Online again if its catalog is known; else its snapshot will say so. */
  alive(fingerprint: string): void {
    const entry = this.#entries.get(fingerprint);
    if (entry === undefined || entry.models === null || entry.status === 'online') return;
    const before = entry.status;
    entry.lastSeen = this.#wallClock();
    this.#set(entry, 'online', before === 'offline' ? 'up' : 'status');
  }

  /** It is silent longer than it should be. */
  suspect(fingerprint: string): void {
    const entry = this.#entries.get(fingerprint);
    if (entry?.status === 'online') this.#set(entry, 'suspect', 'status');
  }

  /** It is gone, at least for us. What it said is kept for `alive`. */
  lost(fingerprint: string): void {
    const entry = this.#entries.get(fingerprint);
    if (entry !== undefined) this.#down(entry, 'lost');
  }

  /** It said that it stops: what it said is void, only a new snapshot brings it back. */
  goodbye(fingerprint: string): void {
    const entry = this.#entries.get(fingerprint);
    if (entry === undefined) return;
    this.#down(entry, 'goodbye');
    entry.models = null;
    entry.load = null;
    entry.view = null;
  }

  #down(entry: Entry, reason: 'goodbye' | 'lost'): void {
    if (entry.status === 'offline') return;
    entry.status = 'offline';
    entry.view = null;
    if (reason === 'lost') entry.lostAt = this.#wallClock();
    this.#emit('down', entry, reason);
    this.#forgetOldest();
  }

  #set(entry: Entry, status: PeerStatus, kind: 'up' | 'status'): void {
    entry.status = status;
    entry.view = null;
    this.#emit(kind, entry);
  }

  #emit(kind: PeerChange['kind'], entry: Entry, reason?: 'goodbye' | 'lost'): void {
    const change: PeerChange = { kind, peer: viewOf(entry), ...(reason !== undefined && { reason }) };
    for (const listener of this.#listeners) listener(change);
  }

  #forgetOldest(): void {
    const offline = [...this.#entries.values()].filter((entry) => entry.status === 'offline');
    if (offline.length <= this.#offlineLimit) return;
    const oldest = offline.reduce((a, b) => (b.lastSeen < a.lastSeen ? b : a));
    this.#entries.delete(oldest.fingerprint);
  }
}

function newEntry(fingerprint: string, hello: NodeHello): Entry {
  return {
    fingerprint,
    hello,
    status: 'offline',
    addresses: [],
    latencyMs: null,
    load: null,
    models: null,
    lastSeen: 0,
    lostAt: Number.NEGATIVE_INFINITY,
    view: null,
  };
}

function viewOf(entry: Entry): PeerView {
  entry.view ??= {
    fingerprint: entry.fingerprint,
    name: entry.hello.name,
    version: entry.hello.version,
    engineBuild: entry.hello.engineBuild,
    epoch: entry.hello.epoch,
    status: entry.status,
    addresses: entry.addresses,
    latencyMs: entry.latencyMs,
    load: entry.load,
    models: entry.status === 'offline' || entry.models === null ? [] : [...entry.models.values()],
    lastSeen: entry.lastSeen,
  };
  return entry.view;
}

function sameModels(known: ReadonlyMap<string, CatalogEntry> | null, said: readonly CatalogEntry[]): boolean {
  if (known === null || known.size !== said.length) return false;
  return said.every((model) => JSON.stringify(known.get(model.id)) === JSON.stringify(model));
}

function sameLoad(a: NodeLoad | null, b: NodeLoad): boolean {
  return (
    a !== null &&
    a.inFlight === b.inFlight &&
    a.queued === b.queued &&
    a.engineAgeMs === b.engineAgeMs &&
    a.draining === b.draining
  );
}
