/** Streams that are open before they are needed: a request on one saves a round trip and the cost of negotiating. */
import type { Stream } from '@libp2p/interface';
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
  readonly swarm: Swarm;
}

export interface PeerStreamsOptions {
  /** Idle streams a peer. Default 4. */
  readonly idleLimit?: number;
  /** Idle streams older than this are closed; the serving side gives up on them at 60 s. Default 50 s. */
  readonly maxIdleMs?: number;
}

interface IdleStream {
  readonly stream: Stream;
  readonly openedAt: number;
}

interface Pool {
  readonly idle: IdleStream[];
  /** When streams were wanted lately: as many are kept ready, within the limit. */
  usedAt: number[];
  opening: number;
}

const SWEEP_MS = 5000;

/** The warm pool for inference streams to peers that were asked lately. */
export class PeerStreams implements Startable {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #swarm: Swarm;
  readonly #idleLimit: number;
  readonly #maxIdleMs: number;
  readonly #pools = new Map<string, Pool>();
  readonly #unsubscribe: (() => void)[] = [];
  #stopped = new AbortController();

  constructor(components: PeerStreamsComponents, options: PeerStreamsOptions = {}) {
    this.#clock = components.clock;
    this.#logger = components.logger;
    this.#swarm = components.swarm;
    this.#idleLimit = options.idleLimit ?? 4;
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
   * A stream on which nothing was said yet: a warm one, else a new one; dials when addresses are known. The caller owns it.
   *
   * @throws MeshError `peer_unreachable`, or the signal's reason.
   */
  async acquire(fingerprint: string, signal: AbortSignal): Promise<StreamLease> {
    const pool = this.#pool(fingerprint);
    pool.usedAt.push(this.#clock.now());
    const warm = this.#takeIdle(pool);
    const stream = warm ?? (await this.#swarm.openStream(fingerprint, INFERENCE_PROTOCOL, signal));
    // Opening costs both sides as much as a short answer's first token: it waits until this stream has done its work.
    stream.addEventListener('close', () => this.#refill(fingerprint, this.#pool(fingerprint)), { once: true });
    return { stream, fresh: warm === null };
  }

  /** Resets the idle streams to a peer. */
  drop(fingerprint: string): void {
    const pool = this.#pools.get(fingerprint);
    this.#pools.delete(fingerprint);
    for (const { stream } of pool?.idle ?? []) stream.abort(new Error('no longer needed'));
  }

  #pool(fingerprint: string): Pool {
    let pool = this.#pools.get(fingerprint);
    if (pool === undefined) {
      pool = { idle: [], usedAt: [], opening: 0 };
      this.#pools.set(fingerprint, pool);
    }
    return pool;
  }

  /** The newest that still lives. */
  #takeIdle(pool: Pool): Stream | null {
    for (let last = pool.idle.pop(); last !== undefined; last = pool.idle.pop()) {
      if (this.#isUsable(last)) return last.stream;
      last.stream.abort(new Error('idle for too long'));
    }
    return null;
  }

  #isUsable({ stream, openedAt }: IdleStream): boolean {
    return stream.status === 'open' && this.#clock.now() - openedAt < this.#maxIdleMs;
  }

  #refill(fingerprint: string, pool: Pool): void {
    const now = this.#clock.now();
    pool.usedAt = pool.usedAt.filter((at) => now - at < this.#maxIdleMs).slice(-this.#idleLimit);
    const missing = pool.usedAt.length - pool.idle.length - pool.opening;
    for (let i = 0; i < missing; i += 1) {
      pool.opening += 1;
      void this.#openIdle(fingerprint, pool).finally(() => {
        pool.opening -= 1;
      });
    }
  }

  /** Never rejects: a stream that cannot be kept ready is opened when it is needed. */
  async #openIdle(fingerprint: string, pool: Pool): Promise<void> {
    try {
      const stream = await this.#swarm.openStream(fingerprint, INFERENCE_PROTOCOL, this.#stopped.signal);
      if (this.#pools.get(fingerprint) !== pool) {
        stream.abort(new Error('no longer needed'));
        return;
      }
      const idle = { stream, openedAt: this.#clock.now() };
      pool.idle.push(idle);
      stream.addEventListener('close', () => {
        const index = pool.idle.indexOf(idle);
        if (index >= 0) pool.idle.splice(index, 1);
      });
    } catch (error) {
      this.#logger.debug({ peer: fingerprint, error }, 'no stream could be kept ready');
    }
  }

  #sweep(): void {
    const now = this.#clock.now();
    for (const [fingerprint, pool] of this.#pools) {
      const old = pool.idle.filter((idle) => !this.#isUsable(idle));
      for (const { stream } of old) stream.abort(new Error('idle for too long'));
      const used = pool.usedAt.some((at) => now - at < this.#maxIdleMs);
      if (used) this.#refill(fingerprint, pool);
      else if (pool.idle.length === 0) this.#pools.delete(fingerprint);
    }
  }
}
