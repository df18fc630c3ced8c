/** The access token of one service account: kept until shortly before its end, asked for once at a time. */
import { abortable, type Clock, deadline } from '../../common/clock.ts';
import { MeshError, toMeshError } from '../../common/errors.ts';

/** What the token service answered. */
export interface IssuedToken {
  readonly accessToken: string;
  readonly expiresInMs: number;
}

export interface AccountTokenComponents {
  readonly clock: Clock;
  /** Asks the service. @throws MeshError. */
  readonly request: (signal: AbortSignal) => Promise<IssuedToken>;
}

/** Renewed so long before its end. */
const MARGIN_MS = 300_000;
const REQUEST_MS = 40_000;
/** After a refusal nobody asks again for so long: a thousand requests with a wrong secret would lock the account out. */
const REFUSED_MS = 10_000;

export class AccountToken {
  readonly #components: AccountTokenComponents;
  #kept: { readonly accessToken: string; readonly until: number } | null = null;
  #asking: Promise<string> | null = null;
  #refused: { readonly error: MeshError; readonly until: number } | null = null;

  constructor(components: AccountTokenComponents) {
    this.#components = components;
  }

  /** @throws MeshError `unauthorized`, `peer_unreachable`, `upstream_error`, …, or the signal's reason. */
  get(signal: AbortSignal): Promise<string> {
    const now = this.#components.clock.now();
    if (this.#kept !== null && now < this.#kept.until) return Promise.resolve(this.#kept.accessToken);
    if (this.#refused !== null && now < this.#refused.until) return Promise.reject(this.#refused.error);
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = null;
    });
    return abortable(this.#asking, signal);
  }

  /** The service refused this token: the next `get` asks for another. */
  invalidate(accessToken: string): void {
    if (this.#kept?.accessToken === accessToken) this.#kept = null;
  }

  /** Goes on when whoever asked has gone: others wait for the same. */
  async #ask(): Promise<string> {
    const { clock, request } = this.#components;
    using bound = deadline(
      clock,
      REQUEST_MS,
      () => new MeshError('peer_unreachable', 'Globus Auth gave no token in time'),
    );
    try {
      const { accessToken, expiresInMs } = await request(bound.signal);
      const keptMs = expiresInMs > 2 * MARGIN_MS ? expiresInMs - MARGIN_MS : expiresInMs / 2;
      this.#kept = { accessToken, until: clock.now() + keptMs };
      return accessToken;
    } catch (thrown) {
      const error = toMeshError(thrown, 'upstream_error');
      if (error.code === 'unauthorized') this.#refused = { error, until: clock.now() + REFUSED_MS };
      throw error;
    }
  }
}
