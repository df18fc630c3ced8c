/** The GGUF files that this node serves, kept true while files come and go. */
import { type FSWatcher, watch } from 'node:fs';
import { mkdir, stat } from 'node:fs/promises';
import { type CancelTimer, type Clock, systemClock } from '../common/clock.ts';
import { MeshError, toMeshError } from '../common/errors.ts';
import type { Startable } from '../common/lifecycle.ts';
import { DigestCache, digestFiles } from './digest-cache.ts';
import type { ModelFile, ModelFileSource } from './model-file.ts';
import { findModelFiles, type NamedFile, readFileName, type ScannedModel, scanModel, stampOf } from './model-scan.ts';

/** A burst of file system events (a copy in progress) is one look at the disk. */
const SETTLE_MS = 300;
/** For what no event tells: network file systems, exhausted watches. */
const RESCAN_MS = 15_000;
/** A bad file that changed this recently is still being copied: nothing is said yet. */
const COPY_GRACE_MS = 10_000;
const MAX_WATCHED_DIRS = 256;

export interface ModelFilesComponents {
  readonly clock?: Clock;
  /** Told once about each file that is skipped, in a sentence for people. */
  readonly warn: (message: string) => void;
}

export interface ModelFilesOptions {
  /** Holds the digest cache. */
  readonly dataDir: string;
  /** Named by the user: must be good at start. */
  readonly files: readonly NamedFile[];
  /** Every GGUF file below it is served; created when it is missing and lies in the data dir. */
  readonly dir: string;
  /** Served only while there is no other; null = none. */
  readonly demoPath: string | null;
}

interface Look {
  readonly stamp: string;
  /** Null: skipped, and `problem` says why. */
  readonly model: ScannedModel | null;
  readonly problem: string;
  readonly changedAtMs: number;
}

/** Scans, checks and hashes model files; ids are unique, explicitly named files win. */
export class ModelFiles implements ModelFileSource, Startable {
  readonly #clock: Clock;
  readonly #warn: (message: string) => void;
  readonly #options: ModelFilesOptions;
  readonly #digests: DigestCache;
  readonly #listeners = new Set<() => void>();
  readonly #looks = new Map<string, Look>();
  readonly #warned = new Set<string>();
  readonly #watchers = new Map<string, FSWatcher>();
  #models: readonly ScannedModel[] = [];
  #life: AbortController | null = null;
  #cancelRescan: CancelTimer = () => {};
  #cancelSettle: CancelTimer = () => {};
  #work: Promise<void> = Promise.resolve();
  #hashing: Promise<void> | null = null;

  constructor(components: ModelFilesComponents, options: ModelFilesOptions) {
    this.#clock = components.clock ?? systemClock;
    this.#warn = components.warn;
    this.#options = options;
    this.#digests = new DigestCache(options.dataDir);
  }

  /** @throws MeshError `invalid_request` when a named file is bad or the models directory is missing. */
  async start(): Promise<void> {
    if (this.#life !== null) return;
    const life = new AbortController();
    this.#life = life;
    await this.#prepareDir();
    await this.#digests.load();
    for (const file of this.#options.files) await this.#look(file, true);
    await this.#scan(true);
    this.#cancelRescan = this.#clock.every(RESCAN_MS, () => this.#rescan());
  }

  /** Aborts a running hash; nothing is written after it settles. */
  async stop(): Promise<void> {
    this.#life?.abort(new MeshError('draining', 'the node stops'));
    this.#life = null;
    this.#cancelRescan();
    this.#cancelSettle();
    for (const watcher of this.#watchers.values()) watcher.close();
    this.#watchers.clear();
    await this.#work;
    await this.#hashing;
  }

  list(): readonly ModelFile[] {
    return this.#models.map((model) => ({
      id: model.id,
      path: model.path,
      sizeBytes: model.stamps.reduce((sum, stamp) => sum + stamp.sizeBytes, 0),
      digest: this.#digests.get(model.stamps),
      architecture: model.header.architecture,
      quantization: model.header.quantization,
      trainedContext: model.header.trainedContext,
      shape: model.header.shape,
    }));
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async #prepareDir(): Promise<void> {
    const { dir, dataDir } = this.#options;
    if (dir.startsWith(dataDir)) await mkdir(dir, { recursive: true, mode: 0o700 });
    const found = await stat(dir).catch(() => null);
    if (found?.isDirectory() === true) return;
    throw new MeshError('invalid_request', `there is no models directory ${dir}: create it, or check --models-dir`, {
      param: 'models.dir',
    });
  }

  #rescan(): void {
    this.#work = this.#work.then(async () => {
      if (this.#life === null) return;
      try {
        await this.#scan(false);
      } catch (error) {
        this.#warn(`cannot look for models: ${toMeshError(error).message}`);
      }
    });
  }

  async #scan(first: boolean): Promise<void> {
    const { files, dirs } = await findModelFiles(this.#options.dir);
    const named = await this.#lookAll(this.#options.files, first);
    const namedPaths = new Set(named.flatMap((model) => model.paths));
    const inDir = files
      .filter((path) => (readFileName(path)?.shard ?? 1) === 1)
      .map((path): NamedFile => ({ id: null, path }));
    const found = await this.#lookAll(inDir, first);
    let models = this.#unique([
      ...named,
      ...found.filter((model) => !model.paths.some((path) => namedPaths.has(path))),
    ]);
    if (models.length === 0 && this.#options.demoPath !== null) {
      models = await this.#lookAll([{ id: null, path: this.#options.demoPath }], first);
    }
    this.#forget([...this.#options.files.map((file) => file.path), ...files]);
    this.#watchDirs(dirs);
    if (this.#life === null) return;
    const before = this.#models.map(signature).join('\n');
    this.#models = models;
    if (before !== models.map(signature).join('\n')) this.#changed();
    this.#hashing ??= this.#hashAll(this.#life.signal).finally(() => {
      this.#hashing = null;
    });
  }

  async #lookAll(files: readonly NamedFile[], first: boolean): Promise<readonly ScannedModel[]> {
    const models: ScannedModel[] = [];
    for (const file of files) {
      const look = await this.#look(file, false);
      if (look.model !== null) models.push(look.model);
      else if (first || Date.now() - look.changedAtMs > COPY_GRACE_MS) this.#warnOnce(look.problem);
    }
    return models;
  }

  /** Reads the header only when the file changed since the last look. */
  async #look(file: NamedFile, strict: boolean): Promise<Look> {
    const stamp = await stampOf(file.path).catch(() => null);
    const text = JSON.stringify([file.id, stamp]);
    const known = this.#looks.get(file.path);
    // A split model may lack a part that arrives later, which its first part's stamp does not show: look again.
    if (known?.stamp === text && stamp !== null && known.model?.paths.length === 1) return known;
    const changedAtMs = stamp?.mtimeMs ?? 0;
    try {
      const look = { stamp: text, model: await scanModel(file), problem: '', changedAtMs };
      this.#looks.set(file.path, look);
      return look;
    } catch (error) {
      if (strict) throw error;
      const look = { stamp: text, model: null, problem: toMeshError(error).message, changedAtMs };
      this.#looks.set(file.path, look);
      return look;
    }
  }

  #forget(present: readonly string[]): void {
    const kept = new Set(present);
    for (const path of this.#looks.keys()) if (!kept.has(path)) this.#looks.delete(path);
  }

  #unique(models: readonly ScannedModel[]): readonly ScannedModel[] {
    const byId = new Map<string, ScannedModel>();
    for (const model of models) {
      const winner = byId.get(model.id);
      if (winner === undefined) byId.set(model.id, model);
      else if (winner.path !== model.path) {
        this.#warnOnce(`${model.path} is not served: ${winner.path} has the same id; name it with --model ID=PATH`);
      }
    }
    return [...byId.values()];
  }

  #watchDirs(dirs: readonly string[]): void {
    const wanted = new Set(dirs.slice(0, MAX_WATCHED_DIRS));
    for (const [dir, watcher] of this.#watchers) {
      if (wanted.delete(dir)) continue;
      watcher.close();
      this.#watchers.delete(dir);
    }
    if (this.#life === null) return;
    for (const dir of wanted) {
      try {
        const watcher = watch(dir, { persistent: false }, () => this.#settle());
        // A watch that fails (the directory went, the system's limit) is given up: the rescan still sees everything.
        watcher.on('error', () => watcher.close());
        this.#watchers.set(dir, watcher);
      } catch {
        return;
      }
    }
  }

  #settle(): void {
    this.#cancelSettle();
    this.#cancelSettle = this.#clock.after(SETTLE_MS, () => this.#rescan());
  }

  async #hashAll(signal: AbortSignal): Promise<void> {
    const failed = new Set<string>();
    for (;;) {
      const model = this.#models.find(
        (candidate) => this.#digests.get(candidate.stamps) === null && !failed.has(signature(candidate)),
      );
      if (model === undefined || signal.aborted) return;
      try {
        const digest = await digestFiles(model.paths, signal);
        // Rewritten while it was read: the digest belongs to no file. The next scan sees the new stamp.
        if (signature({ ...model, stamps: await Promise.all(model.paths.map(stampOf)) }) !== signature(model)) {
          failed.add(signature(model));
          continue;
        }
        await this.#digests.set(model.stamps, digest);
        this.#changed();
      } catch (error) {
        if (signal.aborted) return;
        failed.add(signature(model));
        this.#warnOnce(`cannot compute the digest of ${model.path}: ${toMeshError(error).message}`);
      }
    }
  }

  #warnOnce(message: string): void {
    if (this.#warned.has(message)) return;
    if (this.#warned.size > 1000) this.#warned.clear();
    this.#warned.add(message);
    this.#warn(message);
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }
}

function signature(model: ScannedModel): string {
  return JSON.stringify([model.id, model.paths, model.stamps]);
}
