/** Another node as a backend: one request at a time on a substream, given up at once when the peer is declared dead. */

import { type InferenceClientLimits, infer } from '../../protocols/inference/client.ts';
import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import type { Clock } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';
import type { PeerStreams } from '../network/peer-streams.ts';
import type { PeerTable } from '../network/peer-table.ts';
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
      if (change.kind !== 'down' || change.peer.fingerprint !== this.id) return;
      // A peer that said goodbye finishes what it runs.
      if (change.reason === 'goodbye') return;
      gone.abort(new MeshError('peer_unreachable', `Peer ${change.peer.name} stopped answering`));
    });
    try {
      yield* infer(request, {
        signal: AbortSignal.any([signal, gone.signal]),
        clock,
        acquire: (acquireSignal) => streams.acquire(this.id, acquireSignal),
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
