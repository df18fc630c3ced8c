/** Numbers and states as people read them. */
import type { CatalogEntry } from '../node/index.ts';

/** For example `1.4 GB`; decimal units, as disks are sold. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  const power = Math.min(units.length - 1, bytes < 1 ? 0 : Math.floor(Math.log10(bytes) / 3));
  const value = bytes / 1000 ** power;
  return `${value < 10 && power > 0 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}

/** For example `3 d 4 h`, `12 min` or `5 s`. */
export function formatDuration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  if (seconds < 60) return `${seconds} s`;
  if (minutes < 60) return `${minutes} min`;
  return hours < 24 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** For example `0.4 ms`. */
export function formatLatency(ms: number | null): string {
  if (ms === null) return '-';
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

/** For example `8,192`. */
export function formatCount(count: number): string {
  return count.toLocaleString('en-US');
}

/** A fingerprint short enough for a table; its end differs most. */
export function shortFingerprint(fingerprint: string): string {
  return fingerprint.length <= 14 ? fingerprint : `${fingerprint.slice(0, 5)}…${fingerprint.slice(-7)}`;
}

/** One model of the mesh, with everyone who has it. */
export interface ListedModel {
  readonly id: string;
  readonly holders: readonly { readonly node: string; readonly local: boolean; readonly entry: CatalogEntry }[];
}

/** All models by id, this node's first. */
export function mergeModels(
  local: { readonly name: string; readonly models: readonly CatalogEntry[] },
  peers: readonly { readonly name: string; readonly status: string; readonly models: readonly CatalogEntry[] }[],
): readonly ListedModel[] {
  const byId = new Map<string, ListedModel['holders'][number][]>();
  const add = (node: string, isLocal: boolean, entry: CatalogEntry): void => {
    const holders = byId.get(entry.id) ?? [];
    holders.push({ node, local: isLocal, entry });
    byId.set(entry.id, holders);
  };
  for (const entry of local.models) add(local.name, true, entry);
  for (const peer of peers)
    if (peer.status !== 'offline') for (const entry of peer.models) add(peer.name, false, entry);
  return [...byId].map(([id, holders]) => ({ id, holders }));
}
