/** FIRST's fixtures from a few words, and a gateway that holds their endpoints: real HTTP backends, or played ones. */
import type { Backend } from '../../node/backends/backend.ts';
import type { Gateway, GatewayHolder } from '../../node/backends/gateway.ts';
import { slugOf } from '../../node/routing/federated-gateway.ts';
import type { TargetState } from '../../node/routing/federated-order.ts';
import type {
  EndpointStates,
  FederatedEndpoint,
  FederatedTarget,
  FixtureCluster,
  FixtureEndpoint,
  FixtureSource,
  Fixtures,
} from '../../node/storage/fixtures/fixture-types.ts';
import { entryOf } from './sketched-candidate.ts';

export function fixtureCluster(name: string, more: Partial<FixtureCluster> = {}): FixtureCluster {
  return {
    pk: name,
    name,
    kind: 'globus',
    frameworks: ['vllm'],
    openaiEndpoints: ['chat/completions', 'completions', 'embeddings'],
    allowedGroups: [],
    allowedDomains: [],
    qstat: null,
    statusUrl: null,
    ...more,
  };
}

/** Its slug is `<cluster>-<model>`; the framework is vllm. */
export function fixtureEndpoint(cluster: string, model: string, more: Partial<FixtureEndpoint> = {}): FixtureEndpoint {
  const slug = `${cluster}-${model}`;
  return {
    pk: slug,
    slug,
    cluster,
    framework: 'vllm',
    model,
    kind: 'globus',
    tpmModel: 0,
    tpmUser: 0,
    allowedGroups: [],
    allowedDomains: [],
    ...more,
  };
}

export function targetOf(
  endpoint: FixtureEndpoint,
  allowedGroups: FederatedTarget['allowedGroups'] = [],
): FederatedTarget {
  const { cluster, framework, model, slug } = endpoint;
  return { cluster, framework, model, endpointSlug: slug, allowedGroups };
}

export function federatedEndpoint(targetModel: string, targets: readonly FederatedTarget[]): FederatedEndpoint {
  return {
    pk: targetModel,
    name: targetModel,
    slug: `federated-${targetModel}`,
    targetModel,
    description: '',
    targets,
  };
}

/** Fixtures and states that tests change. */
export class FirstParts implements FixtureSource, EndpointStates {
  readonly states = new Map<string, TargetState>();
  #fixtures: Fixtures;
  readonly #listeners = new Set<() => void>();

  constructor(fixtures: Partial<Fixtures>) {
    this.#fixtures = { clusters: [], endpoints: [], federated: [], ...fixtures };
  }

  current(): Fixtures {
    return this.#fixtures;
  }

  change(fixtures: Partial<Fixtures>): void {
    this.#fixtures = { ...this.#fixtures, ...fixtures };
    for (const listener of this.#listeners) listener();
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Running, unless a test says otherwise. */
  stateOf(slug: string): TargetState {
    return this.states.get(slug) ?? { state: 'running', freeNodes: null };
  }
}

/** One endpoint as its gateway holds it. The backend's id ends with the slug. */
export interface Held {
  readonly backend: Backend;
  readonly model: string;
  readonly more?: Partial<GatewayHolder>;
}

/** Holds what it is told to. */
export class HeldGateway implements Gateway {
  readonly held: Held[];
  readonly dropped: string[] = [];

  constructor(held: readonly Held[]) {
    this.held = [...held];
  }

  start(): void {}

  async stop(): Promise<void> {}

  holders(modelId: string): readonly GatewayHolder[] {
    return this.held
      .filter(({ model }) => model === modelId)
      .map(({ backend, model, more }) => ({
        backend,
        entry: { ...entryOf(), id: model },
        suspect: false,
        place: { priority: 0, boundary: 'private-cluster' },
        ...more,
      }));
  }

  models(): ReturnType<Gateway['models']> {
    return this.held.flatMap(({ model }) =>
      this.holders(model)
        .filter(({ backend }) => slugOf(backend.id) !== null)
        .map(({ backend, entry }) => ({ fingerprint: backend.id, entry })),
    );
  }

  list(): ReturnType<Gateway['list']> {
    return [];
  }

  drop(fingerprint: string, modelId: string): void {
    this.dropped.push(`${fingerprint} ${modelId}`);
  }

  onChange(): () => void {
    return () => {};
  }
}
