/** One Globus Compute endpoint under observation; several models may share it. */
import type { Clock } from '../../common/clock.ts';
import { MeshError, toMeshError } from '../../common/errors.ts';
import type { GlobusAccount, GlobusEndpointStatus } from './globus-account.ts';
import { Recurring } from './recurring.ts';

/** What watching needs of an account. */
export type WatchingAccount = Pick<GlobusAccount, 'status' | 'submit' | 'result'>;

export interface WatchComponents {
  readonly clock: Clock;
  /** Null while there are no credentials. */
  readonly account: () => WatchingAccount | null;
  /** Something that is shown changed. */
  readonly onChange: () => void;
}

const STATUS_MS = 60_000;
/** While it is about to change: after an error, and while a job that was asked for starts. */
const SOON_MS = 10_000;
/** So long others are refused after somebody made a cold endpoint ask for nodes. */
const STARTING_MS = 600_000;
const RETRY_AFTER_MS = 30_000;

export class EndpointWatch {
  readonly #components: WatchComponents;
  readonly #endpointUuid: string;
  readonly #recurring: Recurring;
  #status: GlobusEndpointStatus | null = null;
  #failures = 0;
  #error: MeshError | null = null;
  #latencyMs: number | null = null;
  #startingUntil = Number.NEGATIVE_INFINITY;

  constructor(components: WatchComponents, endpointUuid: string) {
    this.#components = components;
    this.#endpointUuid = endpointUuid;
    this.#recurring = new Recurring(components, (signal) => this.#look(signal));
  }

  /** As of the last answered question; null before it. */
  get status(): GlobusEndpointStatus | null {
    return this.#status;
  }

  /** Questions that failed one after the other. */
  get failures(): number {
    return this.#failures;
  }

  /** What the last question ran into. */
  get error(): MeshError | null {
    return this.#error;
  }

  get latencyMs(): number | null {
    return this.#latencyMs;
  }

  /** No node works there: whoever asks waits for the scheduler. */
  get isCold(): boolean {
    return this.#status?.managers === 0;
  }

  /** Asks at once, and from then on by itself. */
  look(): void {
    this.#recurring.now();
  }

  /**
   * May a task be submitted? The first to a cold endpoint may, which makes it ask its scheduler for nodes; call what is
   * returned when it was not submitted after all.
   *
   * @throws MeshError `model_starting` with a time to come back, while those nodes are awaited.
   */
  admit(name: string): () => void {
    if (!this.isCold) return () => {};
    const { clock } = this.#components;
    const leftMs = this.#startingUntil - clock.now();
    if (leftMs > 0) {
      throw new MeshError('model_starting', `${name} is starting: its cluster was asked for nodes; try again later`, {
        retryAfterMs: Math.min(RETRY_AFTER_MS, leftMs),
      });
    }
    const before = this.#startingUntil;
    this.#startingUntil = clock.now() + STARTING_MS;
    this.look();
    return () => {
      this.#startingUntil = before;
    };
  }

  async stop(): Promise<void> {
    await this.#recurring.stop();
  }

  async #look(signal: AbortSignal): Promise<number> {
    const { clock, account, onChange } = this.#components;
    const startedAt = clock.now();
    try {
      const used = account();
      if (used === null) throw new MeshError('unauthorized', NO_ACCOUNT);
      this.#status = await used.status(this.#endpointUuid, signal);
      this.#latencyMs = clock.now() - startedAt;
      this.#failures = 0;
      this.#error = null;
      if (!this.isCold) this.#startingUntil = Number.NEGATIVE_INFINITY;
    } catch (error) {
      if (signal.aborted) throw error;
      this.#failures += 1;
      this.#error = toMeshError(error, 'upstream_error');
    }
    onChange();
    return this.#error === null && clock.now() > this.#startingUntil ? STATUS_MS : SOON_MS;
  }
}

export const NO_ACCOUNT =
  'There is no service account for Globus: set one with meshnode fixtures credentials --key-stdin';
