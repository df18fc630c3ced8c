/** One Backend.AI cluster: its manager is asked for services, each of which is then a backend of its own. */
import type { CancelTimer, Clock } from '../../common/clock.ts';
import type { Logger } from '../../common/logger.ts';
import type { ClusterRecord } from '../../storage/cluster-registry.ts';
import type { Gateway, GatewayHolder, GatewayView } from '../gateway.ts';
import { type ClusterCheck, type ClusterState, checkCluster } from './cluster-check.ts';
import { ClusterServices } from './cluster-services.ts';
import { ManagerClient } from './manager-client.ts';

export interface ClusterComponents {
  readonly clock: Clock;
  /** Unix milliseconds. Default: the clock of the system. */
  readonly now?: () => number;
  readonly logger: Logger;
  readonly secretKey: () => string | null;
  /** Models or a status changed. */
  readonly onChange: () => void;
}

export interface ClusterOptions {
  readonly record: ClusterRecord;
  /** Between two questions for the services, milliseconds. Default 30,000. */
  readonly pollMs?: number;
}

/** A cluster as its owner sees it. */
export interface ClusterView extends ClusterRecord {
  readonly fingerprint: string;
  /** Null before it was asked. */
  readonly status: ClusterState | null;
  readonly problem: string | null;
  readonly apiVersion: string | null;
  /** The manager's clock minus ours, milliseconds. */
  readonly clockOffsetMs: number;
  /** Names of those that can be used. */
  readonly services: readonly string[];
  /** Ids. */
  readonly models: readonly string[];
}

const POLL_MS = 30_000;
const FIRST_RETRY_MS = 1000;
/** However often services fail, the manager is asked no sooner than this again. */
const LEAST_GAP_MS = 500;

export class Cluster {
  readonly record: ClusterRecord;
  readonly fingerprint: string;
  readonly client: ManagerClient;
  readonly #components: ClusterComponents;
  readonly #pollMs: number;
  readonly #services: ClusterServices;
  readonly #life = new AbortController();
  #check: ClusterCheck | null = null;
  #latencyMs: number | null = null;
  #failures = 0;
  #polling: Promise<void> | null = null;
  #polledAt = Number.NEGATIVE_INFINITY;
  /** Somebody wants to know while a poll runs that may have asked too early. */
  #isWanted = false;
  #cancel: CancelTimer = () => {};

  /** @throws MeshError `invalid_request` when nothing may be sent to its endpoint. */
  constructor(components: ClusterComponents, { record, pollMs = POLL_MS }: ClusterOptions) {
    const { clock, logger, secretKey, now, onChange } = components;
    this.record = record;
    this.fingerprint = `cluster:${record.slug}`;
    this.#components = components;
    this.#pollMs = pollMs;
    this.client = new ManagerClient({ clock, ...(now && { now }) }, { ...record, secretKey });
    const onVacant = (): void => this.look();
    this.#services = new ClusterServices(
      { client: this.client, clock, logger, onVacant, onChange },
      { record, pollMs },
    );
  }

  /** Waits for nobody. */
  start(): void {
    this.#services.start();
    this.#poll();
  }

  /** Asked no longer, and offers nothing more; requests that run go on to their end. */
  retire(): void {
    this.#life.abort();
    this.#cancel();
    this.#services.retire();
  }

  /** Breaks all connections as well. */
  async stop(): Promise<void> {
    this.retire();
    await this.#polling;
    await this.#services.stop();
    this.client.close();
  }

  /** Asks for its services now rather than at the next poll, though not twice within half a second. */
  look(): void {
    this.#isWanted = true;
    if (this.#polling !== null) return;
    this.#pollIn(Math.max(0, LEAST_GAP_MS - (this.#components.clock.now() - this.#polledAt)));
  }

  holders(modelId: string): readonly GatewayHolder[] {
    return this.#services.holders(modelId);
  }

  models(): ReturnType<Gateway['models']> {
    return this.#services.models();
  }

  /** The manager first, then each service. */
  list(): readonly GatewayView[] {
    const { name, endpoint, hasSecret, priority } = this.record;
    const manager: GatewayView = {
      fingerprint: this.fingerprint,
      kind: 'cluster',
      name,
      url: endpoint,
      status: this.#status(),
      latencyMs: this.#latencyMs,
      models: [],
      problem: this.#check?.problem ?? null,
      hasKey: hasSecret,
      place: { priority, boundary: 'private-cluster' },
    };
    return [manager, ...this.#services.list()];
  }

  drop(fingerprint: string, modelId: string): void {
    this.#services.drop(fingerprint, modelId);
  }

  view(): ClusterView {
    const check = this.#check;
    return {
      ...this.record,
      fingerprint: this.fingerprint,
      status: check?.state ?? null,
      problem: check?.problem ?? null,
      apiVersion: check?.version?.api ?? null,
      clockOffsetMs: check?.clockOffsetMs ?? 0,
      services: this.#services.names(),
      models: [...new Set(this.models().map(({ entry }) => entry.id))],
    };
  }

  #status(): GatewayView['status'] {
    if (this.#check === null) return 'offline';
    if (this.#check.ok) return 'online';
    if (this.#check.state !== 'unreachable') return 'unauthorized';
    return this.#failures < 2 && this.#latencyMs !== null ? 'suspect' : 'offline';
  }

  #poll(): void {
    const { signal } = this.#life;
    if (this.#polling !== null || signal.aborted) return;
    this.#cancel();
    this.#isWanted = false;
    this.#polledAt = this.#components.clock.now();
    this.#polling = this.#ask(signal)
      // Only the end of this cluster ends a poll early.
      .catch(() => {})
      .finally(() => {
        this.#polling = null;
        this.#pollIn(this.#isWanted ? LEAST_GAP_MS : this.#delayMs());
      });
  }

  async #ask(signal: AbortSignal): Promise<void> {
    const { clock, logger, onChange } = this.#components;
    const startedAt = clock.now();
    const check = await checkCluster(this.client, this.record, signal);
    if (check.ok) this.#latencyMs = clock.now() - startedAt;
    const unusable = await this.#services.adopt(check.services?.usable ?? null, signal);
    this.#failures = check.ok ? 0 : this.#failures + 1;
    const before = this.#check?.state;
    this.#check = { ...check, problem: check.problem ?? unusable };
    const { state, problem } = this.#check;
    if (state !== before) logger.info({ cluster: this.record.name, state, problem }, 'a cluster changed its state');
    onChange();
  }

  #pollIn(delayMs: number): void {
    this.#cancel();
    if (this.#life.signal.aborted) return;
    this.#cancel = this.#components.clock.after(delayMs, () => this.#poll());
  }

  /** One that cannot be reached is asked after 1, 2, 4, … seconds; one that refuses us as seldom as one that is well. */
  #delayMs(): number {
    if (this.#check?.state !== 'unreachable') return this.#pollMs;
    return Math.min(this.#pollMs, FIRST_RETRY_MS * 2 ** Math.min(Math.max(0, this.#failures - 1), 10));
  }
}
