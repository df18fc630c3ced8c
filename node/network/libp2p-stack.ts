/** The whole configuration of libp2p, with the reason for each bound. Nothing else knows which modules we use. */
import { noise } from '@chainsafe/libp2p-noise';
import { yamux } from '@chainsafe/libp2p-yamux';
import { identify } from '@libp2p/identify';
import type { AddressSorter, PrivateKey } from '@libp2p/interface';
import { type KadDHTComponents, kadDHT, removePublicAddressesMapper, type SingleKadDHT } from '@libp2p/kad-dht';
import type { MulticastDNSComponents } from '@libp2p/mdns';
import { ping } from '@libp2p/ping';
import { tcp } from '@libp2p/tcp';
import { createLibp2p, type Libp2p } from 'libp2p';
import { DHT_PROTOCOL } from '../../protocols/protocol-id.ts';
import { leadsHere } from './address.ts';
import { BoundedDatastore } from './bounded-datastore.ts';
import type { DialGate } from './dial-gate.ts';
import { Multicast } from './multicast.ts';

export interface StackOptions {
  readonly privateKey: PrivateKey;
  /** Own fingerprint. */
  readonly fingerprint: string;
  /** Listen addresses whose ports are free. */
  readonly listen: readonly string[];
  readonly mdns: boolean;
  readonly dht: boolean;
}

/** libp2p and those of its parts that we talk to. */
export interface Stack {
  readonly libp2p: Libp2p;
  readonly multicast: Multicast | null;
  /** Peers in the DHT's routing table; 0 without DHT. */
  routingTableSize(): number;
  readonly datastore: BoundedDatastore;
}

/** How long a dial may take over all addresses of a peer, and for one of them. */
const DIAL_TIMEOUT_MS = 3000;
const ADDRESS_DIAL_TIMEOUT_MS = 1500;
const MIB = 1024 * 1024;

/** Builds a stopped libp2p: TCP, noise, yamux, identify, ping, and mDNS and kad-dht when wanted. */
export async function createStack(options: StackOptions, gate: DialGate): Promise<Stack> {
  const datastore = new BoundedDatastore(options.fingerprint);
  let multicast: Multicast | null = null;
  let dht: SingleKadDHT | null = null;
  const services = {
    identify: identify(),
    // The connection monitor pings through this protocol, and a ping that still waits must not refuse the next one.
    ping: ping({ maxInboundStreams: 32, maxOutboundStreams: 32 }),
    ...(options.dht && {
      dht: (components: KadDHTComponents) => {
        dht = lanDht(components) as SingleKadDHT;
        return dht;
      },
    }),
    ...(options.mdns && {
      multicast: (components: MulticastDNSComponents) => {
        multicast = new Multicast(components, { intervalMs: 2000 });
        return multicast;
      },
    }),
  };
  const libp2p = await createLibp2p({
    start: false,
    privateKey: options.privateKey,
    addresses: { listen: [...options.listen] },
    transports: [tcp({ backlog: 256 })],
    connectionEncrypters: [noise()],
    streamMuxers: [
      yamux({
        // Streams that a peer opens before our side of the upgrade is done; above the default of 10 they would cost the
        // connection, and a restarted node's first requests come in a burst.
        maxEarlyStreams: 256,
        // The window must stay below the read buffer, or a paused reader is killed; an unbounded write buffer (the
        // default) lets a peer that never reads fill our memory.
        streamOptions: { maxStreamWindowSize: 4 * MIB, maxReadBufferLength: 16 * MIB, maxWriteBufferLength: 4 * MIB },
      }),
    ],
    datastore,
    connectionGater: gate,
    connectionManager: {
      maxConnections: 300,
      // The default of 5/s refuses honest neighbours that start together, or that share one address.
      inboundConnectionThreshold: 100,
      maxIncomingPendingConnections: 100,
      inboundUpgradeTimeout: 5000,
      inboundStreamProtocolNegotiationTimeout: 5000,
      outboundStreamProtocolNegotiationTimeout: 3000,
      dialTimeout: DIAL_TIMEOUT_MS,
      addressDialTimeout: ADDRESS_DIAL_TIMEOUT_MS,
      // Otherwise addresses stay in the order in which we want them dialled; the default would prefer public ones.
      addressSorter: loopbackLast,
      reconnectRetries: 0,
    },
    // Closes what is long dead. Heartbeats notice a lost peer in two seconds; a fast monitor would kill healthy
    // connections on a lossy link, and answers with them.
    connectionMonitor: { pingInterval: 5000, pingTimeout: { minTimeout: 10_000, maxTimeout: 20_000 } },
    // Provider records point into the peer store, so entries must outlive them.
    peerStore: { maxAddressAge: 6 * 3_600_000, maxPeerAge: 12 * 3_600_000 },
    services,
  });
  return { libp2p, multicast, datastore, routingTableSize: () => dht?.routingTable.size ?? 0 };
}

const loopbackLast: AddressSorter = (a, b) => {
  const [first, second] = [leadsHere(a.multiaddr), leadsHere(b.multiaddr)];
  if (first === second) return 0;
  return first ? 1 : -1;
};

const lanDht = kadDHT({
  protocol: DHT_PROTOCOL,
  // Left open, a node without public address would only ask and never serve.
  clientMode: false,
  // Keeps private and loopback addresses; the default would drop just those.
  peerInfoMapper: removePublicAddressesMapper,
  allowQueryWithZeroPeers: true,
  // Own records are repeated every 15 minutes and live for 45, not 48 hours: who has gone is soon forgotten.
  reprovide: { validity: 45 * 60_000, threshold: 30 * 60_000, interval: 60_000 },
});
