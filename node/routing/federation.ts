/** The fixtures as they count now: who may use which endpoint, what is under maintenance, and which limits are reached. */
import type { Clock } from '../common/clock.ts';
import type {
  EndpointStates,
  FederatedEndpoint,
  FixtureCluster,
  FixtureEndpoint,
  FixtureSource,
  Fixtures,
} from '../storage/fixtures/fixture-types.ts';
import { type FederatedRules, mayUse, type RankedTarget, rankTargets, type TargetState } from './federated-order.ts';
import { FederatedUsage } from './federated-usage.ts';

export interface FederationComponents {
  readonly fixtures: FixtureSource;
  readonly states: EndpointStates;
  readonly clock: Clock;
}

export interface FederationOptions {
  /** Groups in which every caller of this node counts as being; null: callers are not asked for groups. */
  readonly groups: readonly string[] | null;
  readonly preferFreeOverQueued: boolean;
  /** Clusters that take no requests now. */
  readonly maintenance: readonly string[];
  /** Of one caller, below `/resource_server`; 0: no limit. */
  readonly requestsPerSecond: number;
}

export const DEFAULT_FEDERATION: FederationOptions = {
  groups: null,
  preferFreeOverQueued: false,
  maintenance: [],
  requestsPerSecond: 10,
};

/** No model id of the mesh begins so: what follows names one endpoint. */
const PIN = '@';

/** Looked up by what requests name; made once for each state of the fixtures. */
interface Lookup {
  readonly fixtures: Fixtures;
  readonly clusters: ReadonlyMap<string, FixtureCluster>;
  readonly endpoints: ReadonlyMap<string, FixtureEndpoint>;
  readonly bySlug: ReadonlyMap<string, FixtureEndpoint>;
  readonly federated: ReadonlyMap<string, FederatedEndpoint>;
}

export class Federation {
  readonly usage: FederatedUsage;
  readonly #components: FederationComponents;
  readonly #options: FederationOptions;
  #lookup: Lookup | null = null;

  constructor(components: FederationComponents, options: FederationOptions = DEFAULT_FEDERATION) {
    this.#components = components;
    this.#options = options;
    this.usage = new FederatedUsage(components);
  }

  /** Called when the fixtures change; returns the unsubscribe. */
  onChange(listener: () => void): () => void {
    return this.#components.fixtures.onChange(listener);
  }

  /** Groups of every caller; null: nobody is asked. */
  get groups(): readonly string[] | null {
    return this.#options.groups;
  }

  /** Of one caller, below `/resource_server`; 0: no limit. */
  get requestsPerSecond(): number {
    return this.#options.requestsPerSecond;
  }

  /** In the order of the fixtures, those too that this node's callers may not use. */
  clusters(): readonly FixtureCluster[] {
    return this.#now().fixtures.clusters;
  }

  endpoints(): readonly FixtureEndpoint[] {
    return this.#now().fixtures.endpoints;
  }

  federatedEndpoints(): readonly FederatedEndpoint[] {
    return this.#now().fixtures.federated;
  }

  cluster(name: string): FixtureCluster | null {
    return this.#now().clusters.get(name) ?? null;
  }

  endpoint(cluster: string, framework: string, model: string): FixtureEndpoint | null {
    return this.#now().endpoints.get(pinOf({ cluster, framework, model })) ?? null;
  }

  endpointOfSlug(slug: string): FixtureEndpoint | null {
    return this.#now().bySlug.get(slug) ?? null;
  }

  /** The endpoint that a model id of `pinOf` names; null for any other id. */
  pinned(modelId: string): FixtureEndpoint | null {
    return modelId.startsWith(PIN) ? (this.#now().endpoints.get(modelId) ?? null) : null;
  }

  federated(modelId: string): FederatedEndpoint | null {
    return this.#now().federated.get(modelId) ?? null;
  }

  isUnderMaintenance(cluster: string): boolean {
    return this.#options.maintenance.includes(cluster);
  }

  stateOf(slug: string): TargetState {
    return this.#components.states.stateOf(slug);
  }

  /** May callers of this node use the cluster? */
  mayUseCluster({ allowedGroups }: FixtureCluster): boolean {
    return mayUse(allowedGroups, this.groups);
  }

  /** May callers of this node use the endpoint, and so its cluster? */
  mayUseEndpoint({ cluster, allowedGroups }: FixtureEndpoint): boolean {
    const home = this.cluster(cluster);
    return mayUse(allowedGroups, this.groups) && (home === null || this.mayUseCluster(home));
  }

  /** The targets that are loaded and that callers of this node may use. */
  ranked(federated: FederatedEndpoint): readonly (RankedTarget & { readonly endpoint: FixtureEndpoint })[] {
    const { groups, preferFreeOverQueued } = this.#options;
    const rules: FederatedRules = {
      stateOf: ({ endpointSlug }) => this.stateOf(endpointSlug),
      groups,
      preferFreeOverQueued,
    };
    return rankTargets(federated.targets, rules).flatMap((ranked) => {
      const endpoint = this.endpointOfSlug(ranked.target.endpointSlug);
      return endpoint === null || !this.mayUseEndpoint(endpoint) ? [] : [{ ...ranked, endpoint }];
    });
  }

  #now(): Lookup {
    const fixtures = this.#components.fixtures.current();
    if (this.#lookup?.fixtures !== fixtures) this.#lookup = lookupOf(fixtures);
    return this.#lookup;
  }
}

/** The model id under which exactly one endpoint answers. */
export function pinOf({ cluster, framework, model }: Pick<FixtureEndpoint, 'cluster' | 'framework' | 'model'>): string {
  return `${PIN}${cluster}/${framework}/${model}`;
}

function lookupOf(fixtures: Fixtures): Lookup {
  return {
    fixtures,
    clusters: new Map(fixtures.clusters.map((cluster) => [cluster.name, cluster])),
    endpoints: new Map(fixtures.endpoints.map((endpoint) => [pinOf(endpoint), endpoint])),
    bySlug: new Map(fixtures.endpoints.map((endpoint) => [endpoint.slug, endpoint])),
    federated: new Map(fixtures.federated.map((federated) => [federated.targetModel, federated])),
  };
}
