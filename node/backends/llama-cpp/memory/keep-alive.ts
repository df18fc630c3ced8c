/** Why a model is in memory and when it need not be any more: use, wishes of its owner, and the time since. */
import type { CancelTimer, Clock } from '../../../common/clock.ts';

export interface KeepAliveComponents {
  readonly clock: Clock;
  /** It was idle for long enough. */
  readonly onOver: () => void;
}

export class KeepAlive {
  readonly #components: KeepAliveComponents;
  readonly #keepAliveMs: number | null;
  #cancel: CancelTimer = () => {};
  #until: number | null = null;
  #lastUsedAt: number;
  #wasUsed = false;
  #isWanted = false;
  #unloadAsked = false;

  /** `keepAliveMs` null: for ever; 0: over as soon as nobody uses the model. */
  constructor(components: KeepAliveComponents, keepAliveMs: number | null) {
    this.#components = components;
    this.#keepAliveMs = keepAliveMs;
    this.#lastUsedAt = components.clock.now();
  }

  /** Milliseconds until it is over; null while that is not to be expected. */
  get remainingMs(): number | null {
    return this.#until === null ? null : Math.max(0, this.#until - this.#components.clock.now());
  }

  /** When somebody last used it. */
  get lastUsedAt(): number {
    return this.#lastUsedAt;
  }

  /** It shall be loaded even if nobody asks it anything. */
  get isWanted(): boolean {
    return this.#isWanted;
  }

  /** Somebody uses it. */
  used(): void {
    this.#wasUsed = true;
    this.pause();
  }

  /** Its owner, or its pin, wants it in memory. */
  want(): void {
    this.#unloadAsked = false;
    this.#isWanted = true;
  }

  /** Its owner wants it to go; `isLoaded`: there is something to go. */
  unwant(isLoaded: boolean): void {
    this.#isWanted = false;
    this.#unloadAsked = isLoaded;
  }

  /** It is loaded now. */
  loaded(): void {
    // One that was only wanted waits for its first use, even where keep-alive is 0.
    this.#wasUsed = !this.#isWanted;
    this.#isWanted = false;
  }

  /** Its child is gone, or there will be none. */
  gone(): void {
    this.pause();
    this.#isWanted = false;
    this.#unloadAsked = false;
  }

  /** The time does not run, for now. */
  pause(): void {
    this.#cancel();
    this.#until = null;
  }

  /** Nobody uses it now. True when it shall go at once because its owner said so. */
  idle(isPinned: boolean): boolean {
    const { clock } = this.#components;
    this.#lastUsedAt = clock.now();
    this.pause();
    if (this.#unloadAsked) return true;
    if (!isPinned) this.#run();
    return false;
  }

  #run(): void {
    const { clock, onOver } = this.#components;
    const delayMs = this.#keepAliveMs;
    if (delayMs === null || (delayMs === 0 && !this.#wasUsed)) return;
    if (delayMs === 0) {
      onOver();
      return;
    }
    this.#until = clock.now() + delayMs;
    this.#cancel = clock.after(delayMs, () => {
      this.pause();
      onOver();
    });
  }
}
