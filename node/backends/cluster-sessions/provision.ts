/** The life of one model that a cluster starts by itself: parked, starting, running, failed for a while. */
import { MeshError, toMeshError } from '../../common/errors.ts';
import type { Logger } from '../../common/logger.ts';
import type { ProvisionRule } from './provision-rule.ts';
import { backOffMs, fractionOf, isIdle, retryAfterMs } from './provision-step.ts';
import {
  DEFAULT_SERVICE_SCALE,
  ServiceScale,
  type ServiceScaleComponents,
  type ServiceScaleOptions,
} from './service-scale.ts';

export interface ProvisionComponents extends ServiceScaleComponents {
  readonly logger: Logger;
  readonly onChange: () => void;
}

/** What is absent is as `DEFAULT_SERVICE_SCALE` says. */
export interface ProvisionOptions extends Partial<ServiceScaleOptions> {
  readonly rule: ProvisionRule;
}

interface Failure {
  readonly error: MeshError;
  readonly count: number;
  readonly until: number;
}

export class Provision {
  readonly rule: ProvisionRule;
  readonly #components: ProvisionComponents;
  readonly #scale: ServiceScale;
  readonly #life = new AbortController();
  #starting: { readonly since: number; readonly done: Promise<void> } | null = null;
  #parking: Promise<void> | null = null;
  #failure: Failure | null = null;
  #lastStartMs: number | null = null;
  #inFlight = 0;
  #lastUsedAt: number | null = null;

  constructor(components: ProvisionComponents, { rule, ...options }: ProvisionOptions) {
    this.rule = rule;
    this.#components = components;
    this.#scale = new ServiceScale(components, rule, { ...DEFAULT_SERVICE_SCALE, ...options });
  }

  get isStarting(): boolean {
    return this.#starting !== null;
  }

  /** When the start that is under way began, on the clock; null: there is none. */
  get startingSince(): number | null {
    return this.#starting?.since ?? null;
  }

  /** Requests must not be sent there although it still answers. */
  get isParking(): boolean {
    return this.#parking !== null;
  }

  /** What the last start ran into; null when all is well. Never holds a key. */
  get problem(): string | null {
    return this.#failure?.error.message ?? null;
  }

  /** Part of the start that is done, 0 to 1; null unknown. */
  get fraction(): number | null {
    return fractionOf(this.#elapsedMs, this.#lastStartMs);
  }

  /**
   * Starts the service unless that is under way; waits for nothing.
   *
   * @throws MeshError `model_starting` with a time to come back while the last failure is fresh.
   */
  begin(): void {
    this.throwIfFailed();
    if (this.#starting !== null) return;
    if (this.#life.signal.aborted)
      throw new MeshError('model_starting', 'What starts this model has changed: ask again');
    const { clock, logger, onChange } = this.#components;
    const since = clock.now();
    const { model, cluster, service } = this.rule;
    logger.info({ model, cluster, service }, 'a model is started on a cluster');
    const done = this.#start().then(
      () => {
        this.#failure = null;
        this.#lastStartMs = clock.now() - since;
        logger.info({ model, cluster, service, ms: Math.round(this.#lastStartMs) }, 'a model runs on a cluster');
      },
      (thrown: unknown) => this.#failed(toMeshError(thrown)),
    );
    this.#starting = {
      since,
      done: done.finally(() => {
        this.#starting = null;
        this.used();
        onChange();
      }),
    };
    onChange();
  }

  /** @throws MeshError that tells what the last start ran into, and when it is tried again. */
  throwIfFailed(): void {
    const failure = this.#failure;
    const left = failure === null ? 0 : failure.until - this.#components.clock.now();
    if (failure === null || left <= 0 || this.#starting !== null) return;
    const { code, message } = failure.error;
    throw new MeshError(code, message, { retryAfterMs: Math.max(1000, left) });
  }

  /** For a client that has waited long enough. */
  stillStarting(): MeshError {
    const { model, cluster } = this.rule;
    const elapsedMs = this.#elapsedMs;
    const name = this.#components.cluster()?.name ?? cluster;
    const message =
      `${model} is being started on the cluster ${name}, for ${Math.round(elapsedMs / 1000)} s so far. ` +
      'Ask again when Retry-After has passed; the start goes on.';
    const progress = { state: 'queued', fraction: this.fraction } as const;
    return new MeshError('model_starting', message, {
      retryAfterMs: retryAfterMs(elapsedMs, this.#lastStartMs),
      progress,
    });
  }

  /** A request runs there; the result ends it. */
  use(): () => void {
    this.#inFlight += 1;
    this.used();
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      this.#inFlight -= 1;
      this.used();
    };
  }

  /** Counts as a use. */
  used(): void {
    this.#lastUsedAt = this.#components.clock.now();
  }

  /** Scales it to zero when nobody has used it for long; called now and then. Never rejects. */
  parkIfIdle(): Promise<void> {
    const { clock, isLive } = this.#components;
    if (!isLive() || this.#starting !== null) return Promise.resolve();
    // It ran before this node looked: its time begins now.
    this.#lastUsedAt ??= clock.now();
    const use = { inFlight: this.#inFlight, lastUsedAt: this.#lastUsedAt };
    if (!isIdle(this.rule, use, clock.now())) return Promise.resolve();
    this.#parking ??= this.#park().finally(() => {
      this.#parking = null;
      this.#components.onChange();
    });
    return this.#parking;
  }

  /** The service stays as it is. */
  async stop(): Promise<void> {
    this.#life.abort(new MeshError('draining', 'This node is stopping'));
    await Promise.allSettled([this.#starting?.done, this.#parking]);
  }

  get #elapsedMs(): number {
    return this.#starting === null ? 0 : this.#components.clock.now() - this.#starting.since;
  }

  #failed(error: MeshError): void {
    if (this.#life.signal.aborted) return;
    const { clock, logger } = this.#components;
    const { model, cluster, service } = this.rule;
    const count = (this.#failure?.count ?? 0) + 1;
    const until = clock.now() + Math.max(backOffMs(count), error.facts.retryAfterMs ?? 0);
    const told = new MeshError('model_starting', `${model} could not be started on ${cluster}: ${error.message}`);
    this.#failure = { error: told, count, until };
    logger.warn({ model, cluster, service, problem: error.message, failures: count }, 'a model could not be started');
  }

  /** @throws MeshError that says what is wrong. */
  async #start(): Promise<void> {
    await this.#parking;
    await this.#scale.start(this.#life.signal);
  }

  /** Never rejects: what is not parked now is idle at the next look as well. */
  async #park(): Promise<void> {
    const { logger } = this.#components;
    const { model, cluster, service } = this.rule;
    try {
      await this.#scale.park(this.#life.signal);
      logger.info({ model, cluster, service }, 'a service is scaled to zero');
    } catch (thrown) {
      const problem = toMeshError(thrown).message;
      logger.warn({ model, cluster, service, problem }, 'a service could not be scaled to zero');
    }
  }
}
