/** A cluster of FIRST as fixtures and a stand-in have it: a Globus endpoint, its function, a model server beside it. */
import { once } from 'node:events';
import { GlobusSites, type GlobusSitesComponents } from '../../node/backends/globus-compute/globus-sites.ts';
import { createLogger } from '../../node/common/logger.ts';
import { readFixtures } from '../../node/storage/fixtures/fixture-set.ts';
import type { FixtureSource, Fixtures, StreamCallbacks } from '../../node/storage/fixtures/fixture-types.ts';
import { GlobusStandIn } from './globus-stand-in.ts';
import { fastClock } from './globus-stand-in-clock.ts';
import { firstFunction } from './globus-stand-in-functions.ts';
import { OpenAiServer } from './openai-server.ts';

export const MODEL = 'meta-llama/Meta-Llama-3.1-8B-Instruct';
export const SLUG = 'sophia-vllm-meta-llamameta-llama-31-8b-instruct';
export const ENDPOINT = '5a1f9c3e-0000-4000-8000-00000000e001';
export const FUNCTION = '5a1f9c3e-0000-4000-8000-00000000f001';
export const ACCOUNT = { id: '5a1f9c3e-0000-4000-8000-00000000acc1', secret: 'k3-Secret/of+the=account' };
/** Ten times as fast as the world. */
const FACTOR = 10;

/** `fixtures/endpoints.json` with one endpoint whose model server listens on this port. */
export function endpointFixture(port: number, more: object = {}): object {
  const config = { api_port: port, endpoint_uuid: ENDPOINT, function_uuid: FUNCTION };
  return {
    model: 'resource_server_async.endpoint',
    pk: 1,
    fields: {
      ...{ endpoint_slug: SLUG, cluster: 'sophia', framework: 'vllm', model: MODEL },
      endpoint_adapter: 'resource_server_async.endpoints.globus_compute.GlobusComputeEndpoint',
      ...{ tpm_model: 100_000, tpm_user: 60_000, allowed_globus_groups: [], allowed_domains: [], config },
      ...more,
    },
  };
}

/** Fixtures in memory. */
export class FixturesInHand implements FixtureSource {
  #fixtures: Fixtures;
  readonly #listeners = new Set<() => void>();

  constructor(entries: readonly object[]) {
    this.#fixtures = readFixtures(entries, 'fixtures').fixtures;
  }

  start(): void {}

  stop(): void {}

  current(): Fixtures {
    return this.#fixtures;
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  set(entries: readonly object[]): void {
    this.#fixtures = readFixtures(entries, 'fixtures').fixtures;
    for (const listener of this.#listeners) listener();
  }
}

export interface StandInSiteOptions {
  readonly callbacks?: StreamCallbacks;
  readonly waitMs?: number;
  /** Default: one endpoint at the stand-in. */
  readonly entries?: (port: number) => readonly object[];
  readonly env?: Readonly<Record<string, string>>;
}

/** Secrets in memory. */
export class SecretsInHand {
  readonly #secrets = new Map<string, string>();
  readonly #listeners = new Set<() => void>();

  get(name: string): string | null {
    return this.#secrets.get(name) ?? null;
  }

  set(name: string, secret: string): void {
    this.#secrets.set(name, secret);
    for (const listener of this.#listeners) listener();
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

/** Everything but a node. */
export class StandInSite {
  readonly globus: GlobusStandIn;
  readonly server: OpenAiServer;
  readonly fixtures: FixturesInHand;
  readonly secrets = new SecretsInHand();
  readonly sites: GlobusSites;

  private constructor(globus: GlobusStandIn, server: OpenAiServer, options: StandInSiteOptions) {
    this.globus = globus;
    this.server = server;
    const port = Number(new URL(server.url).port);
    this.fixtures = new FixturesInHand(options.entries?.(port) ?? [endpointFixture(port)]);
    const logger = createLogger('silent', process.stderr);
    const env = options.env ?? { SERVICE_ACCOUNT_ID: ACCOUNT.id, SERVICE_ACCOUNT_SECRET: ACCOUNT.secret };
    const components: GlobusSitesComponents = {
      fixtures: this.fixtures,
      secrets: this.secrets,
      env,
      logger,
      clock: fastClock(FACTOR),
    };
    this.sites = new GlobusSites(
      options.callbacks === undefined ? components : { ...components, callbacks: options.callbacks },
      { hosts: globus.hosts, ...(options.waitMs !== undefined && { waitMs: options.waitMs }) },
    );
  }

  static async start(options: StandInSiteOptions = {}): Promise<StandInSite> {
    const globus = await GlobusStandIn.start({ windowMs: 10_000 / FACTOR });
    globus.accounts.set(ACCOUNT.id, ACCOUNT.secret);
    globus.endpoints.set(ENDPOINT, { status: 'online', managers: 1, allowed: [FUNCTION] });
    globus.functions.set(FUNCTION, firstFunction());
    const site = new StandInSite(globus, await OpenAiServer.start(), options);
    await site.sites.start();
    return site;
  }

  async stop(): Promise<void> {
    await this.sites.stop(AbortSignal.timeout(5000));
    await this.server.stop();
    await this.globus.stop();
  }

  /** Resolves when what the sites show fits. */
  async until(fits: (sites: GlobusSites) => boolean): Promise<void> {
    const events = new EventTarget();
    const off = this.sites.onChange(() => events.dispatchEvent(new Event('change')));
    try {
      while (!fits(this.sites)) await once(events, 'change', { signal: AbortSignal.timeout(20_000) });
    } finally {
      off();
    }
  }
}
