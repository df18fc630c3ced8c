/** An engine whose answers end only when told to: for tests of who runs and who waits. */
import type { LocalBackend } from '../../node/backends/backend.ts';
import type { CatalogEntry } from '../../protocols/catalog/catalog.ts';
import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import { ACCEPTED, chunk, END } from './wire-mesh.ts';

/** One request that reached the engine. */
export interface Held {
  readonly request: InferenceRequest;
  /** One token, the end, and the slot is free. */
  finish(): void;
}

export class HeldEngine implements LocalBackend {
  readonly kind = 'engine';
  readonly id = 'here';
  /** Replace it and call `changed` to change the catalog. */
  entries: CatalogEntry[];
  /** In the order in which they began. */
  readonly running: Held[] = [];
  /** All that ever ran, by request id, in the order in which they began. */
  readonly started: string[] = [];
  readonly #listeners = new Set<() => void>();

  constructor(entries: CatalogEntry[]) {
    this.entries = entries;
  }

  catalog(): CatalogEntry[] {
    return [...this.entries];
  }

  onCatalogChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  changed(): void {
    for (const listener of this.#listeners) listener();
  }

  async *infer(request: InferenceRequest, { signal }: { signal: AbortSignal }): AsyncGenerator<InferenceEvent> {
    const finished = Promise.withResolvers<void>();
    const held = { request, finish: finished.resolve };
    this.started.push(request.requestId);
    this.running.push(held);
    signal.addEventListener('abort', () => finished.reject(signal.reason), { once: true });
    try {
      yield ACCEPTED;
      await finished.promise;
      yield chunk(0);
      this.#over(held);
      yield END;
    } finally {
      this.#over(held);
    }
  }

  #over(held: Held): void {
    const at = this.running.indexOf(held);
    if (at !== -1) this.running.splice(at, 1);
  }
}
