/** The part of the index that reaches beyond connected peers: provider records in the DHT, by model id. Only ever a hint. */
import { CID } from 'multiformats/cid';
import * as raw from 'multiformats/codecs/raw';
import { sha256 } from 'multiformats/hashes/sha2';
import { type Clock, deadline, sleep } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';
import type { Startable } from '../common/lifecycle.ts';
import type { Logger } from '../common/logger.ts';
import { dialableAddresses, withFingerprint } from './address.ts';
import type { FoundProvider } from './dht.ts';
import { ownSubnets } from './own-subnets.ts';
import type { PeerTable } from './peer-table.ts';
import type { Swarm } from './swarm.ts';

export interface ProviderRecordsComponents {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly swarm: Swarm;
  readonly table: PeerTable;
  /** Ids of the models that this node serves. */
  models(): readonly string[];
}

export interface ProviderRecordsOptions {
  /** Bound of one `find`, ms. Default 2000. */
  readonly findMs?: number;
}

const PROVIDE_TIMEOUT_MS = 20_000;
/** Joins come in bursts; own records are repeated once for all of them. */
const SETTLE_MS = 1000;
/** A record lives at the 20 nodes closest to it: in a mesh that small, every newcomer is one of them. */
const REPLICATION = 20;
/** Found providers that are dialled for one lookup. */
const MAX_DIALS = 8;

/** The DHT key of a model id: CIDv1 (raw, sha2-256) of `meshnode/model/1/<id>`. */
export async function modelCid(modelId: string): Promise<CID> {
  return CID.createV1(raw.code, await sha256.digest(new TextEncoder().encode(`meshnode/model/1/${modelId}`)));
}

/** Publishes own models in the background (kad-dht repeats the records), and looks for those of nodes that this one is not connected to. */
export class ProviderRecords implements Startable {
  readonly #components: ProviderRecordsComponents;
  readonly #findMs: number;
  readonly #provided = new Set<string>();
  readonly #finding = new Map<string, Promise<readonly string[]>>();
  readonly #unsubscribe: (() => void)[] = [];
  readonly #stopped = new AbortController();
  #cancelPlanned: (() => void) | null = null;
  #publishing: Promise<void> = Promise.resolve();
  #tableWasEmpty = true;

  constructor(components: ProviderRecordsComponents, options: ProviderRecordsOptions = {}) {
    this.#components = components;
    this.#findMs = options.findMs ?? 2000;
  }

  start(): void {
    if (this.#unsubscribe.length > 0) return;
    const { clock, swarm, table } = this.#components;
    this.#unsubscribe.push(
      clock.every(SETTLE_MS, () => {
        const empty = swarm.dht.routingTableSize() === 0;
        if (this.#tableWasEmpty && !empty) this.#plan();
        this.#tableWasEmpty = empty;
      }),
      table.onChange(({ kind }) => {
        if (kind === 'up' && swarm.connected().length <= REPLICATION) this.#plan();
      }),
    );
    this.#plan();
  }

  async stop(): Promise<void> {
    this.#stopped.abort(new MeshError('draining', 'This node is stopping.'));
    for (const unsubscribe of this.#unsubscribe.splice(0)) unsubscribe();
    this.#cancelPlanned?.();
    await this.#publishing;
  }

  /** The list of own models changed: records are made and cancelled in the background. */
  changed(): void {
    this.#plan();
  }

  /**
   * Asks the DHT who has a model, connects to those, and waits until one of them says so itself in its own catalog.
   *
   * @returns fingerprints of peers that confirmed; empty when nobody did within the bound. Rejects never, not even when
   * `signal` aborts.
   */
  find(modelId: string, signal: AbortSignal): Promise<readonly string[]> {
    const running = this.#finding.get(modelId);
    const found = running ?? this.#find(modelId).finally(() => this.#finding.delete(modelId));
    if (running === undefined) this.#finding.set(modelId, found);
    return new Promise((resolve) => {
      const giveUp = (): void => resolve([]);
      if (signal.aborted) giveUp();
      signal.addEventListener('abort', giveUp, { once: true });
      void found.then((peers) => {
        signal.removeEventListener('abort', giveUp);
        resolve(peers);
      });
    });
  }

  async #find(modelId: string): Promise<readonly string[]> {
    const { clock, logger, swarm } = this.#components;
    if (swarm.dht.routingTableSize() === 0) return [];
    const enough = new MeshError('model_not_available', 'The lookup is over.');
    using bound = deadline(clock, this.#findMs, () => enough, this.#stopped.signal);
    const confirmed = this.#confirmation(modelId, bound.signal);
    const attempts: Promise<void>[] = [];
    const lookup = async (): Promise<void> => {
      try {
        for await (const provider of swarm.dht.providers(await modelCid(modelId), bound.signal)) {
          if (attempts.length >= MAX_DIALS) continue;
          const attempt = this.#connect(provider, bound.signal);
          // It may fail while the lookup still yields, before anybody waits for it.
          attempt.catch(() => {});
          attempts.push(attempt);
        }
      } catch (error) {
        if (!bound.signal.aborted) logger.debug({ modelId, error }, 'a lookup in the DHT failed');
      }
      // Nobody left who could still confirm.
      const connected =
        attempts.length > 0 && (await Promise.allSettled(attempts)).some(({ status }) => status === 'fulfilled');
      if (connected) await confirmed.catch(() => {});
    };
    const looking = lookup();
    await Promise.race([confirmed.catch(() => {}), looking]);
    return this.#holders(modelId);
  }

  /** Resolves when any peer's own catalog lists the model; rejects when the signal aborts. */
  #confirmation(modelId: string, signal: AbortSignal): Promise<void> {
    const { table } = this.#components;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const unsubscribe = table.onChange(({ peer }) => {
      if (peer.models.some((model) => model.id === modelId)) resolve();
    });
    const onAbort = (): void => reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    const cleanUp = (): void => {
      unsubscribe();
      signal.removeEventListener('abort', onAbort);
    };
    promise.then(cleanUp, cleanUp);
    if (this.#holders(modelId).length > 0) resolve();
    return promise;
  }

  #holders(modelId: string): string[] {
    return this.#components.table
      .list()
      .filter(({ status, models }) => status === 'online' && models.some((model) => model.id === modelId))
      .map(({ fingerprint }) => fingerprint);
  }

  async #connect({ fingerprint, addresses }: FoundProvider, signal: AbortSignal): Promise<void> {
    const { logger, swarm } = this.#components;
    if (swarm.isConnected(fingerprint)) return;
    const dialable = dialableAddresses(addresses, ownSubnets()).map((text) => withFingerprint(text, fingerprint));
    try {
      await swarm.dial(dialable.length > 0 ? dialable : fingerprint, signal);
    } catch (error) {
      logger.debug({ peer: fingerprint, error }, 'a provider from the DHT cannot be reached');
      throw error;
    }
  }

  #plan(): void {
    if (this.#stopped.signal.aborted) return;
    this.#cancelPlanned?.();
    this.#cancelPlanned = this.#components.clock.after(SETTLE_MS, () => {
      this.#cancelPlanned = null;
      this.#publishing = this.#publishing.then(() => this.#publish());
    });
  }

  /** Never rejects. */
  async #publish(): Promise<void> {
    const { clock, logger, models, swarm } = this.#components;
    const wanted = new Set(models());
    for (const modelId of [...this.#provided]) {
      if (wanted.has(modelId)) continue;
      this.#provided.delete(modelId);
      await this.#bounded(async (signal) => swarm.dht.cancel(await modelCid(modelId), signal));
    }
    if (swarm.dht.routingTableSize() === 0) return;
    for (const modelId of wanted) {
      if (this.#stopped.signal.aborted) return;
      this.#provided.add(modelId);
      await this.#bounded(async (signal) => swarm.dht.provide(await modelCid(modelId), signal));
      // Each record asks some peers; a node with many models spreads them out.
      await sleep(clock, 20, this.#stopped.signal).catch(() => {});
    }
    logger.debug({ models: wanted.size }, 'provider records are out');
  }

  async #bounded(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const { clock, logger } = this.#components;
    const late = new MeshError('peer_unreachable', 'The DHT did not answer in time.');
    using bound = deadline(clock, PROVIDE_TIMEOUT_MS, () => late, this.#stopped.signal);
    await work(bound.signal).catch((error: unknown) => {
      if (!this.#stopped.signal.aborted) logger.debug({ error }, 'a provider record was not made');
    });
  }
}
