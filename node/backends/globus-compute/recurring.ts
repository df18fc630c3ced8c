/** Work that is done again and again, after pauses of its own choice. */
import type { CancelTimer, Clock } from '../../common/clock.ts';

export class Recurring {
  readonly #clock: Clock;
  readonly #work: (signal: AbortSignal) => Promise<number>;
  readonly #life = new AbortController();
  #running: Promise<void> | null = null;
  #isAgain = false;
  #cancel: CancelTimer = () => {};

  /** `work` resolves with milliseconds until the next time; when it rejects, there is none unless `now` is called. */
  constructor({ clock }: { readonly clock: Clock }, work: (signal: AbortSignal) => Promise<number>) {
    this.#clock = clock;
    this.#work = work;
  }

  /** At once, or right after what runs. */
  now(): void {
    if (this.#life.signal.aborted) return;
    this.#cancel();
    if (this.#running !== null) {
      this.#isAgain = true;
      return;
    }
    this.#running = this.#work(this.#life.signal)
      .then(
        (delayMs) => this.#plan(delayMs),
        () => {},
      )
      .finally(() => {
        this.#running = null;
        if (!this.#isAgain) return;
        this.#isAgain = false;
        this.now();
      });
  }

  /** Ends what runs, and waits for it. */
  async stop(): Promise<void> {
    this.#cancel();
    this.#life.abort();
    await this.#running;
  }

  #plan(delayMs: number): void {
    if (!this.#life.signal.aborted) this.#cancel = this.#clock.after(delayMs, () => this.now());
  }
}
