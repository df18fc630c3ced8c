/** Watches that several sites share, kept as long as one of them is there. */
export interface Watch {
  /** Asks at once, and from then on by itself. */
  look(): void;
  stop(): Promise<void>;
}

interface Kept<T> {
  readonly watch: T;
  users: number;
}

export class WatchPool<T extends Watch> {
  readonly #kept = new Map<string, Kept<T>>();

  /** The watch of this key; made, and begun, for the first who needs it. */
  take(key: string, make: () => T): T {
    const kept = this.#kept.get(key) ?? { watch: make(), users: 0 };
    if (kept.users === 0) kept.watch.look();
    kept.users += 1;
    this.#kept.set(key, kept);
    return kept.watch;
  }

  /** Given back by one who took it; resolves when it has stopped, if he was the last. */
  async giveBack(key: string): Promise<void> {
    const kept = this.#kept.get(key);
    if (kept === undefined) return;
    kept.users -= 1;
    if (kept.users > 0) return;
    this.#kept.delete(key);
    await kept.watch.stop();
  }
}
