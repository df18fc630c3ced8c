/** Tells every connected peer what this node serves, hears what they serve, and notices which of them still live. */
import type { Stream } from '@libp2p/interface';
import type { CatalogEntry, NodeHello, NodeLoad } from '../../protocols/catalog/catalog.ts';
import { CatalogPublisher } from '../../protocols/catalog/client.ts';
import { type CatalogSink, serveCatalog } from '../../protocols/catalog/server.ts';
import { CATALOG_PROTOCOL } from '../../protocols/protocol-id.ts';
import { abortable, type Clock, sleep } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';
import type { Startable } from '../common/lifecycle.ts';
import type { Logger } from '../common/logger.ts';
import { dialableAddresses, withFingerprint } from './address.ts';
import { FailureDetector, LoopLag, type Verdict } from './liveness.ts';
import type { PeerTable } from './peer-table.ts';
import type { ConnectionChange, Swarm } from './swarm.ts';

/** What this node says about itself; all are asked each time it is said. */
export interface SelfDescription {
  /** Peer hints are added by the exchange. */
  hello(): Omit<NodeHello, 'peerHints'>;
  entries(): readonly CatalogEntry[];
  load(): NodeLoad;
}

export interface CatalogExchangeComponents {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly swarm: Swarm;
  readonly table: PeerTable;
  readonly self: SelfDescription;
}

export interface CatalogExchangeOptions {
  /** A peer named further peers: multiaddrs that end in `/p2p/…`. */
  readonly onHints?: (addresses: readonly string[]) => void;
}

/** What this node keeps for one connected peer. */
interface Session {
  readonly fingerprint: string;
  readonly publisher: CatalogPublisher;
  detector: FailureDetector;
  /** A heartbeat came since the detector was made: its silence means something. */
  heard: boolean;
  /** Ends the publishing of the present connection. */
  publishing: AbortController;
  /** Ends the inbound stream: the newest replaces the one before. */
  inbound: AbortController | null;
  /** The stream of `inbound`. */
  carrier: Stream | null;
  violations: number;
}

const LIVENESS_TICK_MS = 100;
/** Event-loop lag from which on failures say nothing about others. */
const STRAINED_LAG_MS = 200;
const FIRST_REOPEN_MS = 100;
const LAST_REOPEN_MS = 2000;
const HINTS = 64;
const HINTS_PER_PEER = 2;
/** Broken catalog streams of one peer before it is disconnected. */
const MAX_VIOLATIONS = 3;

/** One publisher and one subscriber per connected peer, and one failure detector that both feed. */
export class CatalogExchange implements Startable {
  readonly #components: CatalogExchangeComponents;
  readonly #onHints: (addresses: readonly string[]) => void;
  readonly #sessions = new Map<string, Session>();
  readonly #unsubscribe: (() => void)[] = [];
  readonly #stopped = new AbortController();
  readonly #sink: CatalogSink;
  #lag: LoopLag;
  #leaving = false;

  constructor(components: CatalogExchangeComponents, options: CatalogExchangeOptions = {}) {
    this.#components = components;
    this.#onHints = options.onHints ?? (() => {});
    this.#sink = this.#makeSink();
    this.#lag = new LoopLag(components.clock.now(), LIVENESS_TICK_MS);
  }

  start(): void {
    if (this.#unsubscribe.length > 0) return;
    const { clock, swarm, table } = this.#components;
    this.#lag = new LoopLag(clock.now(), LIVENESS_TICK_MS);
    this.#unsubscribe.push(
      swarm.onConnection((change) => this.#connection(change)),
      clock.every(LIVENESS_TICK_MS, () => this.#judge()),
      // Whoever comes or goes changes our hints.
      table.onChange(({ kind }) => {
        if (kind === 'up' || kind === 'down') this.changed();
      }),
    );
    for (const fingerprint of swarm.connected()) this.#session(fingerprint);
  }

  /** Says goodbye to all, then ends. */
  async stop(signal: AbortSignal): Promise<void> {
    for (const unsubscribe of this.#unsubscribe.splice(0)) unsubscribe();
    try {
      await abortable(this.goodbye(), signal);
    } finally {
      this.#stopped.abort(new MeshError('draining', 'This node is stopping.'));
      for (const session of this.#sessions.values()) closeSession(session);
      this.#sessions.clear();
    }
  }

  /** Serves one inbound catalog stream; to be given to the swarm for `CATALOG_PROTOCOL`. Never rejects. */
  async serve(stream: Stream, from: string): Promise<void> {
    if (this.#stopped.signal.aborted || !this.#components.swarm.isConnected(from)) {
      stream.abort(new Error('too late'));
      return;
    }
    const session = this.#session(from);
    session.inbound?.abort(new MeshError('protocol_violation', 'replaced by a newer catalog stream'));
    const inbound = new AbortController();
    session.inbound = inbound;
    session.carrier = stream;
    const ifCurrent = currentOnly(this.#sink, () => session.inbound === inbound);
    await serveCatalog(stream, from, ifCurrent, { clock: this.#components.clock, signal: inbound.signal });
  }

  /** What `self` describes changed: every peer hears of it at once. */
  changed(): void {
    for (const { publisher } of this.#sessions.values()) publisher.changed();
  }

  /** Tells every peer that this node stops, and says nothing to those that connect later. Never rejects. */
  async goodbye(): Promise<void> {
    this.#leaving = true;
    await Promise.allSettled([...this.#sessions.values()].map(({ publisher }) => publisher.goodbye()));
  }

  /** Did this node itself stall lately, so that late or failing peers may be its own doing? */
  isStrained(): boolean {
    return this.#lag.recentMs(this.#components.clock.now()) > STRAINED_LAG_MS;
  }

  /** Connected, but its heartbeats stopped: the connection is probably dead. */
  isSilent(fingerprint: string): boolean {
    const session = this.#sessions.get(fingerprint);
    return session?.heard === true && this.#verdict(session) === 'dead';
  }

  #connection({ kind, fingerprint }: ConnectionChange): void {
    const { clock, swarm, table } = this.#components;
    const session = this.#sessions.get(fingerprint);
    if (kind === 'identified') {
      table.addresses(fingerprint, swarm.listenAddresses(fingerprint));
      // Only now it can be a hint for others.
      this.changed();
    } else if (kind === 'closed') {
      this.#sessions.delete(fingerprint);
      if (session !== undefined) closeSession(session);
      table.lost(fingerprint);
    } else if (session === undefined) {
      this.#session(fingerprint);
    } else if (this.#verdict(session) !== 'alive') {
      // The old connection is probably dead: publish on the new one.
      session.publishing.abort(new MeshError('peer_unreachable', 'replaced by a newer connection'));
      session.publishing = new AbortController();
      session.detector = new FailureDetector(clock.now());
      session.heard = false;
      void this.#publish(session, session.publishing.signal);
    }
  }

  #session(fingerprint: string): Session {
    const known = this.#sessions.get(fingerprint);
    if (known !== undefined) return known;
    const { clock, swarm, table, self } = this.#components;
    const publisher = new CatalogPublisher(
      {
        clock,
        open: (signal) => swarm.openStream(fingerprint, CATALOG_PROTOCOL, signal),
        hello: () => ({ ...self.hello(), peerHints: this.#hintsFor(fingerprint) }),
        entries: () => self.entries(),
        load: () => self.load(),
      },
      { onRoundTrip: (ms) => table.roundTrip(fingerprint, ms) },
    );
    const session: Session = {
      fingerprint,
      publisher,
      detector: new FailureDetector(clock.now()),
      heard: false,
      publishing: new AbortController(),
      inbound: null,
      carrier: null,
      violations: 0,
    };
    this.#sessions.set(fingerprint, session);
    void this.#publish(session, session.publishing.signal);
    return session;
  }

  /** Publishes for as long as the peer is connected, on one stream after the other. Never rejects. */
  async #publish({ fingerprint, publisher }: Session, signal: AbortSignal): Promise<void> {
    const { clock, logger, swarm } = this.#components;
    let reopenMs = FIRST_REOPEN_MS;
    while (!signal.aborted && !this.#leaving && swarm.isConnected(fingerprint)) {
      const startedAt = clock.now();
      try {
        await publisher.run(signal);
        return;
      } catch (error) {
        if (signal.aborted) return;
        logger.debug({ peer: fingerprint, error }, 'the catalog stream to a peer ended; opening another');
      }
      if (clock.now() - startedAt > LAST_REOPEN_MS) reopenMs = FIRST_REOPEN_MS;
      await sleep(clock, reopenMs, signal).catch(() => {});
      reopenMs = Math.min(LAST_REOPEN_MS, reopenMs * 2);
    }
  }

  #judge(): void {
    const { clock, table } = this.#components;
    this.#lag.tick(clock.now());
    for (const session of this.#sessions.values()) {
      const { fingerprint, heard } = session;
      const verdict = this.#verdict(session);
      if (verdict === 'dead') table.lost(fingerprint);
      else if (verdict === 'suspect') table.suspect(fingerprint);
      else if (heard) table.alive(fingerprint);
    }
  }

  #verdict({ detector }: Session): Verdict {
    const now = this.#components.clock.now();
    return detector.verdict(now, this.#lag.recentMs(now));
  }

  #heartbeat(fingerprint: string): void {
    const session = this.#sessions.get(fingerprint);
    if (session === undefined) return;
    session.heard = true;
    session.detector.heartbeat(this.#components.clock.now());
    if (session.carrier !== null) this.#components.swarm.heard(session.carrier);
  }

  #makeSink(): CatalogSink {
    const { logger, swarm, table } = this.#components;
    return {
      hello: (from, hello) => {
        table.hello(from, hello);
        table.addresses(from, swarm.listenAddresses(from));
        this.#onHints(hello.peerHints);
      },
      snapshot: (from, entries) => {
        this.#heartbeat(from);
        table.snapshot(from, entries);
      },
      delta: (from, upsert, remove) => table.delta(from, upsert, remove),
      heartbeat: (from, load) => {
        this.#heartbeat(from);
        table.load(from, load);
        table.alive(from);
      },
      goodbye: (from) => table.goodbye(from),
      ended: (from, error) => {
        const session = this.#sessions.get(from);
        if (error?.code !== 'protocol_violation' || session === undefined) return;
        session.violations += 1;
        logger.warn({ peer: from, error }, 'a peer broke the catalog protocol');
        if (session.violations >= MAX_VIOLATIONS) swarm.disconnect(from);
      },
    };
  }

  /** Where this node's other peers can be reached, for a peer that may not know them. */
  #hintsFor(fingerprint: string): string[] {
    const hints: string[] = [];
    for (const peer of this.#components.table.list()) {
      if (peer.fingerprint === fingerprint || peer.status === 'offline') continue;
      for (const address of dialableAddresses(peer.addresses, [], HINTS_PER_PEER)) {
        hints.push(withFingerprint(address, peer.fingerprint));
      }
    }
    return hints.slice(0, HINTS);
  }
}

function closeSession(session: Session): void {
  const gone = new MeshError('peer_unreachable', 'The connection to the peer is closed.');
  session.publishing.abort(gone);
  session.inbound?.abort(gone);
}

/** A replaced stream may still deliver what it had read; it has no say any more. */
function currentOnly(sink: CatalogSink, isCurrent: () => boolean): CatalogSink {
  return {
    hello: (from, hello) => isCurrent() && sink.hello(from, hello),
    snapshot: (from, entries) => isCurrent() && sink.snapshot(from, entries),
    delta: (from, upsert, remove) => isCurrent() && sink.delta(from, upsert, remove),
    heartbeat: (from, load) => isCurrent() && sink.heartbeat(from, load),
    goodbye: (from) => isCurrent() && sink.goodbye(from),
    ended: (from, error) => isCurrent() && sink.ended(from, error),
  };
}
