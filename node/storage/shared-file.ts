/** A small private JSON file that several processes edit: the node that runs and the commands that its owner types. */
import { open, readFile, rm, stat } from 'node:fs/promises';
import { type Clock, sleep } from '../common/clock.ts';
import { MeshError, toMeshError } from '../common/errors.ts';
import type { Startable } from '../common/lifecycle.ts';
import { writePrivateFile } from './private-file.ts';

export interface SharedFileComponents {
  readonly clock: Clock;
  /** Says that the file turned bad while the node ran; the last good content stays in force. */
  readonly warn: (message: string) => void;
}

export interface SharedFileOptions<T> {
  readonly path: string;
  /** A larger file is refused. */
  readonly maxBytes: number;
  /** What an absent file means. */
  readonly empty: T;
  /** @throws Error with a reason that may be shown; it must not quote the content. */
  parse(json: unknown): T;
  format(value: T): unknown;
}

const POLL_MS = 1000;
/** An edit takes milliseconds: a lock older than this was left by a killed process. */
const STALE_LOCK_MS = 10_000;
const LOCK_WAIT_MS = 5000;
const LOCK_RETRY_MS = 20;

/**
 * Mode 0600, replaced atomically. `start` reads it and looks every second whether somebody else changed it; edits are
 * read, changed and written back under a lock file, so that none gets lost.
 */
export class SharedFile<T> implements Startable {
  readonly #components: SharedFileComponents;
  readonly #options: SharedFileOptions<T>;
  readonly #listeners = new Set<() => void>();
  #value: T;
  #stamp = '';
  #edits: Promise<unknown> = Promise.resolve();
  #looking: Promise<void> | null = null;
  #cancelPoll: (() => void) | null = null;

  constructor(components: SharedFileComponents, options: SharedFileOptions<T>) {
    this.#components = components;
    this.#options = options;
    this.#value = options.empty;
  }

  /** As of the last look. */
  get value(): T {
    return this.#value;
  }

  /** @throws MeshError `invalid_request` that names the file when it cannot be understood. */
  async start(): Promise<void> {
    await this.load();
    this.#cancelPoll ??= this.#components.clock.every(POLL_MS, () => this.#poll());
  }

  async stop(): Promise<void> {
    this.#cancelPoll?.();
    this.#cancelPoll = null;
    await Promise.allSettled([this.#looking, this.#edits]);
  }

  /** Called after each change of `value`, whoever made it; returns the unsubscribe. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Reads the file now, unless it is the same as at the last look.
   *
   * @throws MeshError `invalid_request` that names the file when it cannot be understood; `value` is unchanged then.
   */
  async load(): Promise<void> {
    const stamp = await stampOf(this.#options.path);
    if (stamp === this.#stamp) return;
    const value = stamp === ABSENT ? this.#options.empty : await this.#read();
    this.#stamp = stamp;
    this.#set(value);
  }

  /**
   * Applies `change` to what the file holds now. When `change` throws, nothing is written.
   *
   * @throws MeshError `invalid_request` (damaged file, locked, cannot be written), or what `change` throws.
   */
  edit(change: (value: T) => T): Promise<T> {
    const edit = this.#edits.then(() => this.#edit(change));
    this.#edits = edit.catch(() => {});
    return edit;
  }

  async #edit(change: (value: T) => T): Promise<T> {
    const { path, format } = this.#options;
    const unlock = await this.#lock();
    try {
      await this.load();
      const value = change(this.#value);
      if (value === this.#value) return value;
      await writePrivateFile(path, `${JSON.stringify(format(value), null, 2)}\n`);
      this.#stamp = await stampOf(path);
      this.#set(value);
      return value;
    } catch (error) {
      throw error instanceof MeshError ? error : fileError(path, 'cannot be written', error);
    } finally {
      await unlock();
    }
  }

  async #lock(): Promise<() => Promise<void>> {
    const { clock } = this.#components;
    const path = `${this.#options.path}.lock`;
    for (const giveUpAt = clock.now() + LOCK_WAIT_MS; ; await sleep(clock, LOCK_RETRY_MS)) {
      try {
        await (await open(path, 'wx', 0o600)).close();
        return () => rm(path, { force: true });
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw fileError(path, 'cannot be written', error);
      }
      const since = await stat(path).catch(() => null);
      if (since !== null && Date.now() - since.mtimeMs > STALE_LOCK_MS) await rm(path, { force: true });
      if (clock.now() > giveUpAt) {
        throw new MeshError('invalid_request', `${this.#options.path} is being changed by another process: try again`);
      }
    }
  }

  async #read(): Promise<T> {
    const { path, maxBytes, parse } = this.#options;
    try {
      const text = await readFile(path, 'utf8');
      if (text.length > maxBytes) throw new Error(`larger than ${maxBytes} bytes`);
      return parse(parseJson(text));
    } catch (error) {
      throw fileError(path, 'cannot be used', error);
    }
  }

  #poll(): void {
    this.#looking ??= this.#edits
      .then(() => this.load())
      .catch((error: unknown) => this.#components.warn(toMeshError(error).message))
      .finally(() => {
        this.#looking = null;
      });
  }

  #set(value: T): void {
    if (value === this.#value) return;
    this.#value = value;
    for (const listener of this.#listeners) listener();
  }
}

const ABSENT = 'absent';

async function stampOf(path: string): Promise<string> {
  try {
    const { ino, size, mtimeNs } = await stat(path, { bigint: true });
    return `${ino}:${size}:${mtimeNs}`;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return ABSENT;
    throw fileError(path, 'cannot be read', error);
  }
}

/** The parser's own message would quote the file. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    throw new Error('it is no JSON');
  }
}

function fileError(path: string, problem: string, error: unknown): MeshError {
  if (error instanceof MeshError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  return new MeshError('invalid_request', `${path} ${problem} (${code ?? message}): repair it, or move it away`);
}
