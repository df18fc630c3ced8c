/** Which backends could serve a model: the engine here, peers of the model index, gateways, and at last the DHT. */

import type { NodeLoad } from '../../protocols/catalog/catalog.ts';
import type { Backend, LocalBackend } from '../backends/backend.ts';
import type { Gateway, GatewayHolder } from '../backends/gateway.ts';
import type { IndexedModel, ModelIndex } from '../network/model-index.ts';
import type { ProviderRecords } from '../network/provider-records.ts';
import { type Candidate, furthest } from './candidate.ts';
import type { RoutingStats } from './routing-stats.ts';
import { DEFAULT_ROUTING_SETTINGS, type RemoteSettings, type RoutingSettings } from './settings.ts';

/** One model at one peer. */
interface PeerHolder extends GatewayHolder {
  readonly load: NodeLoad | null;
  readonly engineBuild: string;
}

export interface RouterComponents {
  readonly local: LocalBackend;
  /** Build of the inference library here. Default: not known, so that no peer is a twin of this node. */
  readonly engineBuild?: string;
  readonly index: Pick<ModelIndex, 'holders' | 'drop'> & Partial<Pick<ModelIndex, 'isAwaited'>>;
  readonly providers: Pick<ProviderRecords, 'find'>;
  readonly stats: RoutingStats;
  /** The peer of this fingerprint as a backend. */
  readonly peerBackend: (fingerprint: string) => Backend;
  /** Services beyond the mesh. Default: none. */
  readonly gateways?: Pick<Gateway, 'holders' | 'drop'>;
  readonly settings?: RoutingSettings;
}

/** Age of its engine's last step past which a peer is chosen last, ms: it loads, computes a long prompt, or hangs. */
const STALLED_MS = 10_000;
/** Peers whose backend is kept; the one made first goes first. */
const KEPT_PEERS = 1024;

const HERE: RemoteSettings = { priority: 0, boundary: 'local' };

/** What a node says of itself beside its models. */
interface Said {
  readonly load: NodeLoad | null;
  readonly engineBuild: string | null;
}

const SAYS_NOTHING: Said = { load: null, engineBuild: null };

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
    const { local, index, gateways, engineBuild = null } = this.#components;
    const found: Candidate[] = [];
    const own = local.catalog().find(({ id }) => id === modelId);
    if (own !== undefined) {
      found.push(this.#candidate({ backend: local, entry: own, suspect: false }, { load: null, engineBuild }, HERE));
    }
    if (!this.#settings.loadBalancing().enabled) return found;
    for (const holder of this.#holders(index.holders(modelId))) {
      const { priority, boundary } = this.#settings.remote(holder.backend.id);
      const place = { priority, boundary: furthest(boundary, holder.entry.boundary ?? boundary) };
      found.push(this.#candidate(holder, holder, place));
    }
    for (const holder of gateways?.holders(modelId) ?? []) {
      const place = holder.place ?? this.#settings.remote(holder.backend.id);
      found.push(this.#candidate(holder, SAYS_NOTHING, place));
    }
    return found;
  }

  /** Asks the DHT for more, a bounded time long; `candidates` knows afterwards. Does nothing while load balancing is off. */
  async lookFurther(modelId: string, signal: AbortSignal): Promise<void> {
    if (this.#settings.loadBalancing().enabled) await this.#components.providers.find(modelId, signal);
  }

  /** Did a peer that has the model fall silent so lately that it may be back at once? */
  isAwaited(modelId: string): boolean {
    return this.#settings.loadBalancing().enabled && this.#components.index.isAwaited?.(modelId) === true;
  }

  /** The backend said that it does not serve this model after all. */
  forget(backendId: string, modelId: string): void {
    this.#components.index.drop(backendId, modelId);
    this.#components.gateways?.drop(backendId, modelId);
  }

  #candidate(holder: GatewayHolder, { load, engineBuild }: Said, { priority, boundary }: RemoteSettings): Candidate {
    const { backend, entry, suspect, continuesText, rank } = holder;
    const { activeRequests, lastAsked, firstTokenMs, penalty } = this.#components.stats.figures(backend.id, entry.id);
    const figures = { activeRequests, lastAsked, firstTokenMs, penalty };
    const ranked = rank === undefined ? {} : { rank };
    const candidate = { backend, entry, suspect, load, engineBuild, priority, boundary, ...figures, ...ranked };
    return continuesText === undefined ? candidate : { ...candidate, continuesText };
  }

  /** Prepared once for each state of the index, by fingerprint: what strategies sort is nearly sorted then. */
  #holders(indexed: readonly IndexedModel[]): readonly PeerHolder[] {
    let holders = this.#prepared.get(indexed);
    if (holders === undefined) {
      holders = indexed
        .filter(({ fingerprint }) => fingerprint !== this.#components.local.id)
        .map(({ fingerprint, entry, peer: { status, load, engineBuild } }) => {
          const suspect = status !== 'online' || (load !== null && (load.draining || load.engineAgeMs > STALLED_MS));
          return { backend: this.#peer(fingerprint), entry, suspect, load, engineBuild };
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
