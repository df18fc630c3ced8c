/** Whether this node takes on work, as its owner wants it. */
import { MeshError } from '../common/errors.ts';

/**
 * `open`: for everybody. `paused`: nothing new for peers, own clients go on. `draining`: nothing new for anybody; what
 * runs finishes.
 */
export type ServiceMode = 'open' | 'paused' | 'draining';

/** What those who are refused are told to wait. */
const RETRY_AFTER_MS = 5000;

/** Starts `open`. */
export class ServiceState {
  #mode: ServiceMode = 'open';
  #closed = false;
  readonly #listeners = new Set<(mode: ServiceMode) => void>();

  get mode(): ServiceMode {
    return this.#mode;
  }

  /**
   * Takes effect at once; the same mode again changes nothing.
   *
   * @throws MeshError `draining` once the node is shutting down: that is not taken back.
   */
  set(mode: ServiceMode): void {
    if (this.#closed && mode !== 'draining') throw refusal('This node is shutting down: start it again instead.');
    if (mode === this.#mode) return;
    this.#mode = mode;
    for (const listener of [...this.#listeners]) listener(mode);
  }

  /** `draining` for good, because the process ends. Idempotent. */
  close(): void {
    this.#closed = true;
    this.set('draining');
  }

  /** Calls `listener` after each change; returns the unsubscribe. */
  onChange(listener: (mode: ServiceMode) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Why this node takes nothing new from this caller now: a MeshError `draining`; null when it does. */
  refusal(caller: 'local' | 'peer'): MeshError | null {
    if (this.#closed) return refusal('This node is shutting down');
    if (this.#mode === 'draining') return refusal('This node is drained: its owner opens it with "meshnode resume"');
    if (this.#mode === 'paused' && caller === 'peer') return refusal('This node takes no work of other nodes now');
    return null;
  }
}

function refusal(message: string): MeshError {
  return new MeshError('draining', message, { retryAfterMs: RETRY_AFTER_MS });
}
