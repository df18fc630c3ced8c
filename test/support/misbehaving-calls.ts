/** What misbehaving servers were asked, seen from one model. */
import type { Call } from './misbehaving-server.ts';

export class Calls {
  readonly #all: readonly Call[];
  readonly #model: string;

  constructor(servers: readonly { readonly calls: readonly Call[] }[], model: string) {
    this.#all = servers.flatMap(({ calls }) => calls);
    this.#model = model;
  }

  get all(): readonly Call[] {
    return this.#all;
  }

  get primary(): readonly Call[] {
    return this.#all.filter(({ model }) => model === this.#model);
  }

  get fallback(): readonly Call[] {
    return this.#all.filter(({ model }) => model !== this.#model);
  }

  /** Calls that came within this time of the first, milliseconds. */
  within(windowMs: number): number {
    const firstMs = this.#all[0]?.atMs ?? 0;
    return this.#all.filter(({ atMs }) => atMs - firstMs <= windowMs).length;
  }

  /** From the first call to the second of the same model. */
  get pauseMs(): number {
    const [first, second] = this.primary;
    return (second?.atMs ?? Number.NaN) - (first?.atMs ?? 0);
  }
}
