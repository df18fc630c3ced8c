/** Tells a wedged child from a busy node: silence counts only while this process itself runs on time. Pure. */

export interface BeatBounds {
  /** How often `tick` is called. */
  readonly tickMs: number;
  /** Silence of a child that runs. */
  readonly silenceMs: number;
  /** Silence of a child that loads: drivers and mapping may block it for a while. */
  readonly loadingSilenceMs: number;
  /** Longest step of a child that beats: past this its native threads hang. */
  readonly stepMs: number;
}

export class BeatWatch {
  readonly #bounds: BeatBounds;
  #silentMs = 0;
  #lastTickAt: number | null = null;
  #lastBeatAt: number;
  #reportedAgeMs = 0;

  constructor(bounds: BeatBounds, now: number) {
    this.#bounds = bounds;
    this.#lastBeatAt = now;
  }

  /** The child says that it lives; `ageMs` since its last step. */
  beat(now: number, ageMs: number): void {
    this.#silentMs = 0;
    this.#lastBeatAt = now;
    this.#reportedAgeMs = ageMs;
  }

  /** A step's output arrived. */
  stepped(now: number): void {
    this.beat(now, 0);
  }

  /** How old the last step is, as far as can be told here. */
  ageMs(now: number): number {
    return Math.max(0, now - this.#lastBeatAt) + this.#reportedAgeMs;
  }

  /** Is the child wedged? Call every `tickMs`. A tick that comes late was our own pause, and counts for nothing. */
  tick(now: number, state: 'idle' | 'loading' | 'busy'): boolean {
    const sinceTick = now - (this.#lastTickAt ?? now);
    this.#lastTickAt = now;
    if (state === 'idle') {
      this.#silentMs = 0;
      return false;
    }
    if (sinceTick < 2 * this.#bounds.tickMs) this.#silentMs += sinceTick;
    if (state === 'loading') return this.#silentMs > this.#bounds.loadingSilenceMs;
    return this.#silentMs > this.#bounds.silenceMs || this.#reportedAgeMs > this.#bounds.stepMs;
  }
}
