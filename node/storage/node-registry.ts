/** What the owner said about remote nodes: priorities, how far away they are, servers that speak HTTP, keys. */
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { BOUNDARIES, type Boundary } from '../../protocols/inference/events.ts';
import { systemClock } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';
import type { Startable } from '../common/lifecycle.ts';
import { OsKeychain } from './keychain.ts';
import { boundaryOf, hostOf, parseNodeUrl } from './node-url.ts';
import { SecretKeys } from './secret-keys.ts';
import { noPassphrase } from './secret-passphrase.ts';
import { SecretStore } from './secret-store.ts';
import { SharedFile, type SharedFileComponents } from './shared-file.ts';

/** One remote node. Never holds its key. */
export interface RemoteNode {
  /** A peer's `12D3…`, or `api:<slug>` of a server that speaks HTTP. */
  readonly fingerprint: string;
  /** What people call it; a peer's fingerprint while nobody named it. */
  readonly name: string;
  /** Base URL without `/v1`, credentials or trailing slash; null for peers. */
  readonly url: string | null;
  /** -1000 to 1000, higher is preferred. */
  readonly priority: number;
  readonly boundary: Boundary;
  readonly hasKey: boolean;
}

/** What is absent stays as it is. */
export type RemoteNodePatch = Partial<Pick<RemoteNode, 'name' | 'priority' | 'boundary'>>;

export interface NodeRegistryComponents extends SharedFileComponents {
  readonly secrets: SecretStore;
}

export interface NodeRegistryOptions {
  readonly dataDir: string;
}

type Entry = Omit<RemoteNode, 'hasKey'>;
type Entries = ReadonlyMap<string, Entry>;

export const MAX_PRIORITY = 1000;
const MAX_NODES = 256;
const MAX_FILE_BYTES = 1024 * 1024;
const PEER = /^12D3[1-9A-HJ-NP-Za-km-z]{1,80}$/;
const HTTP_NODE = /^api:[a-z0-9][a-z0-9-]{0,63}$/;
/** Letters, digits and punctuation of any language on one line: no control characters, no spaces at the ends. */
const NAME = /^(?! )[^\p{C}\p{Zl}\p{Zp}]{1,64}(?<! )$/u;

/**
 * `<dataDir>/nodes.json`, at most 256 nodes; the keys lie apart in `SecretStore`. Other processes may edit both while
 * this one runs. All refusals leave the registry as it was.
 */
export class NodeRegistry implements Startable {
  readonly #secrets: SecretStore;
  readonly #file: SharedFile<Entries>;

  constructor(components: NodeRegistryComponents, { dataDir }: NodeRegistryOptions) {
    this.#secrets = components.secrets;
    this.#file = new SharedFile<Entries>(components, {
      path: join(dataDir, 'nodes.json'),
      maxBytes: MAX_FILE_BYTES,
      empty: new Map(),
      parse: parseEntries,
      format: (entries) => ({ nodes: [...entries.values()] }),
    });
  }

  /** Reads both files and from then on looks every second whether they changed. */
  async start(): Promise<void> {
    await this.#secrets.start();
    await this.#file.start();
  }

  async stop(): Promise<void> {
    await this.#file.stop();
    await this.#secrets.stop();
  }

  /** Reads both files once: for commands, which do not `start`. `keyOf` wants `unlock` as well. */
  async load(): Promise<void> {
    await this.#secrets.load();
    await this.#file.load();
  }

  /** Makes the keys readable; may ask the keychain or for the passphrase. @throws MeshError `invalid_request`. */
  unlock(): Promise<void> {
    return this.#secrets.unlock();
  }

  /** In the order in which they were added. */
  list(): readonly RemoteNode[] {
    return [...this.#file.value.values()].map((entry) => this.#withKey(entry));
  }

  /** By fingerprint or by name (letter case aside); null when there is none. */
  get(nameOrFingerprint: string): RemoteNode | null {
    const entry = find(this.#file.value, nameOrFingerprint);
    return entry === null ? null : this.#withKey(entry);
  }

  /** For routing, at every decision. Nodes that nobody spoke of: priority 0, peers are `mesh`, others `public`. */
  remote(fingerprint: string): { readonly priority: number; readonly boundary: Boundary } {
    const entry = this.#file.value.get(fingerprint);
    return entry ?? { priority: 0, boundary: fingerprint.startsWith('api:') ? 'public' : 'mesh' };
  }

  /** The key that this node shows to that one; null when there is none. Never log it. */
  keyOf(fingerprint: string): string | null {
    return this.#secrets.get(secretName(fingerprint));
  }

  /**
   * Changes a remote node; a peer that nobody spoke of yet is added.
   *
   * @throws MeshError `invalid_request` (priority, boundary, name, fingerprint, registry full), `not_found`.
   */
  async set(fingerprint: string, patch: RemoteNodePatch): Promise<RemoteNode> {
    checkPatch(patch);
    const entries = await this.#file.edit((all) => {
      const known = all.get(fingerprint);
      if (known === undefined && !PEER.test(fingerprint)) throw unknownNode(all, fingerprint);
      if (patch.name !== undefined) checkNameIsFree(all, patch.name, fingerprint);
      const before = known ?? { fingerprint, name: fingerprint, url: null, priority: 0, boundary: 'mesh' as const };
      const after = { ...before, ...defined(patch) };
      // Setting a key alone leaves this file as it is.
      return known !== undefined && isDeepStrictEqual(known, after) ? all : withEntry(all, after);
    });
    return this.#withKey(entryOf(entries, fingerprint));
  }

  /**
   * Registers a server that speaks HTTP. Nothing is asked of it here. Its boundary, where none is given, is `mesh` on
   * loopback and private addresses and `public` elsewhere.
   *
   * @throws MeshError `invalid_request` (URL, name, priority, boundary, already there, registry full).
   */
  async add(url: string, patch: RemoteNodePatch = {}): Promise<RemoteNode> {
    const parsed = parseNodeUrl(url);
    checkPatch(patch);
    const kept = parsed.href.replace(/\/$/, '');
    let fingerprint = '';
    const entries = await this.#file.edit((all) => {
      const twin = [...all.values()].find((entry) => entry.url === kept);
      if (twin !== undefined) throw invalid(`${kept} is registered already, as "${twin.name}"`, 'url');
      if (patch.name !== undefined) checkNameIsFree(all, patch.name, null);
      const name = patch.name ?? freeName(all, parsed.host);
      fingerprint = freeFingerprint(all, patch.name ?? hostOf(parsed));
      const { priority = 0, boundary = boundaryOf(parsed) } = patch;
      return withEntry(all, { fingerprint, name, url: kept, priority, boundary });
    });
    return this.#withKey(entryOf(entries, fingerprint));
  }

  /**
   * Forgets a node and its key; a peer goes back to the defaults.
   *
   * @throws MeshError `not_found` that names what there is.
   */
  async remove(nameOrFingerprint: string): Promise<RemoteNode> {
    await this.load();
    const node = this.get(nameOrFingerprint);
    if (node === null) throw unknownNode(this.#file.value, nameOrFingerprint);
    // The key first: should the second step fail, no key is left behind without its node.
    await this.#secrets.delete(secretName(node.fingerprint));
    await this.#file.edit((all) => new Map([...all].filter(([fingerprint]) => fingerprint !== node.fingerprint)));
    return node;
  }

  /**
   * Sets the key that this node shows to that one; null removes it.
   *
   * @throws MeshError as `set`, and `invalid_request` for a key that could not stand in a header; it is never quoted.
   */
  async setKey(fingerprint: string, key: string | null): Promise<RemoteNode> {
    await this.set(fingerprint, {});
    if (key === null) await this.#secrets.delete(secretName(fingerprint));
    else await this.#secrets.set(secretName(fingerprint), key);
    return this.#withKey(entryOf(this.#file.value, fingerprint));
  }

  /** Called after each change of a node or a key, whoever made it; returns the unsubscribe. */
  onChange(listener: () => void): () => void {
    const offs = [this.#file.onChange(listener), this.#secrets.onChange(listener)];
    return () => {
      for (const off of offs) off();
    };
  }

  #withKey(entry: Entry): RemoteNode {
    return { ...entry, hasKey: this.#secrets.has(secretName(entry.fingerprint)) };
  }
}

/** The registry of a data dir, read once: for commands. Without `secrets`, keys are kept in a plain file. */
export async function openNodeRegistry(dataDir: string, secrets?: SecretStore): Promise<NodeRegistry> {
  const components = { clock: systemClock, warn: () => {} };
  const keys = new SecretKeys({ keychain: new OsKeychain(components), passphrase: noPassphrase });
  const plain = new SecretStore({ ...components, keys }, { dataDir, store: 'plain' });
  const registry = new NodeRegistry({ ...components, secrets: secrets ?? plain }, { dataDir });
  await registry.load();
  return registry;
}

const secretName = (fingerprint: string): string => `node/${fingerprint}`;

const invalid = (message: string, param?: string): MeshError =>
  new MeshError('invalid_request', message, param === undefined ? {} : { param });

function unknownNode(entries: Entries, asked: string): MeshError {
  const names = [...entries.values()].map((entry) => entry.name).slice(0, 20);
  const there = names.length === 0 ? 'none is registered' : `there are: ${names.join(', ')}`;
  return new MeshError('not_found', `There is no node "${asked.slice(0, 100)}"; ${there}`);
}

function checkPatch({ name, priority, boundary }: RemoteNodePatch): void {
  if (priority !== undefined && !(Number.isInteger(priority) && Math.abs(priority) <= MAX_PRIORITY)) {
    throw invalid(`priority must be a whole number from -${MAX_PRIORITY} to ${MAX_PRIORITY}`, 'priority');
  }
  if (boundary !== undefined && !BOUNDARIES.includes(boundary)) {
    throw invalid(`boundary must be one of ${BOUNDARIES.join(', ')}`, 'boundary');
  }
  // A name that looks like a fingerprint would hide the node that has it.
  if (name !== undefined && (!NAME.test(name) || HTTP_NODE.test(name) || PEER.test(name))) {
    throw invalid('A name is 1 to 64 characters on one line, and no fingerprint', 'name');
  }
}

function checkNameIsFree(entries: Entries, name: string, owner: string | null): void {
  const holder = find(entries, name);
  if (holder !== null && holder.fingerprint !== owner) throw invalid(`"${name}" is the name of another node`, 'name');
}

function find(entries: Entries, nameOrFingerprint: string): Entry | null {
  const wanted = nameOrFingerprint.toLowerCase();
  const byName = [...entries.values()].find((entry) => entry.name.toLowerCase() === wanted);
  return entries.get(nameOrFingerprint) ?? byName ?? null;
}

function freeName(entries: Entries, host: string): string {
  return firstFree(host.slice(0, 58), (name) => find(entries, name) === null);
}

function freeFingerprint(entries: Entries, from: string): string {
  const words = from.toLowerCase().replace(/[^a-z0-9]+/g, '-');
  const slug = words.slice(0, 58).replace(/^-+|-+$/g, '');
  return firstFree(`api:${slug === '' ? 'node' : slug}`, (fingerprint) => !entries.has(fingerprint));
}

function firstFree(base: string, isFree: (candidate: string) => boolean): string {
  if (isFree(base)) return base;
  for (let n = 2; ; n += 1) if (isFree(`${base}-${n}`)) return `${base}-${n}`;
}

function withEntry(entries: Entries, entry: Entry): Entries {
  if (!entries.has(entry.fingerprint) && entries.size >= MAX_NODES) {
    throw invalid(`The registry is full (${MAX_NODES} nodes): remove one first`);
  }
  return new Map(entries).set(entry.fingerprint, entry);
}

function entryOf(entries: Entries, fingerprint: string): Entry {
  const entry = entries.get(fingerprint);
  if (entry === undefined) throw unknownNode(entries, fingerprint);
  return entry;
}

function defined(patch: RemoteNodePatch): RemoteNodePatch {
  return Object.fromEntries(Object.entries(patch).filter(([, value]) => value !== undefined));
}

/** Strict: a boundary that was lost to a typing error would let requests go where they must not. */
function parseEntries(json: unknown): Entries {
  const nodes = typeof json === 'object' && json !== null && 'nodes' in json ? json.nodes : null;
  if (!Array.isArray(nodes)) throw new Error('it has no list "nodes"');
  if (nodes.length > MAX_NODES) throw new Error(`it has more than ${MAX_NODES} nodes`);
  const entries = nodes.map((node: unknown, index) => parseEntry(node, `node ${index + 1} of the list`));
  const unique = new Map(entries.map((entry) => [entry.fingerprint, entry]));
  if (unique.size !== entries.length) throw new Error('two nodes have the same fingerprint');
  return unique;
}

function parseEntry(json: unknown, where: string): Entry {
  if (typeof json !== 'object' || json === null) throw new Error(`${where} is no object`);
  const { fingerprint, name = fingerprint, url = null, priority = 0, boundary } = json as Record<string, unknown>;
  if (typeof fingerprint !== 'string' || typeof name !== 'string') throw new Error(`${where} has no fingerprint`);
  const isHttp = typeof url === 'string' && HTTP_NODE.test(fingerprint);
  if (!isHttp && !(url === null && PEER.test(fingerprint))) throw new Error(`${where}: fingerprint and url do not fit`);
  const parsed = isHttp ? parseNodeUrl(url) : null;
  const near = parsed === null ? 'mesh' : boundaryOf(parsed);
  const patch = { priority: priority as number, boundary: (boundary ?? near) as Boundary };
  checkPatch(name === fingerprint ? patch : { ...patch, name });
  return { fingerprint, name, url: parsed === null ? null : parsed.href.replace(/\/$/, ''), ...patch };
}
