/** One status manifest, read again and again; what was read last counts while it cannot be read. */
import type { CancelTimer, Clock } from '../../common/clock.ts';
import { toMeshError } from '../../common/errors.ts';
import { parseManifest, type StatusManifest } from '../../storage/status-manifest.ts';
import { isManifestFile, readManifest } from './manifest-source.ts';

export interface ManifestWatchComponents {
  readonly clock: Clock;
  /** The manifest, or what is wrong with it, changed. */
  readonly onChange: () => void;
}

/** How long what was read of a URL counts. */
const CACHED_MS = 60_000;
/** A file is cheap to look at, and whoever edits it waits. */
const FILE_MS = 1000;
const FIRST_RETRY_MS = 1000;

export class ManifestWatch {
  /** An absolute path or a URL. */
  readonly manifest: string;
  readonly #components: ManifestWatchComponents;
  readonly #life = new AbortController();
  #current: StatusManifest | null = null;
  #problem: string | null = null;
  #failures = 0;
  #text = '';
  #reading: Promise<void> | null = null;
  #cancel: CancelTimer = () => {};

  constructor(components: ManifestWatchComponents, options: { readonly manifest: string }) {
    this.#components = components;
    this.manifest = options.manifest;
  }

  /** As it was read last; null before that. */
  get current(): StatusManifest | null {
    return this.#current;
  }

  /** Why what was read last may be old; null when it is not. Quotes no URL. */
  get problem(): string | null {
    return this.#problem;
  }

  /** Reads it now and from then on. */
  look(): void {
    if (this.#reading !== null || this.#life.signal.aborted) return;
    this.#cancel();
    this.#reading = this.#read().finally(() => {
      this.#reading = null;
      if (!this.#life.signal.aborted) this.#cancel = this.#components.clock.after(this.#delayMs(), () => this.look());
    });
  }

  /** Waits for a read that runs. */
  async stop(): Promise<void> {
    this.#life.abort();
    this.#cancel();
    await this.#reading;
  }

  async #read(): Promise<void> {
    const { clock } = this.#components;
    const before = this.#problem;
    let isNews = false;
    try {
      const text = await readManifest({ clock }, { manifest: this.manifest, signal: this.#life.signal });
      if (this.#life.signal.aborted) return;
      isNews = this.#current === null || text !== this.#text;
      if (isNews) this.#current = parseManifest(text);
      this.#text = text;
      this.#problem = null;
      this.#failures = 0;
    } catch (error) {
      if (this.#life.signal.aborted) return;
      const { message } = error instanceof Error ? error : toMeshError(error);
      this.#problem = message.startsWith('its status') ? message : `its status manifest cannot be used: ${message}`;
      this.#failures += 1;
    }
    if (isNews || before !== this.#problem) this.#components.onChange();
  }

  #delayMs(): number {
    const wholeMs = isManifestFile(this.manifest) ? FILE_MS : CACHED_MS;
    return this.#failures === 0 ? wholeMs : Math.min(wholeMs, FIRST_RETRY_MS * 2 ** Math.min(this.#failures - 1, 10));
  }
}
