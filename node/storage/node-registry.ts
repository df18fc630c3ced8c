/** What the owner said about remote nodes: priorities, how far away they are, servers that speak HTTP, keys. */
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { Boundary } from '../../protocols/inference/events.ts';
import { systemClock } from '../common/clock.ts';
import type { MeshError } from '../common/errors.ts';
import type { Startable } from '../common/lifecycle.ts';
import { OsKeychain } from './keychain.ts';
import { hostOf, parseNodeUrl } from './node-url.ts';
import {
  checkNameIsFree,
  type Entries,
  entryOf,
  find,
  freeFingerprint,
  freeName,
  invalid,
  parseEntries,
  unknownNode,
  withEntry,
  withUpstreams,
} from './registry-entries.ts';
import {
  checkPatch,
  isPeer,
  keptUrl,
  newPeer,
  newServer,
  type RemoteEntry,
  type RemoteNode,
  type RemoteNodePatch,
  type Upstream,
} from './remote-node.ts';
import { SecretKeys } from './secret-keys.ts';
import { noPassphrase } from './secret-passphrase.ts';
import { SecretStore } from './secret-store.ts';
import { SharedFile, type SharedFileComponents } from './shared-file.ts';

export interface NodeRegistryComponents extends SharedFileComponents {
  readonly secrets: SecretStore;
  /** Where keys that are named by `keyEnv` are. Default: that of this process. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

export interface NodeRegistryOptions {
  readonly dataDir: string;
  /** Servers of the configuration. Default: none. */
  readonly upstreams?: readonly Upstream[];
}

const MAX_FILE_BYTES = 1024 * 1024;
/** What can stand in a header. */
const KEY = /^[\x21-\x7e][\x20-\x7e]{0,65535}$/;

/**
 * `<dataDir>/nodes.json`, at most 256 nodes; the keys lie apart in `SecretStore`. Other processes may edit both while
 * this one runs. All refusals leave the registry as it was. Servers of the configuration come after those of the file; one
 * that the file has too, by name or URL, is that of the file, with its key.
 */
export class NodeRegistry implements Startable {
  readonly #secrets: SecretStore;
  readonly #file: SharedFile<Entries>;
  readonly #env: Readonly<Record<string, string | undefined>>;
  readonly #listeners = new Set<() => void>();
  #upstreams: readonly Upstream[];
  #merged: { readonly file: Entries | null; readonly upstreams: readonly Upstream[]; readonly all: Entries };

  constructor(components: NodeRegistryComponents, { dataDir, upstreams = [] }: NodeRegistryOptions) {
    this.#secrets = components.secrets;
    this.#env = components.env ?? process.env;
    this.#upstreams = upstreams;
    this.#merged = { file: null, upstreams, all: new Map() };
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

  /** In the order in which they were added, those of the configuration last. */
  list(): readonly RemoteNode[] {
    return [...this.#all().values()].map((entry) => this.#view(entry));
  }

  /** By fingerprint or by name (letter case aside); null when there is none. */
  get(nameOrFingerprint: string): RemoteNode | null {
    const entry = find(this.#all(), nameOrFingerprint);
    return entry === null ? null : this.#view(entry);
  }

  /** From now on these are the servers of the configuration. */
  configure(upstreams: readonly Upstream[]): void {
    if (isDeepStrictEqual(upstreams, this.#upstreams)) return;
    this.#upstreams = upstreams;
    for (const listener of this.#listeners) listener();
  }

  /** For routing, at every decision. Nodes that nobody spoke of: priority 0, peers are `mesh`, others `public`. */
  remote(fingerprint: string): { readonly priority: number; readonly boundary: Boundary } {
    const entry = this.#all().get(fingerprint);
    return entry ?? { priority: 0, boundary: fingerprint.startsWith('api:') ? 'public' : 'mesh' };
  }

  /** The key that this node shows to that one; null when there is none. Never log it. */
  keyOf(fingerprint: string): string | null {
    const variable = this.#all().get(fingerprint)?.keyEnv ?? null;
    // A server of the configuration never gets what lies in the store under its name: that was meant for another URL.
    if (variable === null) return this.#isConfigured(fingerprint) ? null : this.#secrets.get(secretName(fingerprint));
    const key = (this.#env[variable] ?? '').trim();
    return KEY.test(key) ? key : null;
  }

  /**
   * Changes a remote node; a peer that nobody spoke of yet is added.
   *
   * @throws MeshError `invalid_request` (priority, boundary, name, fingerprint, registry full), `not_found`.
   */
  async set(fingerprint: string, patch: RemoteNodePatch): Promise<RemoteNode> {
    checkPatch(patch);
    const { name, priority, boundary } = patch;
    const changes = { name, priority, boundary };
    const entries = await this.#file.edit((all) => {
      const known = all.get(fingerprint);
      if (known === undefined && !isPeer(fingerprint)) throw this.#unknown(fingerprint);
      if (name !== undefined) checkNameIsFree(all, name, fingerprint);
      const after = { ...(known ?? newPeer(fingerprint)), ...definedOnly(changes) };
      // Setting a key alone leaves this file as it is.
      return known !== undefined && isDeepStrictEqual(known, after) ? all : withEntry(all, after);
    });
    return this.#view(entryOf(entries, fingerprint));
  }

  /**
   * Registers a server that speaks HTTP, or with `manifest` and without a URL all servers that the manifest names; with
   * both, those of its entries that are at this URL. Nothing is asked of it here.
   *
   * @throws MeshError `invalid_request` (URL, name, priority, boundary, already there, registry full).
   */
  async add(url: string | null, patch: RemoteNodePatch = {}): Promise<RemoteNode> {
    checkPatch(patch);
    const parsed = url === null ? null : parseNodeUrl(url);
    const given = patch.name ?? (parsed === null ? 'manifest' : null);
    let fingerprint = '';
    const entries = await this.#file.edit((all) => {
      const twin = parsed === null ? undefined : [...all.values()].find((entry) => entry.url === keptUrl(parsed));
      if (twin !== undefined) throw invalid(`${twin.url} is registered already, as "${twin.name}"`, 'url');
      if (given !== null) checkNameIsFree(all, given, null);
      const name = given ?? freeName(all, parsed?.host ?? '');
      fingerprint = freeFingerprint(all, given ?? (parsed === null ? '' : hostOf(parsed)));
      return withEntry(all, newServer(fingerprint, { name, url }, patch));
    });
    return this.#view(entryOf(entries, fingerprint));
  }

  /**
   * Forgets a node and its key; a peer goes back to the defaults.
   *
   * @throws MeshError `not_found` that names what there is.
   */
  async remove(nameOrFingerprint: string): Promise<RemoteNode> {
    await this.load();
    const node = this.get(nameOrFingerprint);
    if (node === null || node.origin === 'config') throw this.#unknown(nameOrFingerprint);
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
    return this.#view(entryOf(this.#file.value, fingerprint));
  }

  /** Called after each change of a node or a key, whoever made it; returns the unsubscribe. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    const offs = [this.#file.onChange(listener), this.#secrets.onChange(listener)];
    return () => {
      this.#listeners.delete(listener);
      for (const off of offs) off();
    };
  }

  /** Asked at every decision of the router, so it is made once for each state. */
  #all(): Entries {
    const [file, upstreams] = [this.#file.value, this.#upstreams];
    if (this.#merged.file !== file || this.#merged.upstreams !== upstreams) {
      this.#merged = { file, upstreams, all: withUpstreams(file, upstreams) };
    }
    return this.#merged.all;
  }

  #isConfigured(fingerprint: string): boolean {
    return fingerprint.startsWith('api:') && !this.#file.value.has(fingerprint);
  }

  #view(entry: RemoteEntry): RemoteNode {
    const { fingerprint, keyEnv } = entry;
    const isConfigured = this.#isConfigured(fingerprint);
    const isStored = keyEnv === null && !isConfigured && this.#secrets.has(secretName(fingerprint));
    const hasKey = isStored || (keyEnv !== null && this.keyOf(fingerprint) !== null);
    return { ...entry, hasKey, origin: isConfigured ? 'config' : 'registry' };
  }

  #unknown(asked: string): MeshError {
    const configured = find(this.#all(), asked);
    if (configured === null || this.#file.value.has(configured.fingerprint))
      return unknownNode(this.#file.value, asked);
    return invalid(`"${configured.name}" is set by the configuration (upstreams, --upstream): change it there`);
  }
}

/** The registry of a data dir, read once: for commands. Without `secrets`, keys are kept in a plain file. */
export async function openNodeRegistry(
  place: string | NodeRegistryOptions,
  secrets?: SecretStore,
): Promise<NodeRegistry> {
  const options = typeof place === 'string' ? { dataDir: place } : place;
  const components = { clock: systemClock, warn: () => {} };
  const keys = new SecretKeys({ keychain: new OsKeychain(components), passphrase: noPassphrase });
  const plain = new SecretStore({ ...components, keys }, { dataDir: options.dataDir, store: 'plain' });
  const registry = new NodeRegistry({ ...components, secrets: secrets ?? plain }, options);
  await registry.load();
  return registry;
}

const secretName = (fingerprint: string): string => `node/${fingerprint}`;

function definedOnly<T extends object>(patch: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  const given = Object.entries(patch).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given) as { [K in keyof T]: Exclude<T[K], undefined> };
}
