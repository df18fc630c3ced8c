/**
 * Keys that this node shows to others, in a plain file that is called what it is: `<dataDir>/secrets.json`, readable
 * by its owner only (0600). Not encrypted: whoever can read it as that user could read a key beside it as well.
 */
import { join } from 'node:path';
import { MeshError } from '../common/errors.ts';
import type { Startable } from '../common/lifecycle.ts';
import { SharedFile, type SharedFileComponents } from './shared-file.ts';

export interface SecretFileOptions {
  readonly dataDir: string;
}

const MAX_SECRETS = 1024;
const MAX_FILE_BYTES = 8 * 1024 * 1024;
/** What can stand in a header: visible ASCII without spaces. */
const SECRET = /^[\x21-\x7e]{1,4096}$/;
const NAME = /^[\w:./-]{1,256}$/;

type Secrets = ReadonlyMap<string, string>;

/** Secrets by name, for example `node/12D3…`. Nothing here prints one; errors name the secret, never quote it. */
export class SecretFile implements Startable {
  readonly #file: SharedFile<Secrets>;

  constructor(components: SharedFileComponents, { dataDir }: SecretFileOptions) {
    const path = join(dataDir, 'secrets.json');
    this.#file = new SharedFile<Secrets>(components, {
      path,
      maxBytes: MAX_FILE_BYTES,
      empty: new Map(),
      parse: parseSecrets,
      format: (secrets) => ({ secrets: Object.fromEntries(secrets) }),
    });
  }

  /** Reads the file and from then on looks every second whether it changed. */
  start(): Promise<void> {
    return this.#file.start();
  }

  stop(): Promise<void> {
    return this.#file.stop();
  }

  /** Reads the file once: for commands, which do not `start`. */
  load(): Promise<void> {
    return this.#file.load();
  }

  /** As of the last look; null when there is none. */
  get(name: string): string | null {
    return this.#file.value.get(name) ?? null;
  }

  has(name: string): boolean {
    return this.#file.value.has(name);
  }

  /** @throws MeshError `invalid_request` when it could not stand in a header, or the file cannot be written. */
  async set(name: string, secret: string): Promise<void> {
    if (!NAME.test(name))
      throw new MeshError('invalid_request', 'The name of a secret has letters, digits and _:./- only');
    if (!SECRET.test(secret)) {
      throw new MeshError('invalid_request', 'A key is 1 to 4096 visible ASCII characters without spaces', {
        param: 'key',
      });
    }
    await this.#file.edit((secrets) => {
      if (!secrets.has(name) && secrets.size >= MAX_SECRETS) {
        throw new MeshError('invalid_request', `There are ${MAX_SECRETS} keys already: remove one first`);
      }
      return new Map(secrets).set(name, secret);
    });
  }

  /** Returns whether there was one. */
  async delete(name: string): Promise<boolean> {
    let found = false;
    await this.#file.edit((secrets) => {
      const left = new Map(secrets);
      found = left.delete(name);
      return found ? left : secrets;
    });
    return found;
  }

  /** Called after each change, also one made by another process; returns the unsubscribe. */
  onChange(listener: () => void): () => void {
    return this.#file.onChange(listener);
  }
}

function parseSecrets(json: unknown): Secrets {
  const secrets = typeof json === 'object' && json !== null && 'secrets' in json ? json.secrets : null;
  if (typeof secrets !== 'object' || secrets === null) throw new Error('it has no "secrets"');
  const entries = Object.entries(secrets as Record<string, unknown>);
  const valid = entries.filter(
    (entry): entry is [string, string] => typeof entry[1] === 'string' && SECRET.test(entry[1]),
  );
  if (valid.length !== entries.length) throw new Error('a secret in it is no visible ASCII text');
  return new Map(valid.slice(0, MAX_SECRETS));
}
