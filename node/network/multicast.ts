/** mDNS as a part of libp2p's life, but heard by us alone: what it finds is not merged into the peer store unchecked. */

import type { MulticastDNSComponents } from '@libp2p/mdns';
import { mdns } from '@libp2p/mdns';

/** Heard in one mDNS answer; nothing of it is proved. */
export interface HeardPeer {
  readonly fingerprint: string;
  readonly addresses: readonly string[];
}

export interface MulticastOptions {
  /** Time between queries. */
  readonly intervalMs: number;
}

const SERVICE_TAG = '_meshnode._udp.local';

/** A libp2p service that asks and answers on the LAN, under our own tag. */
export class Multicast {
  readonly #components: MulticastDNSComponents;
  readonly #options: MulticastOptions;
  readonly #listeners = new Set<(heard: HeardPeer) => void>();
  #running: MulticastComponent | null = null;

  constructor(components: MulticastDNSComponents, options: MulticastOptions) {
    this.#components = components;
    this.#options = options;
  }

  /** Calls `listener` at every answer heard, also repeated ones; returns the unsubscribe. */
  onHeard(listener: (heard: HeardPeer) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async start(): Promise<void> {
    if (this.#running !== null) return;
    const component = mdns({ serviceTag: SERVICE_TAG, interval: this.#options.intervalMs })(
      this.#components,
    ) as MulticastComponent;
    component.addEventListener('peer', ({ detail }) => {
      const heard = {
        fingerprint: detail.id.toString(),
        addresses: detail.multiaddrs.map((address) => address.toString()),
      };
      for (const listener of this.#listeners) listener(heard);
    });
    this.#running = component;
    await component.start();
  }

  async stop(): Promise<void> {
    const running = this.#running;
    this.#running = null;
    await running?.stop();
  }

  /** A fresh membership in the multicast group: the old one is void once an interface went away and came back. */
  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }
}

type MulticastComponent = ReturnType<ReturnType<typeof mdns>> & { start(): Promise<void>; stop(): Promise<void> };
