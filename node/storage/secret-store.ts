/**
 * The one store for every key that this node shows to others: `<dataDir>/secrets.json` (0600). Plain, or each secret
 * sealed by a key that lies in the keychain of the operating system or that a passphrase makes. The file says which it
 * is, so that changing the kind is one rename: a crash leaves the old store or the new one, never a mixture.
 */
import { join } from 'node:path';
import { MeshError, toMeshError } from '../common/errors.ts';
import type { Startable } from '../common/lifecycle.ts';
import {
  formatSecretFile,
  MAX_SECRET_FILE_BYTES,
  MAX_SECRETS,
  NO_SECRETS,
  parseSecretFile,
  SECRET,
  SECRET_NAME,
  type SecretFile,
  type SecretStoreKind,
} from './secret-file.ts';
import { emptyFile, openedEntries, protectionId, type SecretKey, type SecretKeys, stored } from './secret-keys.ts';
import { SharedFile, type SharedFileComponents } from './shared-file.ts';

/** What `secrets.store` may be: `auto` keeps the kind that there is, and begins with the keychain where it works. */
export type SecretStoreChoice = 'auto' | SecretStoreKind;

export interface SecretStoreComponents extends SharedFileComponents {
  readonly keys: SecretKeys;
}

export interface SecretStoreOptions {
  readonly dataDir: string;
  readonly store: SecretStoreChoice;
}

/** What may be said of a store. */
export interface SecretStoreView {
  /** Null: nothing is kept yet. */
  readonly kind: SecretStoreKind | null;
  readonly choice: SecretStoreChoice;
  /** Secrets in it. */
  readonly count: number;
}

const MAX_TRIES = 5;

/** Secrets by name, for example `node/12D3…`. Nothing here prints one; errors name the secret, never quote it. */
export class SecretStore implements Startable {
  readonly #warn: (message: string) => void;
  readonly #keys: SecretKeys;
  readonly #choice: SecretStoreChoice;
  readonly #path: string;
  readonly #file: SharedFile<SecretFile>;
  readonly #listeners = new Set<() => void>();
  /** By `protectionId`. */
  readonly #known = new Map<string, Buffer | null>([['plain', null]]);
  #opened: ReadonlyMap<string, string> | null = null;
  #following = false;
  #opening: Promise<void> = Promise.resolve();

  constructor({ keys, ...components }: SecretStoreComponents, { dataDir, store }: SecretStoreOptions) {
    this.#warn = components.warn;
    this.#keys = keys;
    this.#choice = store;
    this.#path = join(dataDir, 'secrets.json');
    this.#file = new SharedFile<SecretFile>(components, {
      path: this.#path,
      maxBytes: MAX_SECRET_FILE_BYTES,
      empty: NO_SECRETS,
      parse: parseSecretFile,
      format: formatSecretFile,
    });
    this.#file.onChange(() => this.#changed());
  }

  /**
   * Reads and opens the file, and from then on looks every second whether it changed.
   *
   * @throws MeshError `invalid_request` that says why it cannot be opened, or that it is of another kind than chosen.
   */
  async start(): Promise<void> {
    await this.#file.start();
    this.#refuseOtherKind();
    await this.unlock();
    this.#following = true;
    const { kind, count } = this.view();
    if (kind === 'plain' && count > 0 && this.#choice === 'auto') this.#warn(plainWarning(this.#path, count));
  }

  async stop(): Promise<void> {
    this.#following = false;
    await this.#file.stop();
    await this.#opening;
  }

  /** Reads the file once, without opening it: enough to say which secrets there are. For commands. */
  load(): Promise<void> {
    return this.#file.load();
  }

  /** Opens what was read, so that `get` answers. Asks the keychain or for the passphrase. @throws MeshError as `start`. */
  async unlock(): Promise<void> {
    for (let tries = 0; !this.#open(); tries += 1) {
      if (tries === MAX_TRIES) throw refused(`${this.#path} keeps changing: try again`);
      const file = this.#file.value;
      this.#known.set(protectionId(file.protection), await this.#keys.find(file));
    }
  }

  /** As of the last look; null when there is none. @throws MeshError `internal_error` before `unlock`. */
  get(name: string): string | null {
    if (this.#opened === null) {
      if (!this.has(name)) return null;
      throw new MeshError('internal_error', 'the secrets are asked for before they are unlocked');
    }
    return this.#opened.get(name) ?? null;
  }

  has(name: string): boolean {
    return this.#file.value.entries.has(name);
  }

  view(): SecretStoreView {
    const { protection, entries } = this.#file.value;
    return { kind: protection?.kind ?? null, choice: this.#choice, count: entries.size };
  }

  /** The kind that the next secret is kept in; `problem`: why the keychain does not work, null when it does. */
  async outlook(): Promise<{ readonly kind: SecretStoreKind; readonly problem: string | null }> {
    const kind = this.view().kind ?? (this.#choice === 'auto' ? null : this.#choice);
    const problem = await this.#keys.probe();
    return { kind: kind ?? (problem === null ? 'keychain' : 'plain'), problem };
  }

  /** @throws MeshError `invalid_request` when it could not stand in a header, or the store cannot be used. */
  async set(name: string, secret: string): Promise<void> {
    if (!SECRET_NAME.test(name)) throw refused('The name of a secret has letters, digits and _:./- only');
    if (!SECRET.test(secret)) throw refused('A key is 1 to 4096 visible ASCII characters without spaces', 'key');
    for (let tries = 0; tries < MAX_TRIES; tries += 1) if (await this.#trySet(name, secret)) return;
    throw refused(`${this.#path} keeps changing: try again`);
  }

  /** Returns whether there was one. Needs no unlocking. */
  async delete(name: string): Promise<boolean> {
    let found = false;
    await this.#file.edit((file) => {
      const entries = new Map(file.entries);
      found = entries.delete(name);
      return found ? { ...file, entries } : file;
    });
    return found;
  }

  /**
   * Moves all secrets into a store of this kind; `encrypted` again changes the passphrase. The new one is written and
   * proven before the old one ends, and a process that dies in between leaves one of the two whole.
   *
   * @throws MeshError `invalid_request`; everything is as it was then.
   */
  async use(kind: SecretStoreKind): Promise<SecretStoreView> {
    await this.load();
    const before = this.#file.value.protection;
    if (before?.kind === kind && kind !== 'encrypted') return this.view();
    await this.unlock();
    const next = await this.#keys.make(kind, before);
    this.#known.set(protectionId(next.protection), next.key);
    try {
      await this.#file.edit((file) => {
        if (protectionId(file.protection) !== protectionId(before)) {
          throw refused('another process changed the store meanwhile: try again');
        }
        return moved(file, this.#known.get(protectionId(before)) ?? null, next);
      });
    } catch (error) {
      await this.#keys.forget(next.protection);
      throw error;
    }
    await this.#keys.forget(before);
    return this.view();
  }

  /** Called after each change, also one made by another process; returns the unsubscribe. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** False when another process gave the file another protection meanwhile. */
  async #trySet(name: string, secret: string): Promise<boolean> {
    await this.load();
    this.#refuseOtherKind();
    const { kind, choice } = this.view();
    // An empty store of another kind than chosen.
    if (kind !== null && choice !== 'auto' && kind !== choice) await this.use(choice);
    const isFirst = kind === null;
    const key = isFirst ? await this.#first() : await this.#current();
    let fits = true;
    try {
      await this.#file.edit((file) => {
        fits = file.protection === null ? isFirst : protectionId(file.protection) === protectionId(key.protection);
        return fits ? withSecret(file.protection === null ? emptyFile(key) : file, key, name, secret) : file;
      });
      return fits;
    } catch (error) {
      fits = false;
      throw error;
    } finally {
      if (isFirst && !fits) await this.#keys.forget(key.protection);
    }
  }

  /** The protection and key of a file that has none yet. */
  async #first(): Promise<SecretKey> {
    const { kind, problem } = await this.outlook();
    if (kind === 'plain' && this.#choice === 'auto') this.#warn(noKeychainWarning(this.#path, problem));
    const made = await this.#keys.make(kind);
    this.#known.set(protectionId(made.protection), made.key);
    return made;
  }

  async #current(): Promise<SecretKey> {
    await this.unlock();
    const { protection } = this.#file.value;
    return { protection: protection ?? { kind: 'plain' }, key: this.#known.get(protectionId(protection)) ?? null };
  }

  /** Opens the file with a key that is known; false when it is not. */
  #open(): boolean {
    const file = this.#file.value;
    const key = this.#known.get(protectionId(file.protection));
    if (key === undefined) return false;
    this.#opened = openedEntries(file, key);
    return true;
  }

  /** The values of before stay in force while a new protection is opened, and when it cannot be. */
  #changed(): void {
    try {
      if (this.#open() || !this.#following) {
        this.#tell();
        return;
      }
    } catch (error) {
      this.#warn(toMeshError(error).message);
      return;
    }
    this.#opening = this.#opening
      .then(() => this.unlock())
      .then(() => this.#tell())
      .catch((error: unknown) => this.#warn(toMeshError(error).message));
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }

  #refuseOtherKind(): void {
    const { kind, choice, count } = this.view();
    if (kind === null || choice === 'auto' || choice === kind || count === 0) return;
    throw refused(
      `the keys of this node are in the ${kind} store, and secrets.store says ${choice}: run meshnode secrets use ${choice}`,
    );
  }
}

/** The same secrets under another protection, proven to open before anything is written. */
function moved(file: SecretFile, key: Buffer | null, next: SecretKey): SecretFile {
  const secrets = openedEntries(file, key);
  const entries = new Map([...secrets].map(([name, secret]) => [name, stored(next, name, secret)]));
  const made = { ...emptyFile(next), entries };
  const proof = openedEntries(made, next.key);
  if ([...secrets].every(([name, secret]) => proof.get(name) === secret) && proof.size === secrets.size) return made;
  throw refused('the new store does not give back what was put into it: nothing was changed');
}

function withSecret(file: SecretFile, key: SecretKey, name: string, secret: string): SecretFile {
  if (!file.entries.has(name) && file.entries.size >= MAX_SECRETS) {
    throw refused(`There are ${MAX_SECRETS} keys already: remove one first`);
  }
  return { ...file, entries: new Map(file.entries).set(name, stored(key, name, secret)) };
}

function noKeychainWarning(path: string, problem: string | null): string {
  return `no keychain can be used (${problem ?? 'unknown'}): the key is kept in a plain file that only you can read (${path}); meshnode secrets use encrypted protects it by a passphrase`;
}

function plainWarning(path: string, count: number): string {
  const keys = count === 1 ? '1 key of another node lies' : `${count} keys of other nodes lie`;
  return `${keys} in a plain file that only you can read (${path}): meshnode secrets use keychain, or encrypted, protects them; config set secrets.store plain ends this line`;
}

const refused = (message: string, param = 'secrets'): MeshError => new MeshError('invalid_request', message, { param });
