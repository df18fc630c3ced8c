/** Work in the background that is tried again until it is done. */
import { type Clock, sleep } from '../common/clock.ts';
import type { Logger } from '../common/logger.ts';

export interface UntilDoneComponents {
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Between two tries: at first, and at last, milliseconds. */
const PAUSE_MS = { first: 1000, last: 60_000 };

export class UntilDone {
  readonly #components: UntilDoneComponents;
  readonly #signal: AbortSignal;
  readonly #running = new Set<Promise<void>>();

  /** After `signal` nothing is tried again. */
  constructor(components: UntilDoneComponents, { signal }: { readonly signal: AbortSignal }) {
    this.#components = components;
    this.#signal = signal;
  }

  /** Begins the work; resolves when it is done or given up, never rejects. `failed` is logged each time that it fails. */
  add(work: () => Promise<void>, failed: string): Promise<void> {
    const running = this.#run(work, failed).finally(() => this.#running.delete(running));
    this.#running.add(running);
    return running;
  }

  /** All that runs now has ended. */
  async settled(): Promise<void> {
    await Promise.all(this.#running);
  }

  async #run(work: () => Promise<void>, failed: string): Promise<void> {
    const { clock, logger } = this.#components;
    for (let pauseMs = PAUSE_MS.first; ; pauseMs = Math.min(PAUSE_MS.last, 2 * pauseMs)) {
      try {
        await work();
        return;
      } catch (err) {
        if (this.#signal.aborted) return;
        logger.error({ err }, `${failed}: it is tried again`);
      }
      await sleep(clock, pauseMs, this.#signal).catch(() => {});
      if (this.#signal.aborted) return;
    }
  }
}
