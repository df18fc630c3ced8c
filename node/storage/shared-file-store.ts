/** What stores whose whole content is one `SharedFile` do alike. */
import type { Startable } from '../common/lifecycle.ts';
import { SharedFile, type SharedFileComponents, type SharedFileOptions } from './shared-file.ts';

/** Followed while the node runs; a file that turns bad is warned of, and what it held before stays in force. */
export abstract class SharedFileStore<T> implements Startable {
  protected readonly file: SharedFile<T>;

  constructor(components: SharedFileComponents, options: SharedFileOptions<T>) {
    this.file = new SharedFile(components, options);
  }

  /**
   * Reads the file and from then on looks every second whether it changed.
   *
   * @throws MeshError `invalid_request` that names the file when it cannot be understood.
   */
  start(): Promise<void> {
    return this.file.start();
  }

  stop(): Promise<void> {
    return this.file.stop();
  }

  /** Reads the file once: for commands, which do not `start`. @throws MeshError as `start`. */
  load(): Promise<void> {
    return this.file.load();
  }

  /** Called after each change, whoever made it; returns the unsubscribe. */
  onChange(listener: () => void): () => void {
    return this.file.onChange(listener);
  }
}
