/** This node among its peers: who is connected, how to reach them, and what they may open here. */
import type { Connection, PrivateKey, Stream } from '@libp2p/interface';
import { peerIdFromPrivateKey, peerIdFromString } from '@libp2p/peer-id';
import { abortable, type Clock, deadline } from '../common/clock.ts';
import { MeshError, toMeshError } from '../common/errors.ts';
import type { Startable } from '../common/lifecycle.ts';
import type { Logger } from '../common/logger.ts';
import { leadsHere, parseMultiaddr } from './address.ts';
import { Dht } from './dht.ts';
import { DialGate } from './dial-gate.ts';
import { createStack, type Stack } from './libp2p-stack.ts';
import { freeListenAddresses } from './listen-port.ts';
import type { HeardPeer } from './multicast.ts';
import { dialTarget, firstToOpen, unreachable } from './outbound.ts';
import { MAX_STREAMS, Ways } from './ways.ts';

/** Serves one inbound stream and owns it, errors included; `from` is the peer's proven fingerprint. */
export type StreamHandler = (stream: Stream, from: string) => Promise<void>;

export interface SwarmComponents {
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface SwarmOptions {
  readonly privateKey: PrivateKey;
  /** Inbound protocols. */
  readonly handlers: ReadonlyMap<string, StreamHandler>;
  /** Default: port 8643 of all IPv4 and IPv6 addresses. Taken ports move on to the next free one. */
  readonly listen?: readonly string[];
  readonly mdns?: boolean;
  readonly dht?: boolean;
  /** False keeps this node from dialling a peer, whoever asks for it. Default: all may be dialled. */
  readonly mayDial?: (fingerprint: string) => boolean;
}

export type ConnectionChange =
  /** A connection opened; there may be others to this peer. */
  | { readonly kind: 'opened'; readonly fingerprint: string }
  /** The last connection of this peer closed. */
  | { readonly kind: 'closed'; readonly fingerprint: string }
  /** The peer said where it listens. */
  | { readonly kind: 'identified'; readonly fingerprint: string; readonly addresses: readonly string[] };

export interface DialOptions {
  /** Dial although there is a connection: it may be dead without knowing. Default false. */
  readonly force?: boolean;
}

const DEFAULT_LISTEN = ['/ip4/0.0.0.0/tcp/8643', '/ip6/::/tcp/8643'];
const OPEN_TIMEOUT_MS = 1500;
const DIAL_TIMEOUT_MS = 3000;
/** Two heartbeats: connections on which nothing came for longer may all be dead. */
const SILENT_MS = 1000;
/** Starts of libp2p that are tried when somebody takes the port between our look and its bind. */
const START_TRIES = 5;

/** Owns libp2p. Everything else in the node names peers by fingerprint. */
export class Swarm implements Startable {
  readonly fingerprint: string;
  /** Its records are hints. Without DHT it finds nothing. */
  readonly dht: Dht;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #options: SwarmOptions;
  readonly #gate: DialGate;
  readonly #ways: Ways;
  readonly #listeners = new Set<(change: ConnectionChange) => void>();
  /** Where connected peers say that they listen. */
  readonly #listenAddresses = new Map<string, readonly string[]>();
  readonly #heardListeners = new Set<(heard: HeardPeer) => void>();
  #stack: Stack | null = null;
  #stopSweeping = (): void => {};

  constructor(components: SwarmComponents, options: SwarmOptions) {
    this.#clock = components.clock;
    this.#ways = new Ways(components);
    this.#logger = components.logger;
    this.#options = options;
    this.#gate = new DialGate(options.mayDial === undefined ? {} : { mayDial: options.mayDial });
    this.fingerprint = peerIdFromPrivateKey(options.privateKey).toString();
    this.dht = new Dht({ stack: () => (options.dht === false ? null : this.#stack) }, { self: this.fingerprint });
  }

  /** @throws MeshError `invalid_request` when no listen address can be had. */
  async start(): Promise<void> {
    if (this.#stack !== null) return;
    const wanted = this.#options.listen ?? DEFAULT_LISTEN;
    for (let tries = 1; ; tries += 1) {
      const listen = await freeListenAddresses(wanted);
      const stack = await createStack(
        {
          privateKey: this.#options.privateKey,
          fingerprint: this.fingerprint,
          listen,
          mdns: this.#options.mdns ?? true,
          dht: this.#options.dht ?? true,
        },
        this.#gate,
      );
      this.#listen(stack);
      await this.#handle(stack);
      try {
        await stack.libp2p.start();
        this.#stack = stack;
        this.#stopSweeping = this.#ways.sweep(() => stack.libp2p.getConnections());
        return;
      } catch (error) {
        if (tries >= START_TRIES) throw toMeshError(error);
        this.#logger.debug({ error }, 'libp2p did not start; trying again');
      }
    }
  }

  async stop(signal: AbortSignal): Promise<void> {
    const stack = this.#stack;
    this.#stack = null;
    this.#stopSweeping();
    if (stack === null) return;
    await abortable(Promise.resolve(stack.libp2p.stop()), signal);
  }

  /** The TCP port of the first listen address; null before start. */
  get listenPort(): number | null {
    for (const address of this.multiaddrs()) {
      const port = /\/tcp\/(\d+)/.exec(address)?.[1];
      if (port !== undefined) return Number(port);
    }
    return null;
  }

  /** Where peers can dial us, each ending in `/p2p/<fingerprint>`. */
  multiaddrs(): string[] {
    return (this.#stack?.libp2p.getMultiaddrs() ?? []).map((address) => address.toString());
  }

  /** Fingerprints with at least one open connection. */
  connected(): string[] {
    const open = this.#stack?.libp2p.getConnections().filter((connection) => connection.status === 'open') ?? [];
    return [...new Set(open.map((connection) => connection.remotePeer.toString()))];
  }

  isConnected(fingerprint: string): boolean {
    return this.#waysTo(fingerprint).length > 0;
  }

  /** Something came on this stream just now: the connection that carries it works. */
  heard(stream: Stream): void {
    this.#ways.heard(stream);
  }

  /** Where a connected peer says it listens; empty until it identified itself. */
  listenAddresses(fingerprint: string): readonly string[] {
    return this.#listenAddresses.get(fingerprint) ?? [];
  }

  /** Lets an address be dialled that the user named, be it public or a host name. */
  trust(address: string): void {
    const parsed = parseMultiaddr(address);
    if (parsed !== null) this.#gate.trust(parsed);
  }

  /**
   * Connects to a peer: by one multiaddr, by several of the same peer in the order to try, or by fingerprint alone when
   * addresses of it are known. Bounded at 3 s.
   *
   * @returns the fingerprint of who answered.
   * @throws MeshError `peer_unreachable`.
   */
  async dial(target: string | readonly string[], signal?: AbortSignal, options: DialOptions = {}): Promise<string> {
    using bound = deadline(
      this.#clock,
      DIAL_TIMEOUT_MS,
      () => new MeshError('peer_unreachable', `Dialling ${String(target)} took longer than ${DIAL_TIMEOUT_MS} ms.`),
      signal,
    );
    try {
      const { remotePeer } = await this.#connect(target, bound.signal, options);
      return remotePeer.toString();
    } catch (error) {
      throw unreachable(error, `Cannot connect to ${String(target)}`);
    }
  }

  /**
   * Opens a stream on the connection to the peer that gave the last sign of life, on another one when that takes long,
   * and dials first when there is none or all are silent. Bounded at 1.5 s. That it opened does not mean that the peer
   * accepted it: only its first frame does.
   *
   * @throws MeshError `peer_unreachable`.
   */
  async openStream(fingerprint: string, protocol: string, signal?: AbortSignal): Promise<Stream> {
    using bound = deadline(
      this.#clock,
      OPEN_TIMEOUT_MS,
      () =>
        new MeshError('peer_unreachable', `Opening a stream to ${fingerprint} took longer than ${OPEN_TIMEOUT_MS} ms.`),
      signal,
    );
    try {
      const open = (connection: Connection, ended: AbortSignal) => this.#ways.open(connection, protocol, ended);
      const best = this.#waysTo(fingerprint).slice(0, 2);
      const known = best.map((way) => (ended: AbortSignal) => open(way, ended));
      const anew = async (ended: AbortSignal): Promise<Stream> => {
        const ways = this.#waysTo(fingerprint);
        if (this.#ways.silentMs(ways) < SILENT_MS) throw new Error('it opens no stream');
        return open(await this.#connect(fingerprint, ended, { force: ways.length > 0 }), ended);
      };
      return await firstToOpen([...known, anew], { clock: this.#clock, signal: bound.signal });
    } catch (error) {
      throw unreachable(error, `Cannot open a stream to ${fingerprint}`);
    }
  }

  /** Resets all connections of a peer. */
  disconnect(fingerprint: string): void {
    for (const connection of this.#connectionsOf(fingerprint)) connection.abort(new Error('disconnected by this node'));
  }

  /** Calls `listener` at every change of connections; returns the unsubscribe. */
  onConnection(listener: (change: ConnectionChange) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Calls `listener` at every mDNS answer; returns the unsubscribe. */
  onHeard(listener: (heard: HeardPeer) => void): () => void {
    this.#heardListeners.add(listener);
    return () => this.#heardListeners.delete(listener);
  }

  /** Joins the multicast group anew; does nothing without mDNS. */
  async restartMulticast(): Promise<void> {
    await this.#stack?.multicast?.restart();
  }

  #libp2p(): Stack['libp2p'] {
    if (this.#stack === null) throw new MeshError('peer_unreachable', 'The swarm is not running.');
    return this.#stack.libp2p;
  }

  #connectionsOf(fingerprint: string): Connection[] {
    return this.#stack?.libp2p.getConnections(peerIdFromString(fingerprint)) ?? [];
  }

  /** Open connections, the one that gave the last sign of life first. */
  #waysTo(fingerprint: string): Connection[] {
    return this.#ways.ordered(this.#connectionsOf(fingerprint));
  }

  #connect(to: string | readonly string[], signal: AbortSignal, { force = false }: DialOptions): Promise<Connection> {
    return abortable(this.#libp2p().dial(dialTarget(to), { signal, force }), signal);
  }

  async #handle({ libp2p }: Stack): Promise<void> {
    const limits = { maxInboundStreams: MAX_STREAMS, maxOutboundStreams: MAX_STREAMS };
    for (const [protocol, handler] of this.#options.handlers) {
      const serve = async (stream: Stream, connection: Connection): Promise<void> => {
        const from = connection.remotePeer.toString();
        this.#ways.carries(stream, connection);
        try {
          await handler(stream, from);
        } catch (error) {
          this.#logger.warn({ error, protocol, from }, 'a stream handler failed');
          stream.abort(error instanceof Error ? error : new Error(String(error)));
        }
      };
      await libp2p.handle(protocol, serve, limits);
    }
  }

  #listen({ libp2p, multicast }: Stack): void {
    libp2p.addEventListener('connection:open', ({ detail }) => {
      this.#ways.opened(detail);
      this.#emit({ kind: 'opened', fingerprint: detail.remotePeer.toString() });
    });
    libp2p.addEventListener('peer:disconnect', ({ detail }) => {
      this.#listenAddresses.delete(detail.toString());
      this.#emit({ kind: 'closed', fingerprint: detail.toString() });
    });
    libp2p.addEventListener('peer:identify', ({ detail }) => {
      const outward = detail.listenAddrs.toSorted((a, b) => Number(leadsHere(a)) - Number(leadsHere(b)));
      const addresses = outward.map((address) => address.toString());
      const fingerprint = detail.peerId.toString();
      this.#listenAddresses.set(fingerprint, addresses);
      this.#emit({ kind: 'identified', fingerprint, addresses });
    });
    multicast?.onHeard((heard) => {
      if (heard.fingerprint === this.fingerprint) return;
      for (const listener of this.#heardListeners) listener(heard);
    });
  }

  #emit(change: ConnectionChange): void {
    for (const listener of this.#listeners) listener(change);
  }
}
