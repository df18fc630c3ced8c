/** The mesh as FIRST's clients see it: a cluster named `mesh`, whose framework is llama.cpp. */
import type { CatalogEntry } from '../../../protocols/catalog/catalog.ts';
import type { FacadeComponents } from '../components.ts';
import { usableRemoteModels } from '../remote-models.ts';

export const MESH_CLUSTER = 'mesh';
export const MESH_FRAMEWORK = 'llama-cpp';
/** What can be asked of it, without slashes around them. */
export const MESH_ENDPOINTS = ['chat/completions', 'completions', 'embeddings'];

export type MeshViews = Pick<FacadeComponents, 'localModels' | 'remoteModels' | 'loadBalancing'>;

/** Models here and at peers, each once, the readiest of it, by id. */
export function meshModels(views: MeshViews): readonly CatalogEntry[] {
  // Fingerprints of services beyond the mesh have a kind and a colon before them.
  const peers = usableRemoteModels(views).filter(({ fingerprint }) => !fingerprint.includes(':'));
  const best = new Map<string, CatalogEntry>();
  for (const entry of [...views.localModels(), ...peers.map((peer) => peer.entry)]) {
    const known = best.get(entry.id);
    if (known === undefined || READINESS[entry.state] > READINESS[known.state]) best.set(entry.id, entry);
  }
  return [...best.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
}

const READINESS: Readonly<Record<CatalogEntry['state'], number>> = { resident: 2, loading: 1, 'on-disk': 0 };
