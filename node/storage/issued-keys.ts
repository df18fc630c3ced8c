/** The keys that this node gave out, so that it knows whose requests it runs. Only their hashes are kept. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto';
import { join } from 'node:path';
import type { Clock } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';
import {
  formatKeyFile,
  type IssuedKeyView,
  type KeyFileEntry,
  type KeyLimits,
  MAX_KEYS,
  parseKeyFile,
} from './key-file.ts';
import { SharedFile } from './shared-file.ts';

export type { IssuedKeyView, KeyLimits } from './key-file.ts';

/** What a key may be good for. `inference`: asking this node's engine from another node. */
export const KEY_SCOPES = ['inference'] as const;
export type KeyScope = (typeof KEY_SCOPES)[number];

export interface NewKey {
  /** Default `['inference']`. */
  readonly scopes?: readonly KeyScope[];
  /** Prompt and generated tokens together; null or absent: no limit. */
  readonly tokensPerMinute?: number | null;
  /** Requests at once; null or absent: only the limit that every peer has. */
  readonly inFlight?: number | null;
  /** Unix milliseconds from which on it is refused; null or absent: never. */
  readonly expiresAt?: number | null;
}

/** Whose key it is, and what it allows. */
export interface VerifiedKey {
  readonly id: string;
  readonly name: string;
  readonly scopes: readonly string[];
  readonly limits: KeyLimits;
}

export interface IssuedKeysComponents {
  readonly clock: Clock;
  /** Unix milliseconds. Default: the system's. */
  readonly unixNow?: () => number;
}

export interface IssuedKeysOptions {
  readonly dataDir: string;
  /** The file is looked at again after this long. Default 1,000 ms. */
  readonly refreshMs?: number;
}

const MAX_FILE_BYTES = 4 * 2 ** 20;
const MAX_NAME_CHARS = 64;
const ID_CHARS = 8;

/**
 * `<dataDir>/keys.json` (0600). Other processes may edit it meanwhile: call `refresh` before `required` and `verify`,
 * which answer from what was read last.
 */
export class IssuedKeys {
  readonly #clock: Clock;
  readonly #unixNow: () => number;
  readonly #refreshMs: number;
  readonly #file: SharedFile<readonly KeyFileEntry[]>;
  /** False before the first look, and while the file cannot be understood: nobody is let in then. */
  #readable = false;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #looking: Promise<void> | null = null;

  constructor({ clock, unixNow = Date.now }: IssuedKeysComponents, { dataDir, refreshMs = 1000 }: IssuedKeysOptions) {
    this.#clock = clock;
    this.#unixNow = unixNow;
    this.#refreshMs = refreshMs;
    const path = join(dataDir, 'keys.json');
    this.#file = new SharedFile(
      { clock, warn: () => {} },
      { path, maxBytes: MAX_FILE_BYTES, empty: [], parse: parseKeyFile, format: formatKeyFile },
    );
  }

  /** Looks whether the file has changed, at most once in `refreshMs`. Never rejects. */
  refresh(): Promise<void> {
    if (this.#looking !== null) return this.#looking;
    if (this.#clock.now() - this.#lookedAt < this.#refreshMs) return Promise.resolve();
    this.#lookedAt = this.#clock.now();
    this.#looking = this.#file
      .load()
      .then(
        () => true,
        () => false,
      )
      .then((readable) => {
        this.#readable = readable;
        this.#looking = null;
      });
    return this.#looking;
  }

  /**
   * Must a peer show a key? Yes once one was created, and revoking the last one does not open the node again: `clear`
   * does. A file that cannot be read or understood lets nobody in either.
   */
  required(): boolean {
    return !this.#readable || this.#file.value.length > 0;
  }

  /** Whose key this is; null for one that is unknown, revoked or expired. Takes as long for each. */
  verify(key: string): VerifiedKey | null {
    const hash = sha256(key);
    let found: KeyFileEntry | null = null;
    for (const entry of this.#file.value) if (timingSafeEqual(entry.hash, hash)) found = entry;
    if (!this.#readable || found === null || !isActive(found, this.#unixNow())) return null;
    const { id, name, scopes, limits } = found;
    return { id, name, scopes, limits };
  }

  /** All that were created, revoked ones too, oldest first. @throws MeshError `invalid_request` for a damaged file. */
  async list(): Promise<IssuedKeyView[]> {
    await this.#file.load();
    return this.#file.value.map(view);
  }

  /**
   * Makes a key. `key` is `mk_` and 43 characters, and cannot be had a second time.
   *
   * @throws MeshError `invalid_request` for a name that is taken or unusable, limits out of range, or a file that is
   *   damaged or cannot be written.
   */
  async create(name: string, options: NewKey = {}): Promise<{ readonly key: string; readonly view: IssuedKeyView }> {
    const { scopes = KEY_SCOPES, tokensPerMinute = null, inFlight = null, expiresAt = null } = options;
    const createdAt = this.#unixNow();
    checkName(name);
    checkPositive(tokensPerMinute, 'tokensPerMinute');
    checkPositive(inFlight, 'inFlight');
    checkScopes(scopes);
    checkExpiry(expiresAt, createdAt);
    const { key, hash, id } = freshKey();
    const limits = { tokensPerMinute, inFlight };
    const entry = { id, name, scopes: [...scopes], limits, createdAt, expiresAt, revokedAt: null, hash };
    await this.#edit((entries) => {
      checkRoom(entry, entries);
      return [...entries, entry];
    });
    return { key, view: view(entry) };
  }

  /** Refuses the key of this id or name from now on. @throws MeshError `not_found` that names the keys there are. */
  async revoke(idOrName: string): Promise<IssuedKeyView> {
    const revokedAt = this.#unixNow();
    const isMeant = ({ id, name }: KeyFileEntry): boolean => id === idOrName || name === idOrName;
    const entries = await this.#edit((before) => {
      const found = inUse(before).find(isMeant);
      if (found === undefined) throw noSuchKey(before);
      return before.map((entry) => (entry === found ? { ...found, revokedAt } : entry));
    });
    // A name may have been revoked before: the newest of it is the one.
    const revoked = entries.findLast(isMeant);
    if (revoked === undefined) throw noSuchKey(entries);
    return view(revoked);
  }

  /** Forgets all keys: peers need none from now on. */
  async clear(): Promise<void> {
    await this.#edit(() => []);
  }

  async #edit(change: (entries: readonly KeyFileEntry[]) => readonly KeyFileEntry[]): Promise<readonly KeyFileEntry[]> {
    const entries = await this.#file.edit(change);
    this.#readable = true;
    return entries;
  }
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

function isActive({ revokedAt, expiresAt }: KeyFileEntry, now: number): boolean {
  return revokedAt === null && (expiresAt === null || now < expiresAt);
}

function view({ hash: _, ...rest }: KeyFileEntry): IssuedKeyView {
  return rest;
}

const inUse = (entries: readonly KeyFileEntry[]): KeyFileEntry[] =>
  entries.filter(({ revokedAt }) => revokedAt === null);

function noSuchKey(entries: readonly KeyFileEntry[]): MeshError {
  const names = inUse(entries).map(({ name }) => name);
  const there = names.length === 0 ? 'there are none' : `there are: ${names.join(', ')}`;
  return new MeshError('not_found', `no key in use has this id or name; ${there}`);
}

function freshKey(): { key: string; hash: Buffer; id: string } {
  const key = `mk_${randomBytes(32).toString('base64url')}`;
  const hash = sha256(key);
  return { key, hash, id: hash.toString('hex').slice(0, ID_CHARS) };
}

function checkRoom({ name, id }: KeyFileEntry, entries: readonly KeyFileEntry[]): void {
  if (inUse(entries).some((entry) => entry.name === name)) {
    throw badName('is taken: choose another, or revoke that key first');
  }
  if (entries.some((entry) => entry.id === id)) {
    throw new MeshError('invalid_request', 'by a rare chance the new key has the id of an old one: try again');
  }
  if (entries.length >= MAX_KEYS) {
    throw new MeshError('invalid_request', `there are ${MAX_KEYS} keys already: remove revoked ones from keys.json`);
  }
}

function checkName(name: string): void {
  if (!/^[\p{L}\p{N}][\p{L}\p{N} ._@-]*$/u.test(name) || name.length > MAX_NAME_CHARS) {
    throw badName(
      `must be 1 to ${MAX_NAME_CHARS} letters, digits, spaces or . _ @ -, and begin with a letter or digit`,
    );
  }
  if (/^[0-9a-f]{8}$/.test(name)) throw badName('must not look like the id of one (8 hex digits)');
  if (name.startsWith('mk_')) throw badName('must not be a key itself');
}

function badName(why: string): MeshError {
  return new MeshError('invalid_request', `the name of a key ${why}`, { param: 'name' });
}

function checkExpiry(expiresAt: number | null, now: number): void {
  if (expiresAt === null || (Number.isSafeInteger(expiresAt) && expiresAt > now)) return;
  throw new MeshError('invalid_request', 'a key must expire in the future', { param: 'expiresAt' });
}

function checkScopes(scopes: readonly string[]): void {
  const known = scopes.every((scope) => (KEY_SCOPES as readonly string[]).includes(scope));
  if (scopes.length > 0 && known) return;
  throw new MeshError('invalid_request', `the scopes of a key are some of: ${KEY_SCOPES.join(', ')}`, {
    param: 'scopes',
  });
}

function checkPositive(value: number | null, param: string): void {
  if (value === null || (Number.isSafeInteger(value) && value > 0)) return;
  throw new MeshError('invalid_request', `${param} must be a whole number above 0`, { param });
}
