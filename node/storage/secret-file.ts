/**
 * `secrets.json` of a data dir as data: which kind of store it is, and the secrets in it. The names of secrets are
 * readable in every kind, so that listing nodes needs no passphrase.
 */
import { isScryptCost, type ScryptCost } from './secret-seal.ts';

/** plain: readable by whoever reads the file; keychain: its key lies in the keychain of the OS; encrypted: a passphrase is. */
export const SECRET_STORES = ['keychain', 'encrypted', 'plain'] as const;
export type SecretStoreKind = (typeof SECRET_STORES)[number];

/** What stands between a reader of the file and the secrets. */
export type Protection =
  | { readonly kind: 'plain' }
  /** `keyId` names the entry of the keychain that holds the key. */
  | { readonly kind: 'keychain'; readonly keyId: string }
  /** `salt`: base64url. */
  | { readonly kind: 'encrypted'; readonly salt: string; readonly cost: ScryptCost };

export interface SecretFile {
  /** Null: there is no file yet. */
  readonly protection: Protection | null;
  /** A known text sealed with the key, so that a wrong one is told apart from damage; null in a plain file. */
  readonly check: string | null;
  /** By name: the secret itself in a plain file, else sealed. */
  readonly entries: ReadonlyMap<string, string>;
}

export const NO_SECRETS: SecretFile = { protection: null, check: null, entries: new Map() };
export const MAX_SECRETS = 1024;
export const MAX_SECRET_FILE_BYTES = 8 * 1024 * 1024;
const VERSION = 1;
/** What can stand in a header: visible ASCII without spaces. */
export const SECRET = /^[\x21-\x7e]{1,4096}$/;
export const SECRET_NAME = /^[\w:./-]{1,256}$/;
const SEALED = /^[A-Za-z0-9_-]{38,8192}$/;
const KEY_ID = /^[0-9a-f]{32}$/;
const SALT = /^[A-Za-z0-9_-]{22,86}$/;

/** @throws Error with a reason that may be shown; it does not quote the content. */
export function parseSecretFile(json: unknown): SecretFile {
  const file = objectOf(json, 'it is no JSON object');
  if (file['version'] !== undefined && file['version'] !== VERSION) throw new Error('a later meshnode wrote it');
  if ('sealed' in file) {
    const check = file['check'];
    if (typeof check !== 'string' || !SEALED.test(check)) throw new Error('it has no "check"');
    return { protection: sealProtection(file), check, entries: entriesOf(file['sealed'], SEALED) };
  }
  if (!('secrets' in file)) throw new Error('it has no "secrets"');
  return { protection: { kind: 'plain' }, check: null, entries: entriesOf(file['secrets'], SECRET) };
}

/** The other way. */
export function formatSecretFile({ protection, check, entries }: SecretFile): unknown {
  const values = Object.fromEntries(entries);
  if (protection === null || protection.kind === 'plain') return { version: VERSION, store: 'plain', secrets: values };
  const { kind: store, ...how } = protection;
  return { version: VERSION, store, ...how, check, sealed: values };
}

function sealProtection(file: Readonly<Record<string, unknown>>): Protection {
  const { store, keyId, salt } = file;
  if (store === 'keychain' && typeof keyId === 'string' && KEY_ID.test(keyId)) return { kind: store, keyId };
  if (store === 'encrypted' && typeof salt === 'string' && SALT.test(salt)) {
    const { n, r, p } = objectOf(file['cost'], 'it has no "cost"') as unknown as ScryptCost;
    if (!isScryptCost({ n, r, p })) throw new Error('its scrypt cost is out of bounds');
    return { kind: store, salt, cost: { n, r, p } };
  }
  throw new Error('its "store" is unknown');
}

function entriesOf(json: unknown, form: RegExp): ReadonlyMap<string, string> {
  const entries = Object.entries(objectOf(json, 'it has no secrets by name'));
  const valid = entries.filter(
    (entry): entry is [string, string] => typeof entry[1] === 'string' && form.test(entry[1]),
  );
  if (valid.length !== entries.length) throw new Error('a secret in it is no visible ASCII text');
  if (entries.length > MAX_SECRETS) throw new Error(`it has more than ${MAX_SECRETS} secrets`);
  return new Map(valid);
}

function objectOf(value: unknown, problem: string): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new Error(problem);
}
