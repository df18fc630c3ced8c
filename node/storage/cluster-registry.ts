/** The Backend.AI clusters that the owner of this node registered, with their access keys; secrets lie apart. */
import { join } from 'node:path';
import { MeshError, toMeshError } from '../common/errors.ts';
import type { Startable } from '../common/lifecycle.ts';
import { parseNodeUrl } from './node-url.ts';
import type { SecretStore } from './secret-store.ts';
import { SharedFile, type SharedFileComponents } from './shared-file.ts';

/** One cluster. Never holds its secret key. */
export interface ClusterRecord {
  /** Lower-case letters, digits and dashes; `cluster:<slug>` is its fingerprint. */
  readonly slug: string;
  readonly name: string;
  /** URL of its manager, without trailing slash. */
  readonly endpoint: string;
  readonly accessKey: string;
  /** The owner accepts that neither requests nor tokens are hidden from the network. */
  readonly allowHttp: boolean;
  /** -1000 to 1000, higher is preferred. */
  readonly priority: number;
  /** Other nodes may use it through this one. */
  readonly share: boolean;
  readonly hasSecret: boolean;
}

/** What is registered; what is absent: http refused, priority 0, not shared. */
export type NewCluster = Pick<ClusterRecord, 'name' | 'endpoint' | 'accessKey'> &
  Partial<Pick<ClusterRecord, 'allowHttp' | 'priority' | 'share'>>;

export interface ClusterRegistryComponents extends SharedFileComponents {
  /** Started and stopped by whoever made it. */
  readonly secrets: SecretStore;
}

export interface ClusterRegistryOptions {
  readonly dataDir: string;
}

type Entry = Omit<ClusterRecord, 'hasSecret'>;
type Entries = ReadonlyMap<string, Entry>;

const MAX_CLUSTERS = 32;
const MAX_FILE_BYTES = 256 * 1024;
const MAX_PRIORITY = 1000;
const MAX_SLUG = 40;
const SLUG = /^[a-z0-9]+(-[a-z0-9]+)*$/;
/** Letters, digits and punctuation of any language on one line, without the sign that joins cluster and service. */
const NAME = /^(?! )[^\p{C}\p{Zl}\p{Zp}/]{1,40}(?<! )$/u;
const ACCESS_KEY = /^[\w-]{4,128}$/;

/** `<dataDir>/clusters.json`. Other processes may edit it while this one runs. All refusals leave it as it was. */
export class ClusterRegistry implements Startable {
  readonly #secrets: SecretStore;
  readonly #file: SharedFile<Entries>;

  constructor({ secrets, ...components }: ClusterRegistryComponents, { dataDir }: ClusterRegistryOptions) {
    this.#secrets = secrets;
    this.#file = new SharedFile<Entries>(components, {
      path: join(dataDir, 'clusters.json'),
      maxBytes: MAX_FILE_BYTES,
      empty: new Map(),
      parse: parseEntries,
      format: (entries) => ({ clusters: [...entries.values()] }),
    });
  }

  /** Reads the file and from then on looks every second whether it changed. @throws MeshError as `SharedFile`. */
  start(): Promise<void> {
    return this.#file.start();
  }

  stop(): Promise<void> {
    return this.#file.stop();
  }

  /** Reads the file and the names of the secrets once: for commands, which do not `start`. */
  async load(): Promise<void> {
    await this.#secrets.load();
    await this.#file.load();
  }

  /** Makes the secrets readable; may ask the keychain or for the passphrase. @throws MeshError `invalid_request`. */
  unlock(): Promise<void> {
    return this.#secrets.unlock();
  }

  /** In the order in which they were added. */
  list(): readonly ClusterRecord[] {
    return [...this.#file.value.values()].map((entry) => this.#shown(entry));
  }

  /** By name (letter case aside), slug or fingerprint. @throws MeshError `not_found` that names what there is. */
  get(wanted: string): ClusterRecord {
    const entry = find(this.#file.value, wanted);
    if (entry !== null) return this.#shown(entry);
    const names = [...this.#file.value.values()].map(({ name }) => name).join(', ');
    const there = names === '' ? 'none is registered' : `there are: ${names}`;
    throw new MeshError('not_found', `There is no cluster "${wanted.slice(0, 100)}"; ${there}`);
  }

  /** The secret key of a cluster; null when there is none. Never log it. */
  secretOf(slug: string): string | null {
    return this.#secrets.get(secretName(slug));
  }

  /**
   * Registers a cluster, or registers one of this name anew. Nothing is asked of it here.
   *
   * @throws MeshError `invalid_request` (URL, http without leave, name, key, priority, registry full).
   */
  async add(cluster: NewCluster, secretKey: string): Promise<ClusterRecord> {
    checkCluster(cluster);
    const { name, accessKey, allowHttp = false, priority = 0, share = false } = cluster;
    const endpoint = parseClusterUrl(cluster.endpoint, { allowHttp }).href.replace(/\/$/, '');
    await this.#file.load();
    const known = find(this.#file.value, name);
    if (known !== null && known.name.toLowerCase() !== name.toLowerCase()) {
      throw invalid(`"${name}" is short for the cluster "${known.name}": choose another name`, 'name');
    }
    if (known === null && this.#file.value.size >= MAX_CLUSTERS) {
      throw invalid(`There are ${MAX_CLUSTERS} clusters already: remove one first`, 'name');
    }
    const slug = known?.slug ?? freeSlug(this.#file.value, name);
    // The secret first: a running node must never see a cluster that it cannot sign for.
    await this.#secrets.set(secretName(slug), secretKey);
    const entry = { slug, name, endpoint, accessKey, allowHttp, priority, share };
    await this.#file.edit((all) => new Map(all).set(slug, entry));
    return this.#shown(entry);
  }

  /** Forgets a cluster and its secret. @throws MeshError `not_found`. */
  async remove(wanted: string): Promise<ClusterRecord> {
    await this.load();
    const cluster = this.get(wanted);
    await this.#secrets.delete(secretName(cluster.slug));
    await this.#file.edit((all) => new Map([...all].filter(([slug]) => slug !== cluster.slug)));
    return cluster;
  }

  /** Called after each change of a cluster or of any secret, whoever made it; returns the unsubscribe. */
  onChange(listener: () => void): () => void {
    const offs = [this.#file.onChange(listener), this.#secrets.onChange(listener)];
    return () => {
      for (const off of offs) off();
    };
  }

  #shown(entry: Entry): ClusterRecord {
    return { ...entry, hasSecret: this.#secrets.has(secretName(entry.slug)) };
  }
}

/**
 * An address of a cluster, of its manager or of a service.
 *
 * @throws MeshError `invalid_request` that says what is wrong: no URL, credentials in it, link-local, http without leave.
 */
export function parseClusterUrl(text: string, { allowHttp }: { readonly allowHttp: boolean }): URL {
  const url = parseNodeUrl(text);
  if (url.protocol === 'https:' || allowHttp) return url;
  const why = 'a signature covers neither the body nor the answer, and http shows both to the network';
  throw invalid(
    `${url.origin} has no TLS: ${why}; give an https URL, or --allow-http where the network is safe`,
    'url',
  );
}

const secretName = (slug: string): string => `cluster/${slug}`;

const invalid = (message: string, param: string): MeshError => new MeshError('invalid_request', message, { param });

function checkCluster({ name, accessKey, priority = 0 }: NewCluster): void {
  if (!NAME.test(name)) throw invalid('The name of a cluster is 1 to 40 characters on one line, without /', 'name');
  if (!ACCESS_KEY.test(accessKey)) throw invalid('An access key is 4 to 128 letters, digits, - or _', 'access_key');
  if (!Number.isInteger(priority) || Math.abs(priority) > MAX_PRIORITY) {
    throw invalid(`priority must be a whole number from -${MAX_PRIORITY} to ${MAX_PRIORITY}`, 'priority');
  }
}

function find(entries: Entries, wanted: string): Entry | null {
  const lower = wanted.toLowerCase();
  const byName = [...entries.values()].find(({ name }) => name.toLowerCase() === lower);
  return byName ?? entries.get(wanted.replace(/^cluster:/, '')) ?? null;
}

function freeSlug(entries: Entries, name: string): string {
  const words = name.toLowerCase().replace(/[^a-z0-9]+/g, '-');
  const base = words.slice(0, MAX_SLUG).replace(/^-+|-+$/g, '') || 'cluster';
  for (let n = 1; ; n += 1) {
    const slug = n === 1 ? base : `${base}-${n}`;
    if (!entries.has(slug)) return slug;
  }
}

/** Strict: a flag that was lost to a typing error would send tokens in the clear, or share what is not to be shared. */
function parseEntries(json: unknown): Entries {
  const list = typeof json === 'object' && json !== null && 'clusters' in json ? json.clusters : null;
  if (!Array.isArray(list)) throw new Error('it has no list "clusters"');
  if (list.length > MAX_CLUSTERS) throw new Error(`it has more than ${MAX_CLUSTERS} clusters`);
  const entries = list.map((item: unknown, index) => parseEntry(item, `cluster ${index + 1} of the list`));
  const unique = new Map(entries.map((entry) => [entry.slug, entry]));
  if (unique.size !== entries.length) throw new Error('two clusters have the same slug');
  return unique;
}

function parseEntry(json: unknown, where: string): Entry {
  if (typeof json !== 'object' || json === null) throw new Error(`${where} is no object`);
  const {
    slug,
    name,
    endpoint,
    accessKey,
    allowHttp = false,
    priority = 0,
    share = false,
  } = json as Partial<Record<keyof Entry, unknown>>;
  if (typeof slug !== 'string' || slug.length > MAX_SLUG + 3 || !SLUG.test(slug)) throw new Error(`${where}: slug`);
  if (typeof name !== 'string' || typeof accessKey !== 'string') throw new Error(`${where}: name or accessKey`);
  if (typeof allowHttp !== 'boolean' || typeof share !== 'boolean') throw new Error(`${where}: allowHttp or share`);
  if (typeof endpoint !== 'string' || typeof priority !== 'number') throw new Error(`${where}: endpoint or priority`);
  try {
    checkCluster({ name, endpoint, accessKey, priority });
    const url = parseClusterUrl(endpoint, { allowHttp });
    return { slug, name, endpoint: url.href.replace(/\/$/, ''), accessKey, allowHttp, priority, share };
  } catch (error) {
    // Not as it is: the file, not a command, is to be changed.
    throw new Error(`${where}: ${toMeshError(error).message}`);
  }
}
