/** The services of one cluster: each with its token, its models and its health, as an HTTP backend of its own. */
import { abortable, type Clock } from '../../common/clock.ts';
import { toMeshError } from '../../common/errors.ts';
import type { Logger } from '../../common/logger.ts';
import type { ClusterRecord } from '../../storage/cluster-registry.ts';
import { newServer, type RemoteNode } from '../../storage/remote-node.ts';
import type { Gateway, GatewayHolder, GatewayView } from '../gateway.ts';
import { HttpNodes } from '../openai-http/http-nodes.ts';
import type { ManagerClient } from './manager-client.ts';
import { ServiceBackend } from './service-backend.ts';
import type { ServiceFacts } from './service-list.ts';
import { ServiceTokens } from './service-tokens.ts';

export interface ClusterServicesComponents {
  readonly client: Pick<ManagerClient, 'call'>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** A service said that nothing stands behind it: the manager should be asked. */
  readonly onVacant: () => void;
  /** Models or a status changed. */
  readonly onChange: () => void;
}

export interface ClusterServicesOptions {
  readonly record: ClusterRecord;
  /** Between two questions for the models of a service, milliseconds. */
  readonly pollMs: number;
}

/** A service refuses the token that it was given just now: more of them would not help. */
const LEAST_TOKEN_AGE_MS = 1000;
/** A manager counts calls. */
const TOKENS_AT_ONCE = 8;

export class ClusterServices {
  readonly #components: ClusterServicesComponents;
  readonly #record: ClusterRecord;
  readonly #pollMs: number;
  readonly #place: NonNullable<GatewayHolder['place']>;
  readonly #tokens: ServiceTokens;
  readonly #servers: HttpNodes;
  readonly #life = new AbortController();
  readonly #listeners = new Set<() => void>();
  /** Of the backends below, so that each stays the same one. */
  readonly #wrapped = new WeakMap<GatewayHolder['backend'], ServiceBackend>();
  /** Fingerprints of services that said that nothing stands behind them, until the manager was asked. */
  readonly #vacant = new Set<string>();
  readonly #renewals = new Map<string, Promise<boolean>>();
  readonly #renewedAt = new Map<string, number>();
  #services: readonly ServiceFacts[] = [];

  constructor(components: ClusterServicesComponents, { record, pollMs }: ClusterServicesOptions) {
    const { client, clock, logger } = components;
    this.#components = components;
    this.#record = record;
    this.#pollMs = pollMs;
    this.#place = { priority: record.priority, boundary: 'private-cluster' };
    this.#tokens = new ServiceTokens({ client, clock });
    const registry = {
      list: () => this.#services.map((service) => this.#remoteNode(service)),
      keyOf: (fingerprint: string) => this.#tokens.get(this.#serviceOf(fingerprint)?.id ?? ''),
      onChange: (listener: () => void) => {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
      },
    };
    this.#servers = new HttpNodes({ registry, clock, logger }, { pollMs });
    this.#servers.onChange(() => this.#changed());
  }

  start(): void {
    this.#servers.start();
  }

  /** Offers nothing more; requests that run go on to their end. */
  retire(): void {
    this.#life.abort();
    this.#services = [];
    this.#tell();
  }

  /** Breaks all connections as well. */
  async stop(): Promise<void> {
    this.retire();
    await Promise.allSettled(this.#renewals.values());
    await this.#servers.stop();
  }

  /** Of those that can be used. */
  names(): readonly string[] {
    return this.#services.map(({ name }) => name);
  }

  /**
   * Takes over what the manager listed, with tokens where they are due; null: it could not be asked, and what was known
   * stays. Resolves with why a service cannot be used, for people; null when all can. Throws nothing but the signal's reason.
   */
  async adopt(services: readonly ServiceFacts[] | null, signal: AbortSignal): Promise<string | null> {
    let problem: string | null = null;
    if (services !== null) {
      const due = services.filter(({ id, isPublic }) => !isPublic && this.#tokens.isDue(id));
      for (let next = 0; next < due.length; next += TOKENS_AT_ONCE) {
        const some = due.slice(next, next + TOKENS_AT_ONCE);
        const failures = await Promise.all(some.map((service) => this.#fetchToken(service, signal)));
        signal.throwIfAborted();
        problem = failures.find((failure) => failure !== null) ?? problem;
      }
      this.#services = services.filter(({ id, isPublic }) => isPublic || this.#tokens.get(id) !== null);
      this.#tokens.keep(new Set(services.map(({ id }) => id)));
      for (const known of this.#renewedAt.keys())
        if (this.#serviceOf(known) === undefined) this.#renewedAt.delete(known);
    }
    // The manager's word counts; where it gave none, the service's own does.
    this.#vacant.clear();
    this.#tell();
    return problem;
  }

  holders(modelId: string): readonly GatewayHolder[] {
    return this.#servers.holders(modelId).flatMap((holder) => {
      if (this.#vacant.has(holder.backend.id)) return [];
      return [{ ...holder, backend: this.#wrap(holder.backend), place: this.#place, shared: this.#record.share }];
    });
  }

  models(): ReturnType<Gateway['models']> {
    const shared = this.#record.share;
    const there = this.#servers.models().filter(({ fingerprint }) => !this.#vacant.has(fingerprint));
    return there.map((model) => ({ ...model, shared, boundary: this.#place.boundary }));
  }

  list(): readonly GatewayView[] {
    return this.#servers.list().map((view) => ({
      ...view,
      kind: 'cluster',
      place: this.#place,
      models: this.#vacant.has(view.fingerprint) ? [] : view.models,
      hasKey: this.#serviceOf(view.fingerprint)?.isPublic === false,
    }));
  }

  drop(fingerprint: string, modelId: string): void {
    this.#servers.drop(fingerprint, modelId);
  }

  /** Returns why there is none, for people; null when there is. Never rejects. */
  #fetchToken({ id, name }: ServiceFacts, signal: AbortSignal): Promise<string | null> {
    return this.#tokens.renew(id, signal).then(
      () => null,
      (error: unknown) => `${name}: ${toMeshError(error).message}`,
    );
  }

  /** Gets another token, for all that wait for it at once; false when there is none, or the asker left. Never rejects. */
  async #renew(fingerprint: string, asker: AbortSignal): Promise<boolean> {
    const service = this.#serviceOf(fingerprint);
    if (service === undefined || service.isPublic) return false;
    // Somebody else's request has just got the new one.
    if (this.#tokenAge(fingerprint) < LEAST_TOKEN_AGE_MS) return true;
    const renewal = this.#renewals.get(fingerprint) ?? this.#renewal(fingerprint, service.id);
    return await abortable(renewal, asker).catch(() => false);
  }

  #renewal(fingerprint: string, id: string): Promise<boolean> {
    const renewal = this.#tokens
      .renew(id, this.#life.signal)
      .then(() => {
        this.#renewedAt.set(fingerprint, this.#components.clock.now());
        this.#tell();
        return true;
      })
      .catch(() => false)
      .finally(() => this.#renewals.delete(fingerprint));
    this.#renewals.set(fingerprint, renewal);
    return renewal;
  }

  /** A question for the models that was refused gets another token too, but not each time. */
  #changed(): void {
    for (const { fingerprint, status } of this.#servers.list()) {
      const isDue = status === 'unauthorized' && this.#tokenAge(fingerprint) > this.#pollMs;
      if (isDue) void this.#renew(fingerprint, this.#life.signal);
    }
    this.#components.onChange();
  }

  #tokenAge(fingerprint: string): number {
    return this.#components.clock.now() - (this.#renewedAt.get(fingerprint) ?? Number.NEGATIVE_INFINITY);
  }

  #foundVacant(fingerprint: string): void {
    if (this.#vacant.has(fingerprint) || this.#serviceOf(fingerprint) === undefined) return;
    this.#vacant.add(fingerprint);
    this.#components.onVacant();
    this.#components.onChange();
  }

  #wrap(inner: GatewayHolder['backend']): ServiceBackend {
    let backend = this.#wrapped.get(inner);
    if (backend === undefined) {
      const renew = (signal: AbortSignal): Promise<boolean> => this.#renew(inner.id, signal);
      backend = new ServiceBackend({ backend: inner, renew, onVacant: () => this.#foundVacant(inner.id) });
      this.#wrapped.set(inner, backend);
    }
    return backend;
  }

  #remoteNode(service: ServiceFacts): RemoteNode {
    const { name, share: shared } = this.#record;
    const about = { name: `${name}/${service.name}`, url: service.url };
    const entry = newServer(this.#fingerprintOf(service), about, { ...this.#place, shared });
    return { ...entry, hasKey: !service.isPublic, origin: 'registry' };
  }

  /** Services of one cluster fail, and are measured, apart. */
  #fingerprintOf({ name }: ServiceFacts): string {
    return `cluster:${this.#record.slug}/${name}`;
  }

  #serviceOf(fingerprint: string): ServiceFacts | undefined {
    return this.#services.find((service) => this.#fingerprintOf(service) === fingerprint);
  }

  /** Tells the part that asks the services for their models what there is, which in turn tells of changes. */
  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}
