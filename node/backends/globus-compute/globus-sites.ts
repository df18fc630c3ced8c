/** The endpoints of FIRST's fixtures as services of this node: those at Globus Compute, and direct ones. */
import type { Clock } from '../../common/clock.ts';
import type { Startable } from '../../common/lifecycle.ts';
import type { Logger } from '../../common/logger.ts';
import type {
  EndpointStates,
  FixtureCluster,
  FixtureEndpoint,
  FixtureSource,
  GlobusPlace,
  StreamCallbacks,
} from '../../storage/fixtures/fixture-types.ts';
import type { Gateway, GatewayHolder, GatewayView } from '../gateway.ts';
import { ManifestWatch } from '../openai-http/manifest-watch.ts';
import { AccountPool } from './account-pool.ts';
import { type CredentialSources, directKey, globusCredentials } from './credentials.ts';
import { DirectSite } from './direct-site.ts';
import { EndpointWatch } from './endpoint-watch.ts';
import type { FixtureSite } from './fixture-site.ts';
import { GLOBUS_HOSTS, type GlobusAccount, type GlobusHosts } from './globus-account.ts';
import { GlobusSite } from './globus-site.ts';
import { JobsWatch } from './jobs-watch.ts';
import { WatchPool } from './watch-pool.ts';

export interface GlobusSitesComponents {
  /** Started and stopped with the sites. */
  readonly fixtures: FixtureSource & Startable;
  readonly secrets: { get(name: string): string | null; onChange(listener: () => void): () => void };
  readonly env: CredentialSources['env'];
  readonly clock: Clock;
  readonly logger: Logger;
  /** Absent: answers from Globus Compute come whole. */
  readonly callbacks?: StreamCallbacks;
}

export interface GlobusSitesOptions {
  readonly hosts?: GlobusHosts;
  /** From a submit to its result, milliseconds. Default 300,000. */
  readonly waitMs?: number;
}

/** A site, what it was made from, and how it lets go of what it shares. */
interface Placed {
  readonly site: FixtureSite;
  readonly said: string;
  readonly giveBack: () => Promise<void>;
}

export class GlobusSites implements Gateway, EndpointStates {
  readonly #components: GlobusSitesComponents;
  readonly #options: GlobusSitesOptions;
  readonly #hosts: GlobusHosts;
  readonly #accounts: AccountPool;
  readonly #credentials: CredentialSources;
  /** By slug, in the order of the fixtures. */
  #sites = new Map<string, Placed>();
  readonly #watches = new WatchPool<EndpointWatch>();
  readonly #jobs = new WatchPool<JobsWatch>();
  readonly #manifests = new WatchPool<ManifestWatch>();
  readonly #listeners = new Set<() => void>();
  #ends: Promise<unknown> = Promise.resolve();
  #unsubscribe: (() => void) | null = null;

  constructor(components: GlobusSitesComponents, options: GlobusSitesOptions = {}) {
    const { secrets, env, clock } = components;
    this.#components = components;
    this.#options = options;
    this.#hosts = options.hosts ?? GLOBUS_HOSTS;
    this.#accounts = new AccountPool({ clock }, this.#hosts);
    this.#credentials = { secret: (name) => secrets.get(name), env };
  }

  /** The secrets must have been started. Waits for no service. @throws MeshError when the fixtures cannot be read. */
  async start(): Promise<void> {
    if (this.#unsubscribe !== null) return;
    await this.#components.fixtures.start();
    const offs = [
      this.#components.fixtures.onChange(() => this.#follow()),
      this.#components.secrets.onChange(() => {
        for (const { site } of this.#sites.values()) site.rekeyed();
      }),
    ];
    this.#unsubscribe = () => {
      for (const off of offs) off();
    };
    this.#follow();
  }

  async stop(signal: AbortSignal): Promise<void> {
    this.#unsubscribe?.();
    this.#unsubscribe = null;
    const placed = [...this.#sites.values()];
    this.#sites = new Map();
    for (const each of placed) this.#end(each);
    for (const { site } of placed) site.close();
    this.#accounts.close();
    await this.#ends;
    await this.#components.fixtures.stop(signal);
  }

  holders(modelId: string): readonly GatewayHolder[] {
    return this.#usable().flatMap(({ site, holder }) => (site.endpoint.model === modelId ? [holder] : []));
  }

  /** The holder of one endpoint; null when there is none of this slug, or it cannot be asked now. */
  holderOf(slug: string): GatewayHolder | null {
    return this.#sites.get(slug)?.site.holder() ?? null;
  }

  models(): ReturnType<Gateway['models']> {
    return this.#usable().map(({ site: { fingerprint }, holder: { entry, shared = false } }) => ({
      ...{ fingerprint, entry, shared },
    }));
  }

  list(): readonly GatewayView[] {
    return [...this.#sites.values()].map(({ site }) => site.view());
  }

  stateOf(slug: string): ReturnType<EndpointStates['stateOf']> {
    const site = this.#sites.get(slug)?.site;
    return { state: site?.state ?? 'unknown', freeNodes: site?.freeNodes ?? null };
  }

  drop(fingerprint: string, modelId: string): void {
    for (const { site } of this.#sites.values()) {
      if (site.fingerprint === fingerprint && site.endpoint.model === modelId) site.drop();
    }
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #usable(): readonly { readonly site: FixtureSite; readonly holder: GatewayHolder }[] {
    return [...this.#sites.values()].flatMap(({ site }) => {
      const holder = site.holder();
      return holder === null ? [] : [{ site, holder }];
    });
  }

  /** Sites whose fixture is the same stay as they are, with what is known of them. */
  #follow(): void {
    const { clusters, endpoints } = this.#components.fixtures.current();
    const before = this.#sites;
    this.#sites = new Map(
      endpoints.map((endpoint) => {
        const { qstat = null, statusUrl = null } = clusters.find(({ name }) => name === endpoint.cluster) ?? {};
        const said = JSON.stringify([endpoint, qstat, statusUrl]);
        const known = before.get(endpoint.slug);
        return [endpoint.slug, known?.said === said ? known : { ...this.#begin(endpoint, { qstat, statusUrl }), said }];
      }),
    );
    const kept = new Set(this.#sites.values());
    for (const placed of before.values()) if (!kept.has(placed)) this.#end(placed);
    this.#components.logger.info({ endpoints: endpoints.length }, 'fixtures are in force');
    this.#changed();
  }

  #begin(
    endpoint: FixtureEndpoint,
    { qstat, statusUrl }: Pick<FixtureCluster, 'qstat' | 'statusUrl'>,
  ): Omit<Placed, 'said'> {
    const { globus } = endpoint;
    return globus === undefined ? this.#beginDirect(endpoint, statusUrl) : this.#beginGlobus(endpoint, globus, qstat);
  }

  #beginDirect(endpoint: FixtureEndpoint, statusUrl: string | null): Omit<Placed, 'said'> {
    const { clock } = this.#components;
    const onChange = (): void => this.#changed();
    const key = (): string | null => directKey(endpoint, this.#credentials);
    const watch = (manifest: string): ManifestWatch => new ManifestWatch({ clock, onChange }, { manifest });
    const manifest = statusUrl === null ? null : this.#manifests.take(statusUrl, () => watch(statusUrl));
    const site = new DirectSite({ clock, onChange, key, manifest }, endpoint);
    site.look();
    const giveBack = async (): Promise<void> => {
      if (statusUrl !== null) await this.#manifests.giveBack(statusUrl);
    };
    return { site, giveBack };
  }

  #beginGlobus(endpoint: FixtureEndpoint, globus: GlobusPlace, qstat: FixtureCluster['qstat']): Omit<Placed, 'said'> {
    const { clock, callbacks } = this.#components;
    const onChange = (): void => this.#changed();
    const { cluster } = endpoint;
    const account = (): GlobusAccount | null => this.#accounts.of(globusCredentials(endpoint, this.#credentials));
    const watched = { clock, account, onChange };
    const key = `${cluster} ${globus.endpointUuid}`;
    const watch = this.#watches.take(key, () => new EndpointWatch(watched, globus.endpointUuid));
    const jobsKey = qstat === null ? null : `${cluster} ${qstat.endpointUuid} ${qstat.functionUuid}`;
    const jobs =
      qstat === null || jobsKey === null ? null : this.#jobs.take(jobsKey, () => new JobsWatch(watched, qstat));
    const site = new GlobusSite({ clock, account, watch, jobs, ...(callbacks && { callbacks }) }, endpoint, globus, {
      computeUrl: this.#hosts.computeUrl,
      ...(this.#options.waitMs !== undefined && { waitMs: this.#options.waitMs }),
    });
    const giveBack = async (): Promise<void> => {
      await this.#watches.giveBack(key);
      if (jobsKey !== null) await this.#jobs.giveBack(jobsKey);
    };
    return { site, giveBack };
  }

  /** Asked no longer; requests that run there go on to their end. */
  #end({ site, giveBack }: Placed): void {
    this.#ends = Promise.allSettled([this.#ends, site.retire(), giveBack()]);
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }
}
