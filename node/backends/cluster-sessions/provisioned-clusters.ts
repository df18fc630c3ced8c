/** The registered clusters, and beside what they run now the models that they start when somebody asks for them. */
import type { CatalogEntry } from '../../../protocols/catalog/catalog.ts';
import type { CancelTimer, Clock } from '../../common/clock.ts';
import type { Logger } from '../../common/logger.ts';
import type { Clusters } from '../cluster/clusters.ts';
import type { Gateway, GatewayHolder, GatewayView } from '../gateway.ts';
import { Provision } from './provision.ts';
import { ProvisionBackend } from './provision-backend.ts';
import type { ProvisionRule } from './provision-rule.ts';
import type { ProvisionRules } from './provision-rules.ts';
import type { ProvisionedCluster, ServiceScaleOptions } from './service-scale.ts';

export interface ProvisionedClustersComponents {
  readonly clusters: Gateway & Pick<Clusters, 'cluster'>;
  readonly rules: Pick<ProvisionRules, 'list' | 'onChange' | 'start' | 'stop'>;
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface ProvisionedClustersOptions extends Partial<ServiceScaleOptions> {
  /** Between two looks for idle services, milliseconds. Default 10,000. */
  readonly idleLookMs?: number;
}

interface Member {
  readonly provision: Provision;
  readonly backend: ProvisionBackend;
  readonly fingerprint: string;
}

const IDLE_LOOK_MS = 10_000;
/** As of any HTTP server: nobody says how many it runs at once. */
const ASSUMED_SLOTS = 4;

export class ProvisionedClusters implements Gateway {
  readonly #components: ProvisionedClustersComponents;
  readonly #options: ProvisionedClustersOptions;
  /** By what its rule says. */
  readonly #members = new Map<string, Member>();
  readonly #retired = new Set<Provision>();
  readonly #listeners = new Set<() => void>();
  #offs: readonly (() => void)[] = [];
  #cancel: CancelTimer = () => {};

  constructor(components: ProvisionedClustersComponents, options: ProvisionedClustersOptions = {}) {
    this.#components = components;
    this.#options = options;
  }

  /** What its clusters and its rules need. */
  async start(): Promise<void> {
    if (this.#offs.length > 0) return;
    const { clusters, rules, clock } = this.#components;
    this.#offs = [rules.onChange(() => this.#follow()), clusters.onChange(() => this.#changed())];
    await rules.start();
    await clusters.start();
    this.#follow();
    this.#cancel = clock.every(this.#options.idleLookMs ?? IDLE_LOOK_MS, () => {
      for (const { provision } of this.#members.values()) void provision.parkIfIdle();
    });
  }

  async stop(signal: AbortSignal): Promise<void> {
    this.#cancel();
    for (const off of this.#offs) off();
    this.#offs = [];
    const provisions = [...this.#retired, ...[...this.#members.values()].map(({ provision }) => provision)];
    this.#members.clear();
    this.#retired.clear();
    await Promise.allSettled(provisions.map((provision) => provision.stop()));
    await this.#components.rules.stop();
    await this.#components.clusters.stop(signal);
  }

  holders(modelId: string): readonly GatewayHolder[] {
    const found = this.#components.clusters.holders(modelId);
    const mine = [...this.#members.values()].filter(({ provision }) => provision.rule.model === modelId);
    if (mine.length === 0) return found;
    const others = found.filter(({ backend }) => !mine.some(({ fingerprint }) => fingerprint === backend.id));
    return [...others, ...mine.flatMap((member) => this.#holder(member, found))];
  }

  models(): ReturnType<Gateway['models']> {
    const found = this.#components.clusters.models();
    const cold = [...this.#members.values()].flatMap(({ fingerprint, provision: { rule } }) => {
      const place = this.#placeOf(rule);
      const isThere = found.some((each) => each.fingerprint === fingerprint && each.entry.id === rule.model);
      return isThere || place === null ? [] : [{ fingerprint, entry: entryOf(rule), shared: place.shared }];
    });
    return [...found, ...cold];
  }

  list(): readonly GatewayView[] {
    const found = this.#components.clusters.list();
    const there = new Set(found.map(({ fingerprint }) => fingerprint));
    const cold = [...this.#members.values()].filter(({ fingerprint }) => !there.has(fingerprint));
    return [...found, ...cold.flatMap((member) => this.#view(member))];
  }

  drop(fingerprint: string, modelId: string): void {
    this.#components.clusters.drop(fingerprint, modelId);
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #holder({ provision, backend, fingerprint }: Member, found: readonly GatewayHolder[]): readonly GatewayHolder[] {
    const live = found.find((holder) => holder.backend.id === fingerprint);
    if (live !== undefined && !provision.isParking) return [{ ...live, backend }];
    const place = this.#placeOf(provision.rule);
    return place === null ? [] : [{ backend, entry: entryOf(provision.rule), suspect: true, ...place }];
  }

  #placeOf({ cluster }: ProvisionRule): (Required<Pick<GatewayHolder, 'place' | 'shared'>> & { name: string }) | null {
    const record = this.#components.clusters.cluster(cluster)?.record;
    if (record === undefined) return null;
    const { name, priority, share: shared } = record;
    return { name, place: { priority, boundary: 'private-cluster' }, shared };
  }

  #view({ provision, fingerprint }: Member): readonly GatewayView[] {
    const { rule, problem, isStarting } = provision;
    const record = this.#components.clusters.cluster(rule.cluster)?.record;
    const at = this.#placeOf(rule);
    if (record === undefined || at === null) return [];
    const status = isStarting ? 'busy' : problem === null ? 'online' : 'suspect';
    const name = `${record.name}/${rule.service}`;
    const common = { kind: 'cluster', url: record.endpoint, latencyMs: null, place: at.place } as const;
    return [{ ...common, fingerprint, name, status, models: [entryOf(rule)], problem }];
  }

  #follow(): void {
    const wanted = new Map(this.#components.rules.list().map((rule) => [JSON.stringify(rule), rule]));
    for (const [key, { provision }] of this.#members) {
      if (wanted.has(key)) continue;
      this.#members.delete(key);
      this.#retired.add(provision);
      void provision.stop().finally(() => this.#retired.delete(provision));
    }
    for (const [key, rule] of wanted) if (!this.#members.has(key)) this.#members.set(key, this.#member(rule));
    this.#changed();
  }

  #member(rule: ProvisionRule): Member {
    const { clusters, clock, logger } = this.#components;
    const fingerprint = `cluster:${rule.cluster}/${rule.service}`;
    const service = () => clusters.holders(rule.model).find(({ backend }) => backend.id === fingerprint) ?? null;
    const cluster = (): ProvisionedCluster | null => {
      const found = clusters.cluster(rule.cluster);
      return found && { name: found.record.name, manager: found.client, look: () => found.look() };
    };
    const { idleLookMs: _, ...scale } = this.#options;
    const provision = new Provision(
      {
        ...{ clock, logger, cluster, isLive: () => service() !== null },
        othersRunning: () => this.#running(rule),
        onChange: () => this.#changed(),
      },
      { ...scale, rule },
    );
    const live = () => (provision.isParking ? null : (service()?.backend ?? null));
    return { provision, fingerprint, backend: new ProvisionBackend({ clock, provision, live }, { id: fingerprint }) };
  }

  /**
   * Services of other rules of the same cluster that run, or whose start began before this one's: of two that start at once
   * one would not keep the other from it and be kept from it too.
   */
  #running(rule: ProvisionRule): readonly string[] {
    const own = this.#members.get(JSON.stringify(rule))?.provision.startingSince ?? Number.POSITIVE_INFINITY;
    const isBefore = ({ rule: { service }, startingSince: since }: Provision): boolean =>
      since !== null && (since < own || (since === own && service < rule.service));
    const live = new Set(this.#components.clusters.models().map(({ fingerprint }) => fingerprint));
    const others = [...this.#members.values()].filter(
      ({ provision: { rule: other } }) => other.cluster === rule.cluster && other.service !== rule.service,
    );
    const running = others.filter(({ provision, fingerprint }) => isBefore(provision) || live.has(fingerprint));
    return running.map(({ provision }) => provision.rule.service);
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }
}

/** What it will be is known when it runs. */
function entryOf({ model }: ProvisionRule): CatalogEntry {
  return {
    id: model,
    digest: null,
    quantization: null,
    contextLength: 0,
    sizeBytes: 0,
    state: 'on-disk',
    slots: ASSUMED_SLOTS,
    tokensPerSecond: null,
  };
}
