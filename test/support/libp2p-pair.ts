/** Two real libp2p nodes on loopback (TCP, noise, yamux), connected, with the stream settings of the product. */
import { noise } from '@chainsafe/libp2p-noise';
import { yamux } from '@chainsafe/libp2p-yamux';
import type { Connection, Libp2p, Stream } from '@libp2p/interface';
import { tcp } from '@libp2p/tcp';
import { createLibp2p } from 'libp2p';

export type StreamHandler = (stream: Stream, from: string) => Promise<void>;

export interface Libp2pPair {
  readonly asking: Libp2p;
  readonly serving: Libp2p;
  /** From asking to serving. */
  readonly connection: Connection;
  /** A new stream from the asking node. */
  open(protocol: string, signal?: AbortSignal): Promise<Stream>;
  /** Streams of the protocol that are open now, counted on the side with more of them. */
  openStreams(protocol: string): number;
  stop(): Promise<void>;
}

const STREAM_LIMITS = { maxInboundStreams: 256, maxOutboundStreams: 256 };

/** The serving node handles the protocols given. */
export async function libp2pPair(handlers: Record<string, StreamHandler>): Promise<Libp2pPair> {
  const [asking, serving] = await Promise.all([createNode(), createNode()]);
  for (const [protocol, handler] of Object.entries(handlers)) {
    await serving.handle(
      protocol,
      (stream, connection) => handler(stream, connection.remotePeer.toString()),
      STREAM_LIMITS,
    );
  }
  // The dialler is done first; streams that come before the other side is done too are few, or break the connection.
  const ready = Promise.withResolvers<void>();
  serving.addEventListener('connection:open', () => ready.resolve(), { once: true });
  const connection = await asking.dial(serving.getMultiaddrs());
  await ready.promise;
  return {
    asking,
    serving,
    connection,
    open: (protocol, signal) =>
      connection.newStream(protocol, { maxOutboundStreams: 4096, ...(signal === undefined ? {} : { signal }) }),
    openStreams(protocol) {
      const count = (node: Libp2p): number =>
        node
          .getConnections()
          .reduce((sum, { streams }) => sum + streams.filter((s) => s.protocol === protocol).length, 0);
      return Math.max(count(asking), count(serving));
    },
    async stop() {
      await Promise.all([asking.stop(), serving.stop()]);
    },
  };
}

function createNode(): Promise<Libp2p> {
  const streamOptions = {
    maxStreamWindowSize: 4 * 1024 * 1024,
    maxReadBufferLength: 16 * 1024 * 1024,
    maxWriteBufferLength: 1024 * 1024,
  };
  return createLibp2p({
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux({ streamOptions, maxInboundStreams: 1024, maxOutboundStreams: 4096 })],
    connectionManager: { inboundConnectionThreshold: 1000 },
    connectionMonitor: { enabled: false },
  });
}
