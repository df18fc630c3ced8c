/** Stores of secrets as tests need them, and a keychain in memory that refuses, hangs or lies on request. */
import { systemClock } from '../../node/common/clock.ts';
import { MeshError } from '../../node/common/errors.ts';
import type { Keychain } from '../../node/storage/keychain.ts';
import { SecretKeys } from '../../node/storage/secret-keys.ts';
import { noPassphrase } from '../../node/storage/secret-passphrase.ts';
import { SecretStore, type SecretStoreChoice } from '../../node/storage/secret-store.ts';
import type { SharedFileComponents } from '../../node/storage/shared-file.ts';

/** The least that is accepted. */
const CHEAP = { n: 2 ** 14, r: 8, p: 1 };

export class MemoryKeychain implements Keychain {
  readonly entries = new Map<string, string>();
  /** Why every call fails; null: it works. */
  problem: string | null = null;

  async get(account: string): Promise<string | null> {
    this.#work();
    return this.entries.get(account) ?? null;
  }

  async set(account: string, secret: string): Promise<void> {
    this.#work();
    this.entries.set(account, secret);
  }

  async delete(account: string): Promise<void> {
    this.#work();
    this.entries.delete(account);
  }

  async probe(): Promise<string | null> {
    return this.problem;
  }

  #work(): void {
    if (this.problem !== null) throw new MeshError('invalid_request', this.problem);
  }
}

export interface StoreParts extends Partial<SharedFileComponents> {
  readonly keychain?: Keychain;
  /** What a person or a file would say. */
  readonly passphrase?: string;
  readonly store?: SecretStoreChoice;
}

/** A store whose keychain, unless one is given, is a new one in memory. */
export function secretStore(dataDir: string, parts: StoreParts = {}): SecretStore {
  const { keychain = new MemoryKeychain(), passphrase, store = 'auto', clock = systemClock, warn = () => {} } = parts;
  const source = passphrase === undefined ? noPassphrase : () => Promise.resolve(passphrase);
  const keys = new SecretKeys({ keychain, passphrase: source }, { cost: CHEAP });
  return new SecretStore({ clock, warn, keys }, { dataDir, store });
}

export const plainStore = (dataDir: string, parts: Partial<SharedFileComponents> = {}): SecretStore =>
  secretStore(dataDir, { ...parts, store: 'plain' });
