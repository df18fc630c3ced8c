/** Models of batches that nobody near has are looked for further away, each once at a time. */
import { type Clock, deadline } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';

export interface BatchLookupsComponents {
  readonly clock: Clock;
  readonly room: { lookFurther(model: string, signal: AbortSignal): Promise<void> };
}

const BOUND_MS = 15_000;

export class BatchLookups {
  readonly #components: BatchLookupsComponents;
  readonly #signal: AbortSignal;
  readonly #running = new Map<string, Promise<void>>();

  constructor(components: BatchLookupsComponents, { signal }: { readonly signal: AbortSignal }) {
    this.#components = components;
    this.#signal = signal;
  }

  /** Waits for nothing. */
  begin(model: string): void {
    if (this.#running.has(model)) return;
    const lookup = this.#look(model)
      .catch(() => {})
      .finally(() => this.#running.delete(model));
    this.#running.set(model, lookup);
  }

  /** Those that run now have ended. */
  async settled(): Promise<void> {
    await Promise.all(this.#running.values());
  }

  async #look(model: string): Promise<void> {
    const { clock, room } = this.#components;
    const late = (): MeshError => new MeshError('request_timeout', `Nobody told in time who has ${model}`);
    using bound = deadline(clock, BOUND_MS, late, this.#signal);
    await room.lookFurther(model, bound.signal);
  }
}
