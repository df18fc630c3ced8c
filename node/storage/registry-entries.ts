/** The remote nodes of a registry as plain data: found, named, added and read from a file. Pure. */
import { MeshError } from '../common/errors.ts';
import { newServer, parseEntry, type RemoteEntry, type Upstream } from './remote-node.ts';

/** By fingerprint, in the order in which they were added. */
export type Entries = ReadonlyMap<string, RemoteEntry>;

const MAX_NODES = 256;

export const invalid = (message: string, param?: string): MeshError =>
  new MeshError('invalid_request', message, param === undefined ? {} : { param });

export function unknownNode(entries: Entries, asked: string): MeshError {
  const names = [...entries.values()].map((entry) => entry.name).slice(0, 20);
  const there = names.length === 0 ? 'none is registered' : `there are: ${names.join(', ')}`;
  return new MeshError('not_found', `There is no node "${asked.slice(0, 100)}"; ${there}`);
}

export function checkNameIsFree(entries: Entries, name: string, owner: string | null): void {
  const holder = find(entries, name);
  if (holder !== null && holder.fingerprint !== owner) throw invalid(`"${name}" is the name of another node`, 'name');
}

export function find(entries: Entries, nameOrFingerprint: string): RemoteEntry | null {
  const wanted = nameOrFingerprint.toLowerCase();
  const byName = [...entries.values()].find((entry) => entry.name.toLowerCase() === wanted);
  return entries.get(nameOrFingerprint) ?? byName ?? null;
}

export function freeName(entries: Entries, host: string): string {
  return firstFree(host.slice(0, 58), (name) => find(entries, name) === null);
}

export function freeFingerprint(entries: Entries, from: string): string {
  const words = from.toLowerCase().replace(/[^a-z0-9]+/g, '-');
  const slug = words.slice(0, 58).replace(/^-+|-+$/g, '');
  return firstFree(`api:${slug === '' ? 'node' : slug}`, (fingerprint) => !entries.has(fingerprint));
}

function firstFree(base: string, isFree: (candidate: string) => boolean): string {
  if (isFree(base)) return base;
  for (let n = 2; ; n += 1) if (isFree(`${base}-${n}`)) return `${base}-${n}`;
}

export function withEntry(entries: Entries, entry: RemoteEntry): Entries {
  if (!entries.has(entry.fingerprint) && entries.size >= MAX_NODES) {
    throw invalid(`The registry is full (${MAX_NODES} nodes): remove one first`);
  }
  return new Map(entries).set(entry.fingerprint, entry);
}

export function entryOf(entries: Entries, fingerprint: string): RemoteEntry {
  const entry = entries.get(fingerprint);
  if (entry === undefined) throw unknownNode(entries, fingerprint);
  return entry;
}

/** The servers of the configuration after those of the file, which go first. */
export function withUpstreams(entries: Entries, upstreams: readonly Upstream[]): Entries {
  const all = new Map(entries);
  for (const { name, url = null, ...patch } of upstreams) {
    const server = newServer('', { name, url }, patch);
    const isThere = [...all.values()].some((entry) => entry.url !== null && entry.url === server.url);
    if (isThere || find(all, name) !== null) continue;
    const free = freeFingerprint(all, name);
    all.set(free, { ...server, fingerprint: free });
  }
  return all;
}

export function parseEntries(json: unknown): Entries {
  const nodes = typeof json === 'object' && json !== null && 'nodes' in json ? json.nodes : null;
  if (!Array.isArray(nodes)) throw new Error('it has no list "nodes"');
  if (nodes.length > MAX_NODES) throw new Error(`it has more than ${MAX_NODES} nodes`);
  const entries = nodes.map((node: unknown, index) => parseEntry(node, `node ${index + 1} of the list`));
  const unique = new Map(entries.map((entry) => [entry.fingerprint, entry]));
  if (unique.size !== entries.length) throw new Error('two nodes have the same fingerprint');
  return unique;
}
