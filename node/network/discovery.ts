/** Finds peers: by mDNS, by `--peer`, from memory, and from what other peers say. Connecting is the dialer's work. */
import type { Clock } from '../common/clock.ts';
import type { Startable } from '../common/lifecycle.ts';
import type { Logger } from '../common/logger.ts';
import type { KnownPeers } from '../storage/known-peers.ts';
import { dialableAddresses, fingerprintOf, parseMultiaddr, withFingerprint } from './address.ts';
import { Dialer } from './dialer.ts';
import { HeardFilter } from './heard-filter.ts';
import type { HeardPeer } from './multicast.ts';
import { interfacesKey, ownSubnets } from './own-subnets.ts';
import type { PeerTable } from './peer-table.ts';
import type { ConnectionChange, Swarm } from './swarm.ts';

export interface DiscoveryComponents {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly swarm: Swarm;
  readonly table: PeerTable;
  readonly knownPeers: KnownPeers;
  /** Connected, but silent for so long that the connection is probably dead. */
  isSilent(fingerprint: string): boolean;
}

export interface DiscoveryOptions {
  /** Multiaddrs that are dialled for ever. */
  readonly peers?: readonly string[];
  /** With this many connected, hints and memories are not dialled. Default 64. */
  readonly targetPeers?: number;
  /** With this many connected, those heard by mDNS are not dialled either. Default 128. */
  readonly maxPeers?: number;
  /** 0 to 1, for the jitter of dials; default `Math.random`. */
  readonly random?: () => number;
}

const INTERFACE_CHECK_MS = 2000;
/** Of two nodes that hear each other at the same time, one dials and the other only if that did not help. */
const YIELD_MS = 200;
const MAX_HINTS = 64;

/** Feeds a dialer with every peer there is a reason to know. */
export class Discovery implements Startable {
  readonly #components: DiscoveryComponents;
  readonly #options: DiscoveryOptions;
  readonly #targetPeers: number;
  readonly #maxPeers: number;
  readonly #dialer: Dialer;
  readonly #filter = new HeardFilter();
  readonly #unsubscribe: (() => void)[] = [];

  constructor(components: DiscoveryComponents, options: DiscoveryOptions = {}) {
    const { clock, logger, swarm, isSilent } = components;
    this.#components = components;
    this.#options = options;
    this.#targetPeers = options.targetPeers ?? 64;
    this.#maxPeers = options.maxPeers ?? 128;
    this.#dialer = new Dialer(
      {
        clock,
        logger,
        dial: (addresses, signal, dialOptions) => swarm.dial(addresses, signal, dialOptions),
        isConnected: (fingerprint) => swarm.isConnected(fingerprint),
        isSilent,
        unreachable: (fingerprint) => this.#filter.release(fingerprint),
      },
      options.random === undefined ? {} : { random: options.random },
    );
  }

  start(): void {
    if (this.#unsubscribe.length > 0) return;
    const { clock, swarm, table } = this.#components;
    this.#unsubscribe.push(
      swarm.onHeard((heard) => this.#heard(heard)),
      swarm.onConnection((change) => this.#connection(change)),
      table.onChange(({ kind, peer, reason }) => {
        if (kind === 'down' && reason === 'lost') this.#dialer.lost(peer.fingerprint);
      }),
      clock.every(INTERFACE_CHECK_MS, this.#interfaceWatch()),
    );
    for (const address of this.#options.peers ?? []) this.#dialManually(address);
    const known = this.#components.knownPeers.list().slice(0, this.#targetPeers);
    for (const { fingerprint, addresses } of known) {
      if (fingerprint !== swarm.fingerprint) this.#offer('known', fingerprint, addresses);
    }
  }

  stop(): void {
    this.#dialer.stop();
    for (const unsubscribe of this.#unsubscribe.splice(0)) unsubscribe();
  }

  /** Addresses of further peers that a peer named, each ending in `/p2p/…`. Dialled while there are few peers. */
  hints(addresses: readonly string[]): void {
    const { swarm } = this.#components;
    const byPeer = new Map<string, string[]>();
    for (const text of addresses.slice(0, MAX_HINTS)) {
      const address = parseMultiaddr(text);
      const fingerprint = address === null ? null : fingerprintOf(address);
      if (fingerprint === null || fingerprint === swarm.fingerprint || swarm.isConnected(fingerprint)) continue;
      byPeer.set(fingerprint, [...(byPeer.get(fingerprint) ?? []), text]);
    }
    let room = this.#targetPeers - swarm.connected().length;
    for (const [fingerprint, texts] of byPeer) {
      if (room <= 0) return;
      room -= 1;
      this.#offer('hint', fingerprint, texts);
    }
  }

  #offer(source: 'heard' | 'known' | 'hint', fingerprint: string, advertised: readonly string[], delayMs = 0): void {
    const addresses = dialableAddresses(advertised, ownSubnets()).map((text) => withFingerprint(text, fingerprint));
    this.#dialer.offer({ source, fingerprint, addresses, delayMs });
  }

  #dialManually(address: string): void {
    const { logger, swarm } = this.#components;
    const parsed = parseMultiaddr(address);
    if (parsed === null) {
      logger.warn({ address }, 'not a multiaddr; ignored');
      return;
    }
    swarm.trust(address);
    this.#dialer.offer({ source: 'manual', fingerprint: fingerprintOf(parsed), addresses: [address] });
  }

  #heard(heard: HeardPeer): void {
    const { clock, isSilent, swarm, table } = this.#components;
    const { fingerprint, addresses } = heard;
    const connected = swarm.isConnected(fingerprint);
    const trusted = connected || table.get(fingerprint) !== null;
    if (!this.#filter.admit(heard, trusted, clock.now())) return;
    if (connected && !isSilent(fingerprint)) return;
    if (!trusted && swarm.connected().length >= this.#maxPeers) return;
    this.#offer('heard', fingerprint, addresses, fingerprint > swarm.fingerprint ? 0 : YIELD_MS);
  }

  #connection(change: ConnectionChange): void {
    const { knownPeers } = this.#components;
    const { fingerprint } = change;
    if (change.kind === 'closed') this.#dialer.lost(fingerprint);
    if (change.kind !== 'identified') return;
    const addresses = dialableAddresses(change.addresses, ownSubnets());
    knownPeers.seen({ fingerprint, addresses });
    // From now on it is dialled again when it gets lost, whoever dialled first.
    this.#offer('known', fingerprint, addresses);
  }

  /** Multicast memberships belong to an interface and do not survive it. */
  #interfaceWatch(): () => void {
    let before = interfacesKey();
    return () => {
      const now = interfacesKey();
      if (now === before) return;
      before = now;
      this.#components.swarm.restartMulticast().catch((error: unknown) => {
        this.#components.logger.warn({ error }, 'mDNS did not restart after the network changed');
      });
      this.#dialer.retryAll();
    };
  }
}
