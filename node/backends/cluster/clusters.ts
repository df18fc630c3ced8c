/** The registered clusters of this node: follows the registry, so that they come, go and change while it runs. */
import type { Clock } from '../../common/clock.ts';
import type { Logger } from '../../common/logger.ts';
import type { ClusterRecord, ClusterRegistry } from '../../storage/cluster-registry.ts';
import type { Gateway, GatewayHolder, GatewayView } from '../gateway.ts';
import { Cluster, type ClusterView } from './cluster.ts';

export interface ClustersComponents {
  readonly registry: Pick<ClusterRegistry, 'list' | 'secretOf' | 'onChange' | 'start' | 'stop'>;
  readonly clock: Clock;
  /** Unix milliseconds. Default: the clock of the system. */
  readonly now?: () => number;
  readonly logger: Logger;
}

export interface ClustersOptions {
  /** Between two questions for the services of a cluster, milliseconds. Default 30,000. */
  readonly pollMs?: number;
}

interface Member {
  readonly cluster: Cluster;
  /** What it was built from; never shown. */
  readonly record: ClusterRecord;
  readonly secret: string | null;
}

export class Clusters implements Gateway {
  readonly #components: ClustersComponents;
  readonly #options: ClustersOptions;
  readonly #members = new Map<string, Member>();
  /** Removed or replaced: their requests may still run. */
  readonly #retired = new Set<Cluster>();
  readonly #listeners = new Set<() => void>();
  #unsubscribe: (() => void) | null = null;

  constructor(components: ClustersComponents, options: ClustersOptions = {}) {
    this.#components = components;
    this.#options = options;
  }

  /** The store of keys must have been started. Waits for no cluster. */
  async start(): Promise<void> {
    if (this.#unsubscribe !== null) return;
    const { registry } = this.#components;
    this.#unsubscribe = registry.onChange(() => this.#follow());
    await registry.start();
    this.#follow();
  }

  async stop(): Promise<void> {
    this.#unsubscribe?.();
    this.#unsubscribe = null;
    const clusters = [...this.#retired, ...[...this.#members.values()].map(({ cluster }) => cluster)];
    this.#members.clear();
    this.#retired.clear();
    await Promise.allSettled(clusters.map((cluster) => cluster.stop()));
    await this.#components.registry.stop();
  }

  holders(modelId: string): readonly GatewayHolder[] {
    return this.#clusters().flatMap((cluster) => cluster.holders(modelId));
  }

  models(): ReturnType<Gateway['models']> {
    return this.#clusters().flatMap((cluster) => cluster.models());
  }

  list(): readonly GatewayView[] {
    return this.#clusters().flatMap((cluster) => cluster.list());
  }

  /** As their owner sees them. */
  views(): readonly ClusterView[] {
    return this.#clusters().map((cluster) => cluster.view());
  }

  /** By slug; null when it is not registered, or not taken over yet. Its client signs for it. */
  cluster(slug: string): Cluster | null {
    return this.#members.get(slug)?.cluster ?? null;
  }

  drop(fingerprint: string, modelId: string): void {
    for (const cluster of this.#clusters()) cluster.drop(fingerprint, modelId);
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #clusters(): readonly Cluster[] {
    return [...this.#members.values()].map(({ cluster }) => cluster);
  }

  #follow(): void {
    const { registry } = this.#components;
    const wanted = new Map(registry.list().map((record) => [record.slug, record]));
    for (const [slug, member] of this.#members) {
      const record = wanted.get(slug);
      if (record !== undefined && isSame(record, member.record) && registry.secretOf(slug) === member.secret) continue;
      member.cluster.retire();
      this.#retired.add(member.cluster);
      this.#members.delete(slug);
    }
    for (const record of wanted.values()) if (!this.#members.has(record.slug)) this.#begin(record);
    this.#changed();
  }

  #begin(record: ClusterRecord): void {
    const { registry, clock, now, logger } = this.#components;
    const secret = registry.secretOf(record.slug);
    const cluster = new Cluster(
      { clock, ...(now && { now }), logger, secretKey: () => secret, onChange: () => this.#changed() },
      { record, ...this.#options },
    );
    this.#members.set(record.slug, { cluster, record, secret });
    cluster.start();
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }
}

const isSame = (a: ClusterRecord, b: ClusterRecord): boolean => JSON.stringify(a) === JSON.stringify(b);
