/** Streams kept open between requests: one costs both sides as much as a short answer's first token to open. */
import { FrameChannel } from '../../protocols/frame-channel.ts';
import type { StreamLease } from '../../protocols/inference/client.ts';
import { INFERENCE_PROTOCOL } from '../../protocols/protocol-id.ts';
import type { Clock } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';
import type { Startable } from '../common/lifecycle.ts';
import type { Logger } from '../common/logger.ts';
import type { Swarm } from './swarm.ts';

export interface PeerStreamsComponents {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly swarm: Pick<Swarm, 'openStream' | 'onConnection'>;
}

export interface PeerStreamsOptions {
  /** Idle streams a peer. Default 8. */
  readonly idleLimit?: number;
  /** Streams idle for longer are closed; the serving side gives up on them at 60 s. Default 50 s. */
  readonly maxIdleMs?: number;
}

interface IdleStream {
  readonly channel: FrameChannel;
  /** When its last request was over, or when it was opened. */
  readonly since: number;
  readonly unwatch: () => void;
}

interface Pool {
  /** Newest last. */
  readonly idle: IdleStream[];
  readonly leased: Set<FrameChannel>;
  usedAt: number;
  opening: boolean;
}

const SWEEP_MS = 5000;
/** How long a peer may take to end its side of a stream that is not kept. */
const CLOSE_MS = 1000;

/** The pool of inference streams to peers that were asked lately. */
export class PeerStreams implements Startable {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #swarm: Pick<Swarm, 'openStream' | 'onConnection'>;
  readonly #idleLimit: number;
  readonly #maxIdleMs: number;
  readonly #pools = new Map<string, Pool>();
  readonly #unsubscribe: (() => void)[] = [];
  readonly #stopped = new AbortController();

  constructor(components: PeerStreamsComponents, options: PeerStreamsOptions = {}) {
    this.#clock = components.clock;
    this.#logger = components.logger;
    this.#swarm = components.swarm;
    this.#idleLimit = options.idleLimit ?? 8;
    this.#maxIdleMs = options.maxIdleMs ?? 50_000;
  }

  start(): void {
    if (this.#unsubscribe.length > 0) return;
    this.#unsubscribe.push(
      this.#clock.every(SWEEP_MS, () => this.#sweep()),
      this.#swarm.onConnection(({ kind, fingerprint }) => {
        // Idle streams of an old connection would be worse than none.
        if (kind !== 'identified') this.drop(fingerprint);
      }),
    );
  }

  stop(): void {
    this.#stopped.abort(new MeshError('draining', 'This node is stopping.'));
    for (const unsubscribe of this.#unsubscribe.splice(0)) unsubscribe();
    for (const fingerprint of [...this.#pools.keys()]) this.drop(fingerprint);
  }

  /** Idle streams to a peer now. */
  idle(fingerprint: string): number {
    return this.#pools.get(fingerprint)?.idle.length ?? 0;
  }

  /**
   * A stream without a request: the one used last, else a new one; dials when addresses are known. The caller owns it
   * until it hands it back.
   *
   * @throws MeshError `peer_unreachable`, or the signal's reason.
   */
  async acquire(fingerprint: string, signal: AbortSignal): Promise<StreamLease> {
    const pool = this.#pool(fingerprint);
    pool.usedAt = this.#clock.now();
    const warm = this.#takeIdle(pool);
    if (warm !== null) return this.#lease(fingerprint, pool, warm, false);
    const channel = await this.#open(fingerprint, signal);
    // A dial on the way to the stream makes a connection, and a new connection makes a new pool.
    return this.#lease(fingerprint, this.#pool(fingerprint), channel, true);
  }

  /** Resets the idle streams to a peer; those in use are not kept afterwards. */
  drop(fingerprint: string): void {
    const pool = this.#pools.get(fingerprint);
    this.#pools.delete(fingerprint);
    for (const idle of pool?.idle.splice(0) ?? []) discard(idle, 'no longer needed');
  }

  #pool(fingerprint: string): Pool {
    let pool = this.#pools.get(fingerprint);
    if (pool === undefined) {
      pool = { idle: [], leased: new Set(), usedAt: this.#clock.now(), opening: false };
      this.#pools.set(fingerprint, pool);
    }
    return pool;
  }

  #lease(fingerprint: string, pool: Pool, channel: FrameChannel, fresh: boolean): StreamLease {
    pool.leased.add(channel);
    const release = (): void => {
      pool.leased.delete(channel);
      this.#keep(fingerprint, pool, channel);
    };
    return { stream: channel.stream, fresh, channel, release };
  }

  async #open(fingerprint: string, signal: AbortSignal): Promise<FrameChannel> {
    const stream = await this.#swarm.openStream(fingerprint, INFERENCE_PROTOCOL, signal);
    const channel = new FrameChannel(stream, this.#clock);
    stream.addEventListener('close', () => this.#onClose(fingerprint, channel), { once: true });
    return channel;
  }

  /** The newest that still lives. */
  #takeIdle(pool: Pool): FrameChannel | null {
    for (let last = pool.idle.pop(); last !== undefined; last = pool.idle.pop()) {
      if (this.#isUsable(last)) {
        last.unwatch();
        return last.channel;
      }
      discard(last, 'idle for too long');
    }
    return null;
  }

  #isUsable({ channel, since }: IdleStream): boolean {
    return channel.isIdle && this.#clock.now() - since < this.#maxIdleMs;
  }

  /** Never throws: a stream that cannot be kept is ended. */
  #keep(fingerprint: string, pool: Pool, channel: FrameChannel): void {
    const isCurrent = this.#pools.get(fingerprint) === pool && !this.#stopped.signal.aborted;
    if (!isCurrent || !channel.isIdle || pool.idle.length >= this.#idleLimit) {
      void channel.end(CLOSE_MS);
      return;
    }
    const unwatch = channel.reader.watch(() => this.#onSign(fingerprint, pool, channel));
    pool.idle.push({ channel, since: this.#clock.now(), unwatch });
  }

  /** The peer ended an idle stream, or said something that nobody asked for. */
  #onSign(fingerprint: string, pool: Pool, channel: FrameChannel): void {
    const idle = take(pool, channel);
    if (idle === null) return;
    if (!channel.reader.hasUnread) {
      idle.unwatch();
      void channel.end(CLOSE_MS);
      return;
    }
    this.#logger.debug({ peer: fingerprint }, 'a peer spoke on an idle stream');
    discard(idle, 'the peer spoke out of turn');
  }

  #onClose(fingerprint: string, channel: FrameChannel): void {
    const pool = this.#pools.get(fingerprint);
    if (pool === undefined) return;
    take(pool, channel)?.unwatch();
    // Only for one that was in use: a peer that ends every idle stream would be sent the next one for ever.
    const wasLeased = pool.leased.delete(channel);
    if (wasLeased && pool.idle.length === 0 && !pool.opening) void this.#openIdle(fingerprint, pool);
  }

  /** Never rejects: a stream that cannot be kept ready is opened when it is needed. */
  async #openIdle(fingerprint: string, pool: Pool): Promise<void> {
    pool.opening = true;
    try {
      this.#keep(fingerprint, pool, await this.#open(fingerprint, this.#stopped.signal));
    } catch (error) {
      this.#logger.debug({ peer: fingerprint, error }, 'no stream could be kept ready');
    } finally {
      pool.opening = false;
    }
  }

  #sweep(): void {
    const now = this.#clock.now();
    for (const [fingerprint, pool] of this.#pools) {
      const old = pool.idle.filter((idle) => !this.#isUsable(idle));
      for (const { channel } of old) {
        const idle = take(pool, channel);
        if (idle !== null) discard(idle, 'idle for too long');
      }
      if (pool.idle.length === 0 && now - pool.usedAt >= this.#maxIdleMs) this.#pools.delete(fingerprint);
    }
  }
}

function take(pool: Pool, channel: FrameChannel): IdleStream | null {
  const index = pool.idle.findIndex((idle) => idle.channel === channel);
  return index < 0 ? null : (pool.idle.splice(index, 1)[0] ?? null);
}

function discard({ channel, unwatch }: IdleStream, reason: string): void {
  unwatch();
  channel.stream.abort(new Error(reason));
}
