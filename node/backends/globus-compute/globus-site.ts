/** A fixture's endpoint at Globus Compute: its backend, and what is known of it. */
import type { CatalogEntry, ModelState } from '../../../protocols/catalog/catalog.ts';
import type { Clock } from '../../common/clock.ts';
import type {
  EndpointState,
  FixtureEndpoint,
  GlobusPlace,
  StreamCallbacks,
} from '../../storage/fixtures/fixture-types.ts';
import type { GatewayHolder, GatewayView } from '../gateway.ts';
import { endpointState } from './endpoint-state.ts';
import type { EndpointWatch } from './endpoint-watch.ts';
import type { FixtureSite } from './fixture-site.ts';
import type { GlobusAccount } from './globus-account.ts';
import { GlobusComputeBackend } from './globus-compute.ts';
import type { JobsWatch } from './jobs-watch.ts';

export interface GlobusSiteComponents {
  readonly clock: Clock;
  /** Null while there are no credentials. */
  readonly account: () => GlobusAccount | null;
  /** Shared by all sites of the same Globus endpoint. */
  readonly watch: EndpointWatch;
  /** Shared by all sites of the cluster; null where it has no qstat function. */
  readonly jobs: JobsWatch | null;
  readonly callbacks?: StreamCallbacks;
}

export interface GlobusSiteOptions {
  /** Base URL of Globus Compute, to be shown. */
  readonly computeUrl: string;
  readonly waitMs?: number;
}

/** Requests at once are the endpoint's own business; what an engine here would run, so that shares stay fair. */
const ASSUMED_SLOTS = 4;
const PLACE = { priority: 0, boundary: 'private-cluster' } as const;
const MODEL_STATES: Partial<Record<EndpointState, ModelState>> = { running: 'resident', queued: 'loading' };

export class GlobusSite implements FixtureSite {
  readonly endpoint: FixtureEndpoint;
  readonly fingerprint: string;
  readonly #components: GlobusSiteComponents;
  readonly #url: string;
  readonly #backend: GlobusComputeBackend;
  #account: GlobusAccount | null;

  constructor(
    components: GlobusSiteComponents,
    endpoint: FixtureEndpoint,
    place: GlobusPlace,
    options: GlobusSiteOptions,
  ) {
    const { clock, account, watch, callbacks } = components;
    const { slug, model } = endpoint;
    const { endpointUuid, functionUuid, apiPort } = place;
    this.endpoint = endpoint;
    this.fingerprint = `globus:${slug}`;
    this.#components = components;
    this.#account = account();
    this.#url = `${options.computeUrl}/v2/endpoints/${endpointUuid}`;
    const isRunning = (): boolean => this.state === 'running';
    const admit = (): (() => void) => watch.admit(slug);
    this.#backend = new GlobusComputeBackend(
      { clock, account, admit, isRunning, onTrouble: () => watch.look(), ...(callbacks && { callbacks }) },
      {
        ...{ fingerprint: this.fingerprint, name: slug, model, apiPort, endpointUuid, functionUuid },
        ...(options.waitMs !== undefined && { waitMs: options.waitMs }),
      },
    );
  }

  get state(): EndpointState {
    const { watch, jobs } = this.#components;
    return endpointState(this.endpoint.model, {
      status: watch.status,
      failures: watch.failures,
      jobs: jobs?.jobs ?? null,
    });
  }

  get freeNodes(): number | null {
    return this.#components.jobs?.jobs?.freeNodes ?? null;
  }

  holder(): GatewayHolder | null {
    const { state } = this;
    if (!isUsable(state)) return null;
    const { shared = false } = this.endpoint;
    return { backend: this.#backend, entry: this.#entry(state), suspect: state !== 'running', place: PLACE, shared };
  }

  view(): GatewayView {
    const { state } = this;
    const { watch, account } = this.#components;
    return {
      ...{ fingerprint: this.fingerprint, kind: 'globus', name: this.endpoint.slug, url: this.#url, place: PLACE },
      status: watch.error?.code === 'unauthorized' ? 'unauthorized' : VIEWS[state],
      latencyMs: watch.latencyMs,
      models: isUsable(state) ? [this.#entry(state)] : [],
      problem: watch.error?.message ?? PROBLEMS[state] ?? null,
      hasKey: account() !== null,
    };
  }

  /** FIRST's function says so while the model server loads: its status will tell. */
  drop(): void {
    this.#components.watch.look();
  }

  rekeyed(): void {
    const account = this.#components.account();
    if (account === this.#account) return;
    this.#account = account;
    this.#components.watch.look();
    this.#components.jobs?.look();
  }

  async retire(): Promise<void> {}

  close(): void {}

  #entry(state: EndpointState): CatalogEntry {
    return {
      id: this.endpoint.model,
      digest: null,
      quantization: null,
      contextLength: 0,
      sizeBytes: 0,
      state: MODEL_STATES[state] ?? 'on-disk',
      slots: ASSUMED_SLOTS,
      tokensPerSecond: null,
    };
  }
}

const VIEWS: Record<EndpointState, GatewayView['status']> = {
  running: 'online',
  queued: 'busy',
  cold: 'suspect',
  stopped: 'offline',
  offline: 'offline',
  unknown: 'offline',
};
const PROBLEMS: Partial<Record<EndpointState, string>> = {
  queued: 'its job waits for nodes, or loads the model',
  cold: 'no node runs there: a request would ask the scheduler for some',
  offline: 'its Globus Compute endpoint is not connected',
};

const isUsable = (state: EndpointState): boolean => state === 'running' || state === 'queued' || state === 'cold';
