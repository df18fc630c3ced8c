/** Requests that come from peers: served by this node's own engine only (hop limit 1), within limits for each peer. */

import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import type { LocalBackend } from '../backends/backend.ts';
import { MeshError } from '../common/errors.ts';
import type { Metrics } from '../common/metrics.ts';

export interface InboundComponents {
  readonly local: LocalBackend;
  readonly metrics: Metrics;
  readonly isDraining: () => boolean;
}

export interface InboundOptions {
  /** Requests of one peer at once, waiting ones included. Default 64. */
  readonly perPeer: number;
  /** Bytes of request bodies held for all peers together. Default 128 MiB. */
  readonly bodyBudgetBytes: number;
}

export const DEFAULT_INBOUND: InboundOptions = { perPeer: 64, bodyBudgetBytes: 128 * 2 ** 20 };

export class Inbound {
  readonly #components: InboundComponents;
  readonly #options: InboundOptions;
  readonly #running = new Map<string, number>();
  #bodyBytes = 0;
  #onIdle: () => void = () => {};

  constructor(components: InboundComponents, options: InboundOptions = DEFAULT_INBOUND) {
    this.#components = components;
    this.#options = options;
  }

  /** Room for a request body, to be released when the request is over; null when the budget is used up. */
  reserveBytes(bytes: number): (() => void) | null {
    if (this.#bodyBytes + bytes > this.#options.bodyBudgetBytes) return null;
    this.#bodyBytes += bytes;
    let released = false;
    return () => {
      if (!released) this.#bodyBytes -= bytes;
      released = true;
    };
  }

  /** Requests from peers that run or wait here now. */
  active(): number {
    let sum = 0;
    for (const count of this.#running.values()) sum += count;
    return sum;
  }

  /** Resolves when no request of a peer is left, or when the signal aborts. */
  whenIdle(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      if (this.#running.size === 0 || signal.aborted) resolve();
      this.#onIdle = resolve;
      signal.addEventListener('abort', () => resolve(), { once: true });
    });
  }

  /** Serves one request of a peer on the engine here. */
  async *serve(
    request: InferenceRequest,
    { from, signal }: { from: string; signal: AbortSignal },
  ): AsyncGenerator<InferenceEvent> {
    this.#admit(request, from);
    let outcome = 'client_closed';
    try {
      for await (const event of this.#components.local.infer(request, { signal })) {
        if (event.type === 'end') outcome = 'ok';
        yield event;
      }
    } catch (error) {
      outcome = error instanceof MeshError ? error.code : 'internal_error';
      throw error;
    } finally {
      this.#leave(from);
      this.#components.metrics.requests.inc({ origin: 'peer', served_by: 'engine', outcome });
    }
  }

  #admit(request: InferenceRequest, from: string): void {
    const { local, isDraining } = this.#components;
    if (isDraining()) throw new MeshError('draining', 'This node is shutting down', { retryAfterMs: 5000 });
    if (!local.catalog().some((entry) => entry.id === request.model)) {
      throw new MeshError('model_not_loaded', `Model '${request.model}' is not served by this node`, {
        param: 'model',
      });
    }
    const running = this.#running.get(from) ?? 0;
    if (running >= this.#options.perPeer) {
      throw new MeshError('overloaded', 'Too many requests of this peer at once', { retryAfterMs: 1000 });
    }
    this.#running.set(from, running + 1);
  }

  #leave(from: string): void {
    const running = (this.#running.get(from) ?? 1) - 1;
    if (running > 0) this.#running.set(from, running);
    else this.#running.delete(from);
    if (this.#running.size === 0) this.#onIdle();
  }
}
