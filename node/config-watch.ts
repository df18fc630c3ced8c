/** The part of the configuration that a running node can change: its file is followed, a bad one changes nothing. */
import { type FSWatcher, statSync, watch } from 'node:fs';
import path from 'node:path';
import type { CancelTimer, Clock } from './common/clock.ts';
import { toMeshError } from './common/errors.ts';
import type { Startable } from './common/lifecycle.ts';
import { type Config, type ConfigInput, type LoadedConfig, loadConfig } from './config.ts';
import { editConfig } from './config-edit.ts';
import { ModelAliases } from './routing/model-aliases.ts';
import type { LoadBalancing } from './routing/settings.ts';

/** Where the configuration came from and how to read it again. */
export interface ConfigSource {
  /** The config file, which need not exist. */
  readonly path: string;
  /** @throws MeshError that says what is wrong. */
  load(): LoadedConfig;
  /** Changes keys of the file, all or none; null removes one. @throws MeshError */
  edit(changes: Readonly<Record<string, string | null>>): void;
}

/** The source behind `loadConfig(input)`. */
export function configSource(input: ConfigInput): ConfigSource {
  return {
    path: loadConfig(input).path,
    load: () => loadConfig(input),
    edit: (changes) => void editConfig(input, changes),
  };
}

export interface ConfigWatchComponents {
  readonly clock: Clock;
  readonly source: ConfigSource;
  /** One line about a file that cannot be used, or a change that could not be kept. */
  readonly warn: (message: string) => void;
}

export interface ConfigWatchOptions {
  /** How often the file is looked at where the system does not tell of changes. Default 1 s. */
  readonly pollMs: number;
}

export const DEFAULT_CONFIG_WATCH: ConfigWatchOptions = { pollMs: 1_000 };

/** Holds what is in force: of the load balancing what was set last, by the file or by `set`; aliases as configured. */
export class ConfigWatch implements Startable {
  readonly #components: ConfigWatchComponents;
  readonly #options: ConfigWatchOptions;
  readonly #listeners = new Set<(now: LoadBalancing) => void>();
  readonly #loadListeners = new Set<(config: Config) => void>();
  #current: LoadBalancing;
  /** As the four sources say; flags and variables hide the file, so its change need not be one. */
  #configured: LoadBalancing;
  #aliases = new ModelAliases();
  #stamp = '';
  #cancel: CancelTimer | null = null;
  #watcher: FSWatcher | null = null;

  constructor(
    components: ConfigWatchComponents,
    initial: LoadBalancing,
    options: ConfigWatchOptions = DEFAULT_CONFIG_WATCH,
  ) {
    this.#components = components;
    this.#current = initial;
    this.#configured = initial;
    this.#options = options;
  }

  /** In force now. */
  loadBalancing(): LoadBalancing {
    return this.#current;
  }

  /** Calls `listener` with each configuration that is read from now on; returns the unsubscribe. */
  onLoad(listener: (config: Config) => void): () => void {
    this.#loadListeners.add(listener);
    return () => this.#loadListeners.delete(listener);
  }

  /** In force now; none before the start. */
  aliases(): ModelAliases {
    return this.#aliases;
  }

  /** Calls `listener` after each change of the load balancing, with the new value; returns the unsubscribe. */
  onChange(listener: (now: LoadBalancing) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** In force at once, and kept in the config file; a file that cannot be written is a warning. */
  set(patch: Partial<LoadBalancing>): void {
    this.#apply({ ...this.#current, ...patch });
    const changes = Object.entries(patch).map(([name, value]) => [keyOf(name), String(value)] as const);
    try {
      this.#components.source.edit(Object.fromEntries(changes));
      this.#stamp = this.#stampNow();
      this.#configured = this.#components.source.load().config.loadBalancing;
    } catch (thrown) {
      this.#components.warn(`the change holds until the node stops: ${toMeshError(thrown).message}`);
    }
  }

  start(): void {
    if (this.#cancel !== null) return;
    this.#stamp = this.#stampNow();
    this.#cancel = this.#components.clock.every(this.#options.pollMs, () => this.#look());
    const { dir, base } = path.parse(this.#components.source.path);
    try {
      this.#watcher = watch(dir, { persistent: false }, (_, name) => {
        if (name === null || name === base) this.#look();
      });
      this.#watcher.on('error', () => {});
    } catch {
      // No such folder yet, or no watches left: the poll finds the change a second later.
    }
    // What was written between the reading of the configuration and now.
    this.#reload();
  }

  stop(): void {
    this.#cancel?.();
    this.#cancel = null;
    this.#watcher?.close();
    this.#watcher = null;
  }

  #look(): void {
    const stamp = this.#stampNow();
    if (stamp === this.#stamp) return;
    this.#stamp = stamp;
    this.#reload();
  }

  #reload(): void {
    let configured: LoadBalancing;
    try {
      const { config } = this.#components.source.load();
      const { loadBalancing, models } = config;
      for (const listener of this.#loadListeners) listener(config);
      configured = loadBalancing;
      this.#aliases = new ModelAliases(models.aliases);
    } catch (thrown) {
      this.#components.warn(`the config file is not used, what was set before stays: ${toMeshError(thrown).message}`);
      return;
    }
    if (same(configured, this.#configured)) return;
    this.#configured = configured;
    this.#apply(configured);
  }

  #apply(next: LoadBalancing): void {
    if (same(next, this.#current)) return;
    this.#current = next;
    for (const listener of this.#listeners) listener(next);
  }

  /** Changes whenever the file does: an editor may keep the size, and a copy the times, but not the inode as well. */
  #stampNow(): string {
    const found = statSync(this.#components.source.path, { throwIfNoEntry: false });
    return found === undefined ? '' : `${found.ino}:${found.size}:${found.mtimeMs}:${found.ctimeMs}`;
  }
}

function same(a: LoadBalancing, b: LoadBalancing): boolean {
  return (
    a.enabled === b.enabled &&
    a.strategy === b.strategy &&
    a.failoverEnabled === b.failoverEnabled &&
    a.midStream === b.midStream
  );
}

/** Where the config file has it. */
const keyOf = (name: string): string => (name === 'midStream' ? 'failover.midStream' : `loadBalancing.${name}`);
