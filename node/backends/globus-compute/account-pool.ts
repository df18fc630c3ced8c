/** The service accounts in use: one for each pair of credentials, whoever shares it. */
import type { Clock } from '../../common/clock.ts';
import { GlobusAccount, type GlobusCredentials, type GlobusHosts } from './globus-account.ts';

export class AccountPool {
  readonly #components: { readonly clock: Clock };
  readonly #hosts: GlobusHosts;
  /** By id and secret. */
  readonly #accounts = new Map<string, GlobusAccount>();

  constructor(components: { readonly clock: Clock }, hosts: GlobusHosts) {
    this.#components = components;
    this.#hosts = hosts;
  }

  of(credentials: GlobusCredentials | null): GlobusAccount | null {
    if (credentials === null) return null;
    const key = JSON.stringify([credentials.id, credentials.secret]);
    const known = this.#accounts.get(key);
    if (known !== undefined) return known;
    const made = new GlobusAccount({ ...this.#components, credentials }, this.#hosts);
    this.#accounts.set(key, made);
    return made;
  }

  close(): void {
    for (const account of this.#accounts.values()) account.close();
    this.#accounts.clear();
  }
}
