/** Requests that come from peers: to this node's engine, or to what its owner shares (hop limit 1), by those who may, within limits. */
import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import type { InferenceContext } from '../../protocols/inference/server.ts';
import type { LocalBackend } from '../backends/backend.ts';
import { systemClock } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';
import type { Metrics } from '../common/metrics.ts';
import type { IssuedKeys, VerifiedKey } from '../storage/issued-keys.ts';
import { DEFAULT_PEER_QUOTA, PeerQuota, type QuotaLease, type QuotaLimits } from './peer-quota.ts';
import type { ServiceState } from './service-state.ts';
import type { SharedBackends } from './shared-backends.ts';

export interface InboundComponents {
  readonly local: LocalBackend;
  readonly metrics: Metrics;
  readonly state?: ServiceState;
  /** Who runs and who waits. Default: the engine itself. */
  readonly admission?: { forPeer(fingerprint: string): LocalBackend };
  /** Default: peers need no key. */
  readonly keys?: Pick<IssuedKeys, 'refresh' | 'required' | 'verify'>;
  readonly quota?: PeerQuota;
  /** Services beyond the mesh that peers may use. Default: none. */
  readonly shared?: Pick<SharedBackends, 'serves' | 'infer'>;
}

export interface InboundOptions {
  /** Requests of one peer at once, waiting ones included. Default 64. */
  readonly perPeer: number;
  /** Prompt and generated tokens of one peer; null: no limit. Default null. */
  readonly tokensPerMinute?: number | null;
  /** Bytes of request bodies held for all peers together. Default 128 MiB. */
  readonly bodyBudgetBytes: number;
}

export const DEFAULT_INBOUND: InboundOptions = { perPeer: 64, tokensPerMinute: null, bodyBudgetBytes: 128 * 2 ** 20 };

/** The scope that a key must have. */
const SCOPE = 'inference';
const HOW_TO_SET = 'on the asking node run "meshnode peers set NAME --key-stdin", NAME being this node';

export class Inbound {
  readonly #components: InboundComponents;
  readonly #options: InboundOptions;
  readonly #quota: PeerQuota;
  #active = 0;
  #bodyBytes = 0;
  readonly #onIdle = new Set<() => void>();

  constructor(components: InboundComponents, options: InboundOptions = DEFAULT_INBOUND) {
    this.#components = components;
    this.#options = options;
    this.#quota = components.quota ?? new PeerQuota({ clock: systemClock });
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
    return this.#active;
  }

  /** Resolves when no request of a peer is left, or when the signal aborts. */
  whenIdle(signal: AbortSignal): Promise<void> {
    if (this.#active === 0 || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        this.#onIdle.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      this.#onIdle.add(done);
      signal.addEventListener('abort', done, { once: true });
    });
  }

  /**
   * Serves one request of a peer on the engine here, or where it has not the model on a service that is shared.
   *
   * @throws MeshError `unauthorized`, `forbidden`, `draining`, `model_not_loaded`, `overloaded`, `rate_limited` before
   *   the first event, and whatever the engine or the service throws.
   */
  async *serve(
    request: InferenceRequest,
    context: Pick<InferenceContext, 'from' | 'signal'> & Partial<Pick<InferenceContext, 'authorization'>>,
  ): AsyncGenerator<InferenceEvent> {
    const { from, signal, authorization = null } = context;
    const { metrics } = this.#components;
    const leases: QuotaLease[] = [];
    const count = new TokenCount();
    let servedBy = 'engine';
    this.#active += 1;
    let outcome = 'client_closed';
    try {
      const key = await this.#authorize(authorization);
      const { backend, kind } = this.#backendFor(request, from);
      servedBy = kind;
      leases.push(...this.#book(from, key));
      for await (const event of backend.infer(request, { signal })) {
        if (event.type === 'end') outcome = 'ok';
        const tokens = count.of(event);
        if (tokens > 0) for (const lease of leases) lease.spend(tokens);
        yield event;
      }
    } catch (error) {
      outcome = error instanceof MeshError ? error.code : 'internal_error';
      throw error;
    } finally {
      for (const lease of leases) lease.leave();
      this.#active -= 1;
      if (this.#active === 0) for (const done of [...this.#onIdle]) done();
      metrics.requests.inc({ origin: 'peer', served_by: servedBy, outcome });
    }
  }

  /** Whose key it is; null where none is needed. */
  async #authorize(authorization: string | null): Promise<VerifiedKey | null> {
    const { keys } = this.#components;
    if (keys === undefined) return null;
    await keys.refresh();
    if (!keys.required()) return null;
    const shown = authorization === null ? '' : bareKey(authorization);
    if (shown === '') throw new MeshError('unauthorized', `This node demands a key: ${HOW_TO_SET}`);
    const key = keys.verify(shown);
    if (key === null) {
      throw new MeshError('unauthorized', `This node does not accept the key (any more): ${HOW_TO_SET}`);
    }
    if (!key.scopes.includes(SCOPE)) {
      throw new MeshError('forbidden', `The key "${key.name}" does not allow ${SCOPE} on this node`);
    }
    return key;
  }

  #backendFor(
    request: InferenceRequest,
    from: string,
  ): { readonly backend: Pick<LocalBackend, 'infer'>; readonly kind: 'engine' | 'http' } {
    const { local, admission, shared, state } = this.#components;
    const refusal = state?.refusal('peer') ?? null;
    if (refusal !== null) throw refusal;
    const isHere = local.catalog().some((entry) => entry.id === request.model);
    if (isHere) return { backend: admission?.forPeer(from) ?? local, kind: 'engine' };
    if (shared?.serves(request.model) === true) return { backend: shared, kind: 'http' };
    throw new MeshError('model_not_loaded', `Model '${request.model}' is not served by this node`, { param: 'model' });
  }

  /** A key's limits count beside those of the peer: several peers may share a key, and a peer may have several. */
  #book(from: string, key: VerifiedKey | null): QuotaLease[] {
    const { perPeer, tokensPerMinute = DEFAULT_PEER_QUOTA.tokensPerMinute } = this.#options;
    const peerLimits: QuotaLimits = { inFlight: perPeer, tokensPerMinute };
    const ofPeer = this.#quota.enter(from, peerLimits);
    if (key === null) return [ofPeer];
    try {
      return [ofPeer, this.#quota.enter(`key:${key.id}`, key.limits)];
    } catch (error) {
      ofPeer.leave();
      throw error;
    }
  }
}

/** `Bearer KEY`, as HTTP has it, or the bare key. */
function bareKey(authorization: string): string {
  return authorization.replace(/^bearer\s+/i, '').trim();
}

/**
 * Tokens of one answer, booked as they come, so that an answer that is cut or cancelled counts for what was made of it. A
 * service that tells no tokens counts by its chunks until its end says how many there were.
 */
class TokenCount {
  #counted = 0;

  /** With this event. */
  of(event: InferenceEvent): number {
    const tokens = this.#tokensOf(event);
    this.#counted += tokens;
    return tokens;
  }

  #tokensOf(event: InferenceEvent): number {
    if (event.type === 'accepted') return event.promptTokens;
    if (event.type === 'chunk') return event.tokens.length > 0 ? event.tokens.length : Number(event.text !== '');
    if (event.type !== 'end') return 0;
    return Math.max(0, event.usage.promptTokens + event.usage.completionTokens - this.#counted);
  }
}
