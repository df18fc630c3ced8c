/** Which backends could serve a model, best first: the engine here, then peers from the model index, then the DHT. */

import type { CatalogEntry, NodeLoad } from '../../protocols/catalog/catalog.ts';
import type { Backend, LocalBackend } from '../backends/backend.ts';
import type { IndexedModel, ModelIndex } from '../network/model-index.ts';
import type { ProviderRecords } from '../network/provider-records.ts';
import { type Candidate, leastLoaded, orderCandidates, type Strategy } from './candidate.ts';
import type { RoutingStats } from './routing-stats.ts';

export interface RouterComponents {
  readonly local: LocalBackend;
  readonly index: Pick<ModelIndex, 'holders' | 'drop'>;
  readonly providers: Pick<ProviderRecords, 'find'>;
  readonly stats: RoutingStats;
  /** The peer of this fingerprint as a backend. */
  readonly peerBackend: (fingerprint: string) => Backend;
}

export interface RouterOptions {
  /** May requests leave this node at all? Default true. */
  readonly loadBalancing: boolean;
  readonly strategy: Strategy;
}

export const DEFAULT_ROUTER: RouterOptions = { loadBalancing: true, strategy: leastLoaded };

export class Router {
  readonly #components: RouterComponents;
  readonly #options: RouterOptions;

  constructor(components: RouterComponents, options: RouterOptions = DEFAULT_ROUTER) {
    this.#components = components;
    this.#options = options;
  }

  /** Candidates best first, without the excluded. Empty when nobody has the model, after asking the DHT. */
  async candidates(modelId: string, excluded: ReadonlySet<string>, signal: AbortSignal): Promise<readonly Candidate[]> {
    const known = this.#known(modelId, excluded);
    if (known.length > 0 || !this.#options.loadBalancing || excluded.size > 0) return known;
    await this.#components.providers.find(modelId, signal);
    return this.#known(modelId, excluded);
  }

  forget(backendId: string, modelId: string): void {
    this.#components.index.drop(backendId, modelId);
  }

  #known(modelId: string, excluded: ReadonlySet<string>): readonly Candidate[] {
    const { local, index } = this.#components;
    const entry = excluded.has(local.id) ? undefined : local.catalog().find((own) => own.id === modelId);
    const here = entry === undefined ? null : this.#candidate(local, entry, { suspect: false, load: null });
    const holders = this.#options.loadBalancing ? index.holders(modelId) : [];
    const peers = holders.filter((holder) => !excluded.has(holder.fingerprint)).map((holder) => this.#remote(holder));
    return orderCandidates(here, peers, this.#options.strategy);
  }

  #remote({ fingerprint, entry, peer }: IndexedModel): Candidate {
    const backend = this.#components.peerBackend(fingerprint);
    return this.#candidate(backend, entry, { suspect: peer.status !== 'online', load: peer.load });
  }

  #candidate(backend: Backend, entry: CatalogEntry, view: { suspect: boolean; load: NodeLoad | null }): Candidate {
    return { backend, entry, ...view, stats: this.#components.stats.of(backend.id) };
  }
}
