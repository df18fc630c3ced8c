/** Where the key that opens a sealed secret file comes from: the keychain, or a passphrase. */
import { randomBytes } from 'node:crypto';
import { MeshError } from '../common/errors.ts';
import type { Keychain } from './keychain.ts';
import type { Protection, SecretFile, SecretStoreKind } from './secret-file.ts';
import { keyOfPassphrase, SCRYPT_COST, type ScryptCost, SEAL_KEY_BYTES, seal, unseal } from './secret-seal.ts';

/** open: the one that was set; new: the first one; changed: another one. @throws MeshError that says how to give it. */
export type PassphraseSource = (purpose: 'open' | 'new' | 'changed') => Promise<string>;

export interface SecretKeysComponents {
  readonly keychain: Keychain;
  readonly passphrase: PassphraseSource;
}

export interface SecretKeysOptions {
  /** Of new passphrases. Default `SCRYPT_COST`. */
  readonly cost?: ScryptCost;
}

/** A way to protect the file, and its key; plain has none. */
export interface SecretKey {
  readonly protection: Protection;
  readonly key: Buffer | null;
}

const CHECK = 'meshnode';
const SALT_BYTES = 16;
const KEY_ID_BYTES = 16;

export class SecretKeys {
  readonly #components: SecretKeysComponents;
  readonly #cost: ScryptCost;

  constructor(components: SecretKeysComponents, { cost = SCRYPT_COST }: SecretKeysOptions = {}) {
    this.#components = components;
    this.#cost = cost;
  }

  /**
   * A new key, kept where its kind keeps it and read back from there; `before`: what it takes the place of.
   *
   * @throws MeshError `invalid_request` that says why there is none and what to do.
   */
  async make(kind: SecretStoreKind, before: Protection | null = null): Promise<SecretKey> {
    if (kind === 'plain') return { protection: { kind }, key: null };
    if (kind === 'encrypted') {
      const [salt, cost] = [randomBytes(SALT_BYTES), this.#cost];
      const key = await keyOfPassphrase(
        await this.#components.passphrase(before?.kind === kind ? 'changed' : 'new'),
        salt,
        cost,
      );
      return { protection: { kind, salt: salt.toString('base64url'), cost }, key };
    }
    const [keyId, key] = [randomBytes(KEY_ID_BYTES).toString('hex'), randomBytes(SEAL_KEY_BYTES)];
    const { keychain } = this.#components;
    const text = key.toString('base64url');
    await keychain.set(entryName(keyId), text).catch(noKeychain);
    if ((await keychain.get(entryName(keyId)).catch(noKeychain)) !== text) {
      throw noKeychain(new Error('it does not give back what was put into it'));
    }
    return { protection: { kind, keyId }, key };
  }

  /**
   * The key that opens this file.
   *
   * @throws MeshError `invalid_request` for a wrong passphrase, or a keychain that does not give the key.
   */
  async find(file: SecretFile): Promise<Buffer | null> {
    const { protection } = file;
    if (protection === null || protection.kind === 'plain') return null;
    if (protection.kind === 'encrypted') {
      const passphrase = await this.#components.passphrase('open');
      const key = await keyOfPassphrase(passphrase, Buffer.from(protection.salt, 'base64url'), protection.cost);
      if (isKeyOf(file, key)) return key;
      throw refused('the passphrase is not the one that secrets.json was encrypted with');
    }
    const remedy = 'unlock it and try again; if it is gone for good, move secrets.json away and set the keys again';
    const text = await this.#components.keychain.get(entryName(protection.keyId)).catch((error: Error) => {
      throw refused(`the keychain does not give the key of secrets.json (${error.message}): ${remedy}`);
    });
    if (text === null) throw refused(`the keychain has no key for secrets.json: ${remedy}`);
    const key = Buffer.from(text, 'base64url');
    if (key.length === SEAL_KEY_BYTES && isKeyOf(file, key)) return key;
    throw refused('the key in the keychain does not open secrets.json: restore one of them from a backup');
  }

  /** Forgets what is kept of a key beside the file. Never rejects: what stays behind opens nothing any more. */
  async forget(protection: Protection | null): Promise<void> {
    if (protection?.kind === 'keychain') {
      await this.#components.keychain.delete(entryName(protection.keyId)).catch(() => {});
    }
  }

  /** Null when the keychain works, else why not. */
  probe(): Promise<string | null> {
    return this.#components.keychain.probe();
  }
}

/** An empty file with this protection. */
export function emptyFile({ protection, key }: SecretKey): SecretFile {
  return { protection, check: key === null ? null : seal(key, boundName(protection, ''), CHECK), entries: new Map() };
}

/** Stored form of a secret in a file of this protection. */
export function stored({ protection, key }: SecretKey, name: string, secret: string): string {
  return key === null ? secret : seal(key, boundName(protection, name), secret);
}

/** All secrets of a file by name. @throws MeshError `invalid_request` that names the one that is damaged. */
export function openedEntries(file: SecretFile, key: Buffer | null): ReadonlyMap<string, string> {
  const { protection, entries } = file;
  if (key === null || protection === null) return entries;
  const open = (name: string, sealed: string): string => {
    const secret = unseal(key, boundName(protection, name), sealed);
    if (secret === null)
      throw refused(`"${name}" in secrets.json was changed from outside: remove it and set it again`);
    return secret;
  };
  return new Map([...entries].map(([name, sealed]) => [name, open(name, sealed)]));
}

/** Tells protections apart: two that are equal have the same key. */
export function protectionId(protection: Protection | null): string {
  if (protection === null || protection.kind === 'plain') return 'plain';
  return protection.kind === 'keychain' ? `keychain:${protection.keyId}` : `encrypted:${protection.salt}`;
}

function isKeyOf({ protection, check }: SecretFile, key: Buffer): boolean {
  return check !== null && unseal(key, boundName(protection, ''), check) === CHECK;
}

/** A sealed secret opens in its own file and under its own name only: nobody can hand one server's key to another. */
const boundName = (protection: Protection | null, name: string): string => `${protectionId(protection)}/${name}`;

const entryName = (keyId: string): string => `secrets/${keyId}`;

const refused = (message: string): MeshError => new MeshError('invalid_request', message, { param: 'secrets' });

function noKeychain(error: Error): never {
  throw refused(
    `the keychain of this system cannot be used (${error.message}): set secrets.store to encrypted or plain`,
  );
}
