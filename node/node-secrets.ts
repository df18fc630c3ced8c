/** The store of a node's keys, built from its configuration: for the node itself, and for commands. */
import type { Clock } from './common/clock.ts';
import type { Config } from './config.ts';
import { OsKeychain } from './storage/keychain.ts';
import { type PassphraseSource, SecretKeys } from './storage/secret-keys.ts';
import { noPassphrase, readPassphrase } from './storage/secret-passphrase.ts';
import { SecretStore } from './storage/secret-store.ts';

export interface SecretsComponents {
  /** Gets one line for people, for example that a plain file is used. */
  readonly warn: (message: string) => void;
  /** Asks a person, where no file has it. Absent: nobody can be asked. */
  readonly passphrase?: PassphraseSource | undefined;
}

/** Does no I/O. The passphrase file, where one is set, is also where a first passphrase comes from. */
export function openSecrets(
  { clock, warn, passphrase = noPassphrase }: SecretsComponents & { readonly clock: Clock },
  { dataDir, secrets: { store, passphraseFile } }: Pick<Config, 'dataDir' | 'secrets'>,
): SecretStore {
  const source: PassphraseSource = (purpose) =>
    passphraseFile === null || purpose === 'changed' ? passphrase(purpose) : readPassphrase(clock, passphraseFile);
  const keys = new SecretKeys({ keychain: new OsKeychain({ clock }), passphrase: source });
  return new SecretStore({ clock, warn, keys }, { dataDir, store });
}
