/** All gateways as one, in which federated models are models like any other, and fixtures' rules hold for their endpoints. */
import type { CatalogEntry } from '../../protocols/catalog/catalog.ts';
import type { InferenceRequest } from '../../protocols/inference/events.ts';
import type { Gateway, GatewayHolder, GatewayView } from '../backends/gateway.ts';
import type { FixtureEndpoint } from '../storage/fixtures/fixture-types.ts';
import { FederatedBackend } from './federated-backend.ts';
import { type FederatedRank, LAST_RANK } from './federated-order.ts';
import type { Federation } from './federation.ts';

export interface FederatedGatewayComponents {
  /** Those that hold the endpoints, and any others. */
  readonly gateways: Gateway;
  readonly federation: Federation;
}

export class FederatedGateway implements Gateway {
  readonly federation: Federation;
  readonly #gateways: Gateway;

  constructor({ gateways, federation }: FederatedGatewayComponents) {
    this.#gateways = gateways;
    this.federation = federation;
  }

  async start(): Promise<void> {
    await this.#gateways.start();
  }

  async stop(signal: AbortSignal): Promise<void> {
    await this.#gateways.stop(signal);
  }

  /**
   * For a federated model its targets with their ranks; for a pinned id that endpoint alone; else who has the model.
   * Endpoints that callers may not use, or whose cluster is under maintenance, are never there.
   */
  holders(modelId: string): readonly GatewayHolder[] {
    const pinned = this.federation.pinned(modelId);
    if (pinned !== null) return this.#ofEndpoint(pinned, { modelId, rank: null });
    const federated = this.federation.federated(modelId);
    const direct = this.#gateways.holders(modelId);
    if (federated === null) return direct.flatMap((holder) => this.#ruled(holder));
    const targets = new Map<string, GatewayHolder>();
    for (const { endpoint, rank } of this.federation.ranked(federated)) {
      for (const holder of this.#ofEndpoint(endpoint, { modelId, rank })) {
        if (!targets.has(holder.backend.id)) targets.set(holder.backend.id, holder);
      }
    }
    // Of endpoints the fixture's list is the whole list; its groups would mean nothing otherwise.
    return [...targets.values(), ...direct.filter(({ backend }) => this.#endpointOf(backend.id) === null)];
  }

  models(): readonly { readonly fingerprint: string; readonly entry: CatalogEntry; readonly shared?: boolean }[] {
    const direct = this.#gateways.models().filter(({ fingerprint, entry }) => {
      const endpoint = this.#endpointOf(fingerprint);
      return endpoint === null || (this.federation.federated(entry.id) === null && this.#isOpen(endpoint));
    });
    const federated = this.federation.federatedEndpoints().flatMap(({ targetModel }) =>
      this.holders(targetModel)
        .filter(({ backend }) => this.#endpointOf(backend.id) !== null)
        .map(({ backend, entry, shared }) => {
          const model = { fingerprint: backend.id, entry };
          return shared === undefined ? model : { ...model, shared };
        }),
    );
    return [...direct, ...federated];
  }

  list(): readonly GatewayView[] {
    return this.#gateways.list();
  }

  /** `modelId` may be a federated model or a pinned id: the endpoint's own model is dropped. */
  drop(fingerprint: string, modelId: string): void {
    this.#gateways.drop(fingerprint, this.#endpointOf(fingerprint)?.model ?? modelId);
  }

  onChange(listener: () => void): () => void {
    const offs = [this.#gateways.onChange(listener), this.federation.onChange(listener)];
    return () => {
      for (const off of offs) off();
    };
  }

  #ofEndpoint(
    endpoint: FixtureEndpoint,
    { modelId, rank }: { readonly modelId: string; readonly rank: FederatedRank | null },
  ): GatewayHolder[] {
    if (!this.#isOpen(endpoint)) return [];
    const holder = this.#gateways.holders(endpoint.model).find(({ backend }) => slugOf(backend.id) === endpoint.slug);
    return holder === undefined ? [] : [this.#target(holder, endpoint, { modelId, rank })];
  }

  /** A holder that was found by its own model: under the rules of its endpoint, if it is one. */
  #ruled(holder: GatewayHolder): GatewayHolder[] {
    const endpoint = this.#endpointOf(holder.backend.id);
    if (endpoint === null) return [holder];
    return this.#isOpen(endpoint) ? [this.#target(holder, endpoint, { modelId: endpoint.model, rank: null })] : [];
  }

  #target(
    holder: GatewayHolder,
    endpoint: FixtureEndpoint,
    { modelId, rank }: { readonly modelId: string; readonly rank: FederatedRank | null },
  ): GatewayHolder {
    const { continuesText, entry, suspect, backend: inner, ...rest } = holder;
    const backend = new FederatedBackend({ backend: inner, usage: this.federation.usage }, endpoint);
    const target: GatewayHolder = { ...rest, backend, suspect, entry: { ...entry, id: modelId } };
    const continuing =
      continuesText === undefined
        ? target
        : { ...target, continuesText: (request: InferenceRequest): boolean => continuesText(backend.own(request)) };
    return rank === null ? continuing : { ...continuing, rank, ...classOf(rank, continuing) };
  }

  #isOpen(endpoint: FixtureEndpoint): boolean {
    return this.federation.mayUseEndpoint(endpoint) && !this.federation.isUnderMaintenance(endpoint.cluster);
  }

  #endpointOf(fingerprint: string): FixtureEndpoint | null {
    const slug = slugOf(fingerprint);
    return slug === null ? null : this.federation.endpointOfSlug(slug);
  }
}

/** What the rank says of a target takes the place of what its gateway thinks: cold is no reason to be suspected twice. */
function classOf(rank: FederatedRank, { entry, suspect }: GatewayHolder): Pick<GatewayHolder, 'entry' | 'suspect'> {
  if (rank === 0) return { entry: { ...entry, state: 'resident' }, suspect };
  return { entry: { ...entry, state: 'on-disk' }, suspect: rank === LAST_RANK };
}

/** What the fingerprints of fixtures' endpoints begin with. */
const OF_FIXTURES = /^(?:globus|direct):/;

/** The slug in the fingerprint of a fixture's endpoint, `globus:<slug>` or `direct:<slug>`; null for all others. */
export function slugOf(fingerprint: string): string | null {
  return OF_FIXTURES.test(fingerprint) ? fingerprint.slice(fingerprint.indexOf(':') + 1) : null;
}
