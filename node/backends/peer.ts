/** Another node as a backend: one request at a time on a substream, given up at once when the peer is declared dead. */

import { type InferenceClientLimits, infer } from '../../protocols/inference/client.ts';
import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import type { Clock } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';
import type { PeerStreams } from '../network/peer-streams.ts';
import type { PeerChange, PeerTable } from '../network/peer-table.ts';
import type { Backend } from './backend.ts';

export interface PeerBackendComponents {
  readonly streams: PeerStreams;
  readonly peers: PeerTable;
  readonly clock: Clock;
  /** The key that this peer gave us, without `Bearer`; null: none. Asked at every request. Default: none. */
  readonly authorization?: (fingerprint: string) => string | null;
  /** The peer broke the protocol. */
  readonly onViolation?: (fingerprint: string) => void;
}

/**
 * Age of the last step of a peer's engine past which it hangs, whatever its own node thinks of it, ms. The longest step that
 * a node grants its engine is shorter.
 */
const WEDGED_MS = 240_000;

export class PeerBackend implements Backend {
  readonly kind = 'peer';
  /** The peer's fingerprint. */
  readonly id: string;
  readonly #components: PeerBackendComponents;
  readonly #limits: Partial<InferenceClientLimits>;

  constructor(components: PeerBackendComponents, fingerprint: string, limits: Partial<InferenceClientLimits> = {}) {
    this.#components = components;
    this.id = fingerprint;
    this.#limits = limits;
  }

  async *infer(request: InferenceRequest, { signal }: { signal: AbortSignal }): AsyncGenerator<InferenceEvent> {
    const { streams, peers, clock } = this.#components;
    const key = this.#components.authorization?.(this.id) ?? null;
    const gone = new AbortController();
    const unsubscribe = peers.onChange((change) => {
      if (change.peer.fingerprint !== this.id) return;
      const end = endOf(change);
      if (end !== null) gone.abort(end);
    });
    let acquired = 0;
    const acquire = (acquireSignal: AbortSignal): ReturnType<PeerStreams['acquire']> => {
      // A kept stream turned out to be dead. The others of its connection are too, and each would take as long to find out.
      if (acquired++ > 0) streams.drop(this.id);
      return streams.acquire(this.id, acquireSignal);
    };
    try {
      yield* infer(request, {
        signal: AbortSignal.any([signal, gone.signal]),
        clock,
        acquire,
        limits: this.#limits,
        ...(key === null ? {} : { authorization: `Bearer ${key}` }),
      });
    } catch (error) {
      if (error instanceof MeshError && error.code === 'protocol_violation') this.#components.onViolation?.(this.id);
      throw error;
    } finally {
      unsubscribe();
    }
  }
}

/** Why answers of the peer are given up after this change; null when they go on. A slow peer is not a dead one. */
function endOf({ kind, peer: { name, load }, reason }: PeerChange): MeshError | null {
  if (kind === 'load' && load !== null && load.engineAgeMs >= WEDGED_MS) {
    return new MeshError('wedged', `The engine of peer ${name} does not move`);
  }
  // A peer that said goodbye finishes what it runs.
  if (kind !== 'down' || reason === 'goodbye') return null;
  return new MeshError('peer_unreachable', `Peer ${name} stopped answering`);
}
