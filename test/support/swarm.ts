/** Real nodes of the network floor, several in one process, on loopback and without multicast. */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { generateKeyPair } from '@libp2p/crypto/keys';
import type { Ed25519PrivateKey } from '@libp2p/interface';
import { systemClock } from '../../node/common/clock.ts';
import { type Logger, silentLogger } from '../../node/common/logger.ts';
import { CatalogExchange } from '../../node/network/catalog-exchange.ts';
import { Discovery } from '../../node/network/discovery.ts';
import { ModelIndex } from '../../node/network/model-index.ts';
import { PeerStreams } from '../../node/network/peer-streams.ts';
import { PeerTable, type PeerView } from '../../node/network/peer-table.ts';
import { ProviderRecords } from '../../node/network/provider-records.ts';
import { type StreamHandler, Swarm } from '../../node/network/swarm.ts';
import { KnownPeers } from '../../node/storage/known-peers.ts';
import type { CatalogEntry } from '../../protocols/catalog/catalog.ts';
import { CATALOG_PROTOCOL } from '../../protocols/protocol-id.ts';

export interface TestNodeOptions {
  readonly name?: string;
  readonly models?: readonly string[];
  /** `--peer` addresses. */
  readonly peers?: readonly string[];
  readonly dht?: boolean;
  readonly targetPeers?: number;
  readonly mayDial?: (fingerprint: string) => boolean;
  readonly privateKey?: Ed25519PrivateKey;
  readonly epoch?: number;
  readonly listen?: readonly string[];
  readonly handlers?: ReadonlyMap<string, StreamHandler>;
  /** Default: none. */
  readonly logger?: Logger;
}

export interface TestNode {
  readonly swarm: Swarm;
  readonly table: PeerTable;
  readonly index: ModelIndex;
  readonly exchange: CatalogExchange;
  readonly discovery: Discovery;
  readonly streams: PeerStreams;
  readonly records: ProviderRecords;
  readonly privateKey: Ed25519PrivateKey;
  readonly fingerprint: string;
  /** First multiaddr, with fingerprint. */
  readonly address: string;
  /** Replaces the catalog and tells everybody. */
  serve(models: readonly string[]): void;
  stop(): Promise<void>;
  /** Ends without a goodbye. */
  kill(): Promise<void>;
}

export function catalogEntry(id: string, overrides: Partial<CatalogEntry> = {}): CatalogEntry {
  return {
    id,
    digest: null,
    quantization: 'F16',
    contextLength: 512,
    sizeBytes: 1000,
    state: 'resident',
    slots: 4,
    tokensPerSecond: null,
    ...overrides,
  };
}

export async function startTestNode(options: TestNodeOptions = {}): Promise<TestNode> {
  const privateKey = options.privateKey ?? (await generateKeyPair('Ed25519'));
  let models = options.models ?? [];
  const clock = systemClock;
  const logger = options.logger ?? silentLogger;
  const table = new PeerTable();
  const index = new ModelIndex({ table });
  const swarm = new Swarm(
    { clock, logger },
    {
      privateKey,
      handlers: new Map([
        [CATALOG_PROTOCOL, (stream, from) => exchange.serve(stream, from)] as const,
        ...(options.handlers ?? []),
      ]),
      listen: options.listen ?? ['/ip4/127.0.0.1/tcp/0'],
      mdns: false,
      dht: options.dht ?? false,
      ...(options.mayDial !== undefined && { mayDial: options.mayDial }),
    },
  );
  const self = {
    hello: () => ({
      version: '0.1.0',
      name: options.name ?? 'node',
      epoch: options.epoch ?? 1_000_000,
      engineBuild: 'test',
    }),
    entries: () => models.map((id) => catalogEntry(id)),
    load: () => ({ inFlight: 0, queued: 0, engineAgeMs: 0, draining: false }),
  };
  const exchange: CatalogExchange = new CatalogExchange(
    { clock, logger, swarm, table, self },
    { onHints: (addresses) => discovery.hints(addresses) },
  );
  const knownPeers = new KnownPeers({ clock, logger }, { dataDir: null });
  const discovery: Discovery = new Discovery(
    { clock, logger, swarm, table, knownPeers, isSilent: (fingerprint) => exchange.isSilent(fingerprint) },
    {
      peers: options.peers ?? [],
      ...(options.targetPeers !== undefined && { targetPeers: options.targetPeers }),
    },
  );
  const streams = new PeerStreams({ clock, logger, swarm });
  const records = new ProviderRecords({ clock, logger, swarm, table, models: () => models });
  await swarm.start();
  exchange.start();
  discovery.start();
  streams.start();
  records.start();
  const end = async (goodbye: boolean): Promise<void> => {
    const signal = AbortSignal.timeout(5000);
    await records.stop();
    streams.stop();
    discovery.stop();
    if (goodbye) await exchange.stop(signal);
    await swarm.stop(signal);
    if (!goodbye) await exchange.stop(signal);
  };
  return {
    swarm,
    table,
    index,
    exchange,
    discovery,
    streams,
    records,
    privateKey,
    fingerprint: swarm.fingerprint,
    address: swarm.multiaddrs()[0] ?? '',
    serve(next) {
      models = next;
      exchange.changed();
      records.changed();
    },
    stop: () => end(true),
    kill: () => end(false),
  };
}

/** Resolves when the condition on a peer of `node`'s table holds; checked now and at each change. */
export function peerBecomes(
  node: Pick<TestNode, 'table'>,
  fingerprint: string,
  condition: (peer: PeerView) => boolean,
  boundMs: number = 15_000,
): Promise<PeerView> {
  return new Promise((resolve, reject) => {
    const check = (): void => {
      const peer = node.table.get(fingerprint);
      if (peer === null || !condition(peer)) return;
      unsubscribe();
      cancel();
      resolve(peer);
    };
    const unsubscribe = node.table.onChange(check);
    const cancel = systemClock.after(boundMs, () => {
      unsubscribe();
      reject(new Error(`within ${boundMs} ms it only became ${JSON.stringify(node.table.get(fingerprint))}`));
    });
    check();
  });
}

/** Resolves when `node` lists exactly these models of the peer. */
export function lists(
  node: Pick<TestNode, 'table'>,
  fingerprint: string,
  models: readonly string[],
): Promise<PeerView> {
  const wanted = [...models].sort().join('\n');
  return peerBecomes(
    node,
    fingerprint,
    (peer) =>
      peer.status === 'online' &&
      peer.models
        .map(({ id }) => id)
        .sort()
        .join('\n') === wanted,
  );
}

/** A TCP link to a node that can be frozen: connections stay open and nothing passes, as when a process is stopped. */
export interface FreezableLink {
  /** Multiaddr to dial instead of the node's own. */
  readonly address: string;
  freeze(): void;
  thaw(): void;
  close(): void;
}

export async function freezableLink(node: Pick<TestNode, 'swarm' | 'fingerprint'>): Promise<FreezableLink> {
  const sockets = new Set<Socket>();
  const keep = (socket: Socket): void => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  };
  const server = createServer((near) => {
    const far = connect(node.swarm.listenPort ?? 0, '127.0.0.1');
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      keep(from);
      from.on('data', (data) => to.write(data));
      from.on('end', () => to.end());
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const bound = server.address();
  const port = typeof bound === 'object' && bound !== null ? bound.port : 0;
  return {
    address: `/ip4/127.0.0.1/tcp/${port}/p2p/${node.fingerprint}`,
    freeze: () => sockets.forEach((socket) => void socket.pause()),
    thaw: () => sockets.forEach((socket) => void socket.resume()),
    close: () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}
