/** Which backends could serve a model: the engine here, peers of the model index, HTTP nodes, and at last the DHT. */

import type { CatalogEntry, NodeLoad } from '../../protocols/catalog/catalog.ts';
import type { Backend, LocalBackend } from '../backends/backend.ts';
import type { IndexedModel, ModelIndex } from '../network/model-index.ts';
import type { ProviderRecords } from '../network/provider-records.ts';
import type { Candidate } from './candidate.ts';
import type { RoutingStats } from './routing-stats.ts';
import { DEFAULT_ROUTING_SETTINGS, type RemoteSettings, type RoutingSettings } from './settings.ts';

/** One model at one HTTP node. */
export interface HttpHolder {
  readonly backend: Backend;
  readonly entry: CatalogEntry;
  readonly suspect: boolean;
}

/** One model at one peer. */
interface PeerHolder extends HttpHolder {
  readonly load: NodeLoad | null;
}

export interface RouterComponents {
  readonly local: LocalBackend;
  readonly index: Pick<ModelIndex, 'holders' | 'drop'>;
  readonly providers: Pick<ProviderRecords, 'find'>;
  readonly stats: RoutingStats;
  /** The peer of this fingerprint as a backend. */
  readonly peerBackend: (fingerprint: string) => Backend;
  readonly httpBackends?: {
    holders(modelId: string): readonly HttpHolder[];
    /** Its server said that it does not serve the model. */
    drop(backendId: string, modelId: string): void;
  };
  readonly settings?: RoutingSettings;
}

/** Peers whose backend is kept; the one made first goes first. */
const KEPT_PEERS = 1024;

const HERE: RemoteSettings = { priority: 0, boundary: 'local' };

export class Router {
  readonly #components: RouterComponents;
  readonly #settings: RoutingSettings;
  readonly #peers = new Map<string, Backend>();
  readonly #prepared = new WeakMap<readonly IndexedModel[], readonly PeerHolder[]>();

  constructor(components: RouterComponents) {
    this.#components = components;
    this.#settings = components.settings ?? DEFAULT_ROUTING_SETTINGS;
  }

  /** Everyone who says that it serves the model, in no order. This node alone while load balancing is off. */
  candidates(modelId: string): readonly Candidate[] {
    const { local, index, httpBackends } = this.#components;
    const found: Candidate[] = [];
    const own = local.catalog().find(({ id }) => id === modelId);
    if (own !== undefined) found.push(this.#candidate({ backend: local, entry: own, suspect: false }, null, HERE));
    if (!this.#settings.loadBalancing().enabled) return found;
    for (const holder of this.#holders(index.holders(modelId))) {
      found.push(this.#candidate(holder, holder.load, this.#settings.remote(holder.backend.id)));
    }
    for (const holder of httpBackends?.holders(modelId) ?? []) {
      found.push(this.#candidate(holder, null, this.#settings.remote(holder.backend.id)));
    }
    return found;
  }

  /** Asks the DHT for more, a bounded time long; `candidates` knows afterwards. Does nothing while load balancing is off. */
  async lookFurther(modelId: string, signal: AbortSignal): Promise<void> {
    if (this.#settings.loadBalancing().enabled) await this.#components.providers.find(modelId, signal);
  }

  /** The backend said that it does not serve this model after all. */
  forget(backendId: string, modelId: string): void {
    this.#components.index.drop(backendId, modelId);
    this.#components.httpBackends?.drop(backendId, modelId);
  }

  #candidate({ backend, entry, suspect }: HttpHolder, load: NodeLoad | null, remote: RemoteSettings): Candidate {
    const { activeRequests, lastAsked, firstTokenMs, penalty } = this.#components.stats.figures(backend.id, entry.id);
    const { priority, boundary } = remote;
    return { backend, entry, suspect, load, priority, boundary, activeRequests, lastAsked, firstTokenMs, penalty };
  }

  /** Prepared once for each state of the index, by fingerprint: what strategies sort is nearly sorted then. */
  #holders(indexed: readonly IndexedModel[]): readonly PeerHolder[] {
    let holders = this.#prepared.get(indexed);
    if (holders === undefined) {
      holders = indexed
        .filter(({ fingerprint }) => fingerprint !== this.#components.local.id)
        .map(({ fingerprint, entry, peer: { status, load } }) => {
          const suspect = status !== 'online' || load?.draining === true;
          return { backend: this.#peer(fingerprint), entry, suspect, load };
        })
        .sort((a, b) => (a.backend.id < b.backend.id ? -1 : 1));
      this.#prepared.set(indexed, holders);
    }
    return holders;
  }

  #peer(fingerprint: string): Backend {
    let backend = this.#peers.get(fingerprint);
    if (backend === undefined) {
      const oldest = this.#peers.size >= KEPT_PEERS ? this.#peers.keys().next().value : undefined;
      if (oldest !== undefined) this.#peers.delete(oldest);
      backend = this.#components.peerBackend(fingerprint);
      this.#peers.set(fingerprint, backend);
    }
    return backend;
  }
}
