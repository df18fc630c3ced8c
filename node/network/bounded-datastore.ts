/**
 * The memory under libp2p's peer store and kad-dht, with a bound on everything that strangers can fill. kad-dht itself
 * would keep every provider record that any peer sends, for hours; the peer store every peer that anybody mentions.
 */
import { NotFoundError } from '@libp2p/interface';
import type { Libp2pInit } from 'libp2p';

/** The store that libp2p wants. */
export type Datastore = NonNullable<Libp2pInit['datastore']>;
type Key = Parameters<Datastore['get']>[0];
interface Pair {
  readonly key: Key;
  readonly value: Uint8Array;
}
type Query = Parameters<Datastore['query']>[0];
type KeyQuery = Parameters<Datastore['queryKeys']>[0];

export interface DatastoreLimits {
  /** Provider records of one peer. */
  readonly recordsPerPeer: number;
  /** Provider records of all peers; own ones do not count and are never dropped. */
  readonly records: number;
  /** Peers that the peer store remembers; the one written longest ago goes first. */
  readonly peers: number;
  /** Any other entries. */
  readonly others: number;
}

const DEFAULT_LIMITS: DatastoreLimits = { recordsPerPeer: 256, records: 10_000, peers: 4096, others: 1024 };

/** kad-dht's keys: `/dht/provider/<multihash>/<peer id>`. */
const PROVIDER_KEY = /^\/dht\/provider\/([^/]+)\/([^/]+)$/;
const PEERS_PREFIX = '/peers/';

/** A datastore in memory that drops (never refuses) what is beyond its bounds: the writer learns nothing from it. */
export class BoundedDatastore implements Datastore {
  readonly #self: string;
  readonly #limits: DatastoreLimits;
  readonly #peers = new Map<string, Pair>();
  readonly #others = new Map<string, Pair>();
  /** Multihash → provider → record. */
  readonly #records = new Map<string, Map<string, Pair>>();
  readonly #recordsOf = new Map<string, number>();
  #recordCount = 0;

  /** `self`: own fingerprint, whose provider records are exempt from the bounds. */
  constructor(self: string, limits: Partial<DatastoreLimits> = {}) {
    this.#self = self;
    this.#limits = { ...DEFAULT_LIMITS, ...limits };
  }

  /** Provider records of other peers that are held now. */
  get providerRecords(): number {
    return this.#recordCount;
  }

  put(key: Key, value: Uint8Array): Key {
    const name = key.toString();
    const record = PROVIDER_KEY.exec(name);
    if (record !== null) this.#putRecord(record[1] ?? '', record[2] ?? '', { key, value });
    else if (name.startsWith(PEERS_PREFIX)) putBounded(this.#peers, name, { key, value }, this.#limits.peers);
    else putBounded(this.#others, name, { key, value }, this.#limits.others);
    return key;
  }

  get(key: Key): Uint8Array {
    const pair = this.#find(key.toString());
    if (pair === undefined) throw new NotFoundError(`No entry ${key.toString()}`);
    return pair.value;
  }

  has(key: Key): boolean {
    return this.#find(key.toString()) !== undefined;
  }

  delete(key: Key): void {
    const name = key.toString();
    const record = PROVIDER_KEY.exec(name);
    if (record !== null) this.#deleteRecord(record[1] ?? '', record[2] ?? '');
    else if (!this.#peers.delete(name)) this.#others.delete(name);
  }

  async *putMany(source: Iterable<Pair> | AsyncIterable<Pair>): AsyncGenerator<Key> {
    for await (const { key, value } of source) yield this.put(key, value);
  }

  async *getMany(source: Iterable<Key> | AsyncIterable<Key>): AsyncGenerator<Pair> {
    for await (const key of source) yield { key, value: this.get(key) };
  }

  async *deleteMany(source: Iterable<Key> | AsyncIterable<Key>): AsyncGenerator<Key> {
    for await (const key of source) {
      this.delete(key);
      yield key;
    }
  }

  batch(): ReturnType<Datastore['batch']> {
    const steps: (() => void)[] = [];
    return {
      put: (key, value) => steps.push(() => this.put(key, value)),
      delete: (key) => steps.push(() => this.delete(key)),
      commit: () => {
        for (const step of steps.splice(0)) step();
      },
    };
  }

  *query(query: Query): Generator<Pair> {
    let pairs = this.#withPrefix(query.prefix ?? '/');
    for (const filter of query.filters ?? []) pairs = pairs.filter(filter);
    for (const order of query.orders ?? []) pairs = pairs.toSorted(order);
    const offset = query.offset ?? 0;
    yield* pairs.slice(offset, query.limit === undefined ? undefined : offset + query.limit);
  }

  *queryKeys(query: KeyQuery): Generator<Key> {
    let keys = this.#withPrefix(query.prefix ?? '/').map((pair) => pair.key);
    for (const filter of query.filters ?? []) keys = keys.filter(filter);
    for (const order of query.orders ?? []) keys = keys.toSorted(order);
    const offset = query.offset ?? 0;
    yield* keys.slice(offset, query.limit === undefined ? undefined : offset + query.limit);
  }

  #find(name: string): Pair | undefined {
    const record = PROVIDER_KEY.exec(name);
    if (record !== null) return this.#records.get(record[1] ?? '')?.get(record[2] ?? '');
    return this.#peers.get(name) ?? this.#others.get(name);
  }

  /** One model's records are found without a look at all the others. */
  #withPrefix(prefix: string): Pair[] {
    const model = /^\/dht\/provider\/([^/]+)$/.exec(prefix)?.[1];
    if (model !== undefined) return [...(this.#records.get(model)?.values() ?? [])];
    const all = [...this.#records.values()].flatMap((records) => [...records.values()]);
    return [...all, ...this.#peers.values(), ...this.#others.values()].filter(({ key }) =>
      key.toString().startsWith(prefix),
    );
  }

  #putRecord(model: string, provider: string, pair: Pair): void {
    const records = this.#records.get(model) ?? new Map<string, Pair>();
    const known = records.has(provider);
    const own = provider === this.#self;
    if (!known && !own) {
      const held = this.#recordsOf.get(provider) ?? 0;
      if (held >= this.#limits.recordsPerPeer || this.#recordCount >= this.#limits.records) return;
      this.#recordsOf.set(provider, held + 1);
      this.#recordCount += 1;
    }
    records.set(provider, pair);
    this.#records.set(model, records);
  }

  #deleteRecord(model: string, provider: string): void {
    const records = this.#records.get(model);
    if (records?.delete(provider) !== true) return;
    if (records.size === 0) this.#records.delete(model);
    if (provider === this.#self) return;
    this.#recordCount -= 1;
    const held = (this.#recordsOf.get(provider) ?? 1) - 1;
    if (held === 0) this.#recordsOf.delete(provider);
    else this.#recordsOf.set(provider, held);
  }
}

function putBounded(map: Map<string, Pair>, name: string, pair: Pair, limit: number): void {
  map.delete(name);
  map.set(name, pair);
  const oldest = map.size > limit ? map.keys().next().value : undefined;
  if (oldest !== undefined) map.delete(oldest);
}
