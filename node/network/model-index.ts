/** All catalogs merged: who holds which model. A lookup is a look into a map; nothing goes over the network. */
import type { CatalogEntry } from '../../protocols/catalog/catalog.ts';
import type { PeerTable, PeerView } from './peer-table.ts';

/** One model at one peer. */
export interface IndexedModel {
  readonly fingerprint: string;
  readonly entry: CatalogEntry;
  readonly peer: PeerView;
}

/** Merges catalogs by model id (offline peers list no models); entries of `dropped` (fingerprint → model ids) are left out. */
export function mergeCatalogs(
  peers: readonly PeerView[],
  dropped: ReadonlyMap<string, ReadonlySet<string>>,
): Map<string, IndexedModel[]> {
  const merged = new Map<string, IndexedModel[]>();
  for (const peer of peers) {
    for (const entry of peer.models) {
      if (dropped.get(peer.fingerprint)?.has(entry.id) === true) continue;
      const holder = { fingerprint: peer.fingerprint, entry, peer };
      const holders = merged.get(entry.id);
      if (holders === undefined) merged.set(entry.id, [holder]);
      else holders.push(holder);
    }
  }
  // Suspects last: whoever takes the first takes one that answers.
  for (const holders of merged.values()) {
    holders.sort((a, b) => Number(a.peer.status === 'suspect') - Number(b.peer.status === 'suspect'));
  }
  return merged;
}

/** The models of all peers that can be used now, never those of this node. */
export class ModelIndex {
  readonly #table: PeerTable;
  readonly #dropped = new Map<string, Set<string>>();
  #merged: Map<string, IndexedModel[]> | null = null;

  constructor(components: { readonly table: PeerTable }) {
    this.#table = components.table;
    this.#table.onChange(({ kind, peer }) => {
      // Heartbeats are many and change one figure: merging everything again for each would cost more than routing.
      if (kind === 'load') return this.#refresh(peer);
      this.#merged = null;
      // The peer spoke about its models again, so that what it refused before is no longer known to be stale.
      if (kind === 'models' || kind === 'up' || kind === 'down') this.#dropped.delete(peer.fingerprint);
    });
  }

  /** Who serves the model; suspect peers come last, offline ones not at all. */
  holders(modelId: string): readonly IndexedModel[] {
    return this.#index().get(modelId) ?? [];
  }

  /** Every model at every usable peer. */
  models(): readonly IndexedModel[] {
    return [...this.#index().values()].flat();
  }

  /** Did a peer that has the model fall silent so lately that it may be back at once? */
  isAwaited(modelId: string): boolean {
    return this.#table.isAwaited(modelId);
  }

  /** The peer refused a model that its catalog lists: forget the entry until it speaks about its models again. */
  drop(fingerprint: string, modelId: string): void {
    const ids = this.#dropped.get(fingerprint) ?? new Set<string>();
    ids.add(modelId);
    this.#dropped.set(fingerprint, ids);
    this.#merged = null;
  }

  #refresh(peer: PeerView): void {
    for (const { id } of peer.models) {
      const holders = this.#merged?.get(id);
      if (holders === undefined) continue;
      const refreshed = holders.map((holder) =>
        holder.fingerprint === peer.fingerprint ? { ...holder, peer } : holder,
      );
      this.#merged?.set(id, refreshed);
    }
  }

  #index(): Map<string, IndexedModel[]> {
    this.#merged ??= mergeCatalogs(this.#table.list(), this.#dropped);
    return this.#merged;
  }
}
