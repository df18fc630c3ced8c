/** Which servers a registered node stands for: itself, or those that its status manifest says are live. Pure. */
import { boundaryOf } from '../../storage/node-url.ts';
import type { RemoteNode } from '../../storage/remote-node.ts';
import type { ManifestEntry, StatusManifest } from '../../storage/status-manifest.ts';
import type { GatewayView } from '../gateway.ts';
import { isManifestFile } from './manifest-source.ts';

/** One server to be asked. */
export interface HttpTarget {
  /** `api:<slug>`, or `api:<slug>:<entry>` of a manifest's. */
  readonly fingerprint: string;
  readonly name: string;
  /** Never show it of a manifest's. */
  readonly url: string;
  readonly shownUrl: string;
  /** What its owner said of it. */
  readonly node: RemoteNode;
  /** Picks its key among those of a manifest; null: the node's key is its own. */
  readonly endpointId: string | null;
  /** Exactly these; null: what it says. */
  readonly models: readonly string[] | null;
  /** It was named by somebody on the internet, so that its address must be there as well. */
  readonly publicOnly: boolean;
}

/** What is known of a manifest. */
export interface ManifestState {
  readonly current: StatusManifest | null;
  readonly problem: string | null;
}

export interface Targets {
  readonly targets: readonly HttpTarget[];
  /** Those that are not asked, as they are shown. */
  readonly idle: readonly GatewayView[];
}

/** `manifest` null: the node has none. */
export function targetsOf(node: RemoteNode, manifest: ManifestState | null): Targets {
  if (manifest === null) {
    const { fingerprint, name, url } = node;
    if (url === null) return { targets: [], idle: [] };
    const own = { endpointId: null, models: null, publicOnly: false };
    return { targets: [{ fingerprint, name, url, shownUrl: url, node, ...own }], idle: [] };
  }
  const { current, problem } = manifest;
  if (current === null) return { targets: [], idle: [idleView(node, { name: node.name, problem })] };
  const targets: HttpTarget[] = [];
  const idle: GatewayView[] = current.bad.map((entry) => idleEntry(node, entry.id, entry.problem));
  for (const entry of current.entries) {
    if (node.url !== null && entry.url !== node.url) continue;
    const why = whyIdle(node, entry);
    if (why === null) targets.push(entryTarget(node, entry));
    else idle.push(idleEntry(node, entry.id, why));
  }
  return { targets, idle };
}

/**
 * The key to show to a target. The key of a manifest is a JSON object of keys by `endpoint_id`; one that is not goes only
 * where its owner named the URL, since a manifest may name any.
 */
export function keyFor(target: HttpTarget, key: string | null): string | null {
  if (key === null || target.endpointId === null) return key;
  if (!key.startsWith('{')) return target.node.url === null ? null : key;
  try {
    const keys = JSON.parse(key) as Record<string, unknown>;
    const own = Object.hasOwn(keys, target.endpointId) ? keys[target.endpointId] : null;
    return typeof own === 'string' && /^[\x21-\x7e]{1,4096}$/.test(own) ? own : null;
  } catch {
    return null;
  }
}

function whyIdle(node: RemoteNode, entry: ManifestEntry): string | null {
  if (!entry.isLive) return `its status manifest says ${entry.status}`;
  const isNear = boundaryOf(new URL(entry.url)) !== 'public';
  return isNear && isPublicOnly(node) ? 'a manifest on the internet names a private address, which is not asked' : null;
}

/** A manifest that its owner did not write, nor took from his own network, must not lead into it. */
function isPublicOnly({ manifest, url }: RemoteNode): boolean {
  if (manifest === null || url !== null || isManifestFile(manifest)) return false;
  return boundaryOf(new URL(manifest)) === 'public';
}

function entryTarget(node: RemoteNode, entry: ManifestEntry): HttpTarget {
  const { id, url, endpointId, models } = entry;
  const name = entryName(node, id);
  const shown = { fingerprint: entryFingerprint(node, id), name, shownUrl: shownUrl(node) };
  return { ...shown, url, node, endpointId, models, publicOnly: isPublicOnly(node) };
}

const entryName = (node: RemoteNode, id: string): string => `${node.name}/${id}`;
const shownUrl = (node: RemoteNode): string => node.url ?? `manifest:${node.name}`;

/** Two entries whose names differ in punctuation only keep apart by what is escaped. */
const entryFingerprint = (node: RemoteNode, id: string): string =>
  `${node.fingerprint}:${encodeURIComponent(id).replaceAll('%', '~').slice(0, 128)}`;

function idleEntry(node: RemoteNode, id: string, problem: string): GatewayView {
  return idleView(node, { name: entryName(node, id), problem, fingerprint: entryFingerprint(node, id) });
}

function idleView(
  node: RemoteNode,
  own: { readonly name: string; readonly problem: string | null; readonly fingerprint?: string },
): GatewayView {
  const { priority, boundary, fingerprint, hasKey } = node;
  const quiet = { kind: 'http', status: 'offline', latencyMs: null, models: [] } as const;
  return { fingerprint, ...own, ...quiet, url: shownUrl(node), hasKey, place: { priority, boundary } };
}
