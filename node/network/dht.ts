/** Provider records of the DHT: who says that it provides something. Hints, never proved, never a list of all. */
import type { CID } from 'multiformats/cid';
import { abortable } from '../common/clock.ts';
import type { Stack } from './libp2p-stack.ts';

/** Where a peer that provides something says it can be reached. */
export interface FoundProvider {
  readonly fingerprint: string;
  readonly addresses: readonly string[];
}

export interface DhtComponents {
  /** Null while stopped, and always when this node has no DHT. */
  stack(): Stack | null;
}

/** The calls into kad-dht; without one nothing is published and nothing found. */
export class Dht {
  readonly #stack: () => Stack | null;
  readonly #self: string;

  constructor(components: DhtComponents, options: { readonly self: string }) {
    this.#stack = () => components.stack();
    this.#self = options.self;
  }

  /** Peers in the routing table; 0 without DHT or while alone. */
  routingTableSize(): number {
    return this.#stack()?.routingTableSize() ?? 0;
  }

  /** Provider records that this node holds for others. */
  heldRecords(): number {
    return this.#stack()?.datastore.providerRecords ?? 0;
  }

  /** Tells the closest peers that this node provides `cid`; kad-dht repeats it until `cancel`. */
  async provide(cid: CID, signal: AbortSignal): Promise<void> {
    const stack = this.#stack();
    if (stack !== null) await abortable(stack.libp2p.contentRouting.provide(cid, { signal }), signal);
  }

  /** Ends the repetition. Records that are out live on until they expire. */
  async cancel(cid: CID, signal: AbortSignal): Promise<void> {
    const stack = this.#stack();
    if (stack !== null) await abortable(stack.libp2p.contentRouting.cancelReprovide(cid, { signal }), signal);
  }

  /** Other nodes that provide `cid`, as they are found. Throws what the lookup throws, also when the signal aborts. */
  async *providers(cid: CID, signal: AbortSignal): AsyncGenerator<FoundProvider> {
    const stack = this.#stack();
    if (stack === null) return;
    for await (const { id, multiaddrs } of stack.libp2p.contentRouting.findProviders(cid, { signal })) {
      const fingerprint = id.toString();
      if (fingerprint === this.#self) continue;
      yield { fingerprint, addresses: multiaddrs.map((address) => address.toString()) };
    }
  }
}
