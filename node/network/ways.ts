/** Which of several connections to one peer works. */
import type { Connection, Stream } from '@libp2p/interface';
import type { CancelTimer, Clock } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';

/** Per protocol and connection, in each direction: libp2p's defaults (32 in, 64 out) are below a busy model. */
export const MAX_STREAMS = 256;
/** A connection that is younger may be about to be used. */
const SPARE_MS = 5000;
const SWEEP_MS = 5000;

/**
 * Two nodes that dial each other have two connections, and after a cut there are more. TCP waits twice as long after each
 * loss, so one of them may be back while another says nothing for half a minute: what came last shows which.
 */
export class Ways {
  readonly #clock: Clock;
  /** Last sign of life; the handshake is the first. */
  readonly #heardAt = new WeakMap<Connection, number>();
  readonly #carrier = new WeakMap<Stream, Connection>();

  constructor(components: { readonly clock: Clock }) {
    this.#clock = components.clock;
  }

  /** The connection is new. */
  opened(connection: Connection): void {
    this.#heardAt.set(connection, this.#clock.now());
  }

  /** @throws what libp2p does, or MeshError `peer_unreachable`. */
  async open(connection: Connection, protocol: string, signal: AbortSignal): Promise<Stream> {
    const stream = await connection.newStream(protocol, { signal, maxOutboundStreams: MAX_STREAMS });
    if (stream.status !== 'open') {
      throw new MeshError('peer_unreachable', `${connection.remotePeer} refused a ${protocol} stream.`);
    }
    return stream;
  }

  /** The stream came in on the connection. */
  carries(stream: Stream, connection: Connection): void {
    this.#carrier.set(stream, connection);
  }

  /** Something came on the stream. */
  heard(stream: Stream): void {
    const connection = this.#carrier.get(stream);
    if (connection !== undefined) this.opened(connection);
  }

  /** Those that are open, the one heard last first; of those heard at the same time, the newest. */
  ordered(connections: readonly Connection[]): Connection[] {
    return connections
      .filter(({ status }) => status === 'open')
      .toSorted((a, b) => this.#at(b) - this.#at(a) || b.timeline.open - a.timeline.open);
  }

  /**
   * Closes from time to time those that nobody uses beside the first of their peer, which would pile up, one or two at
   * each cut; returns how to stop.
   */
  sweep(all: () => readonly Connection[]): CancelTimer {
    return this.#clock.every(SWEEP_MS, () => {
      const ofPeers = Map.groupBy(all(), ({ remotePeer }) => remotePeer.toString());
      for (const connections of ofPeers.values())
        for (const connection of this.#spare(connections))
          void connection.close().catch((error: Error) => connection.abort(error));
    });
  }

  /** Milliseconds since the last sign of life on any of them; Infinity without any. */
  silentMs(connections: readonly Connection[]): number {
    return this.#clock.now() - Math.max(...connections.map((connection) => this.#at(connection)));
  }

  #spare(connections: readonly Connection[]): Connection[] {
    const since = this.#clock.now() - SPARE_MS;
    const others = this.ordered(connections).slice(1);
    return others.filter((connection) => connection.streams.length === 0 && this.#at(connection) <= since);
  }

  #at(connection: Connection): number {
    return this.#heardAt.get(connection) ?? Number.NEGATIVE_INFINITY;
  }
}
