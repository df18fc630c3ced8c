/** Who waits for a slot of one model and who is next: pure bookkeeping, no clock, no promises. */

/** Someone who waits. `from`: the peer's fingerprint, or null for this node's own clients. */
export interface Waiting {
  readonly from: string | null;
}

/**
 * This node's own first, in the order in which they came; then the peers in turns, one request of each. So a peer that
 * asks much delays itself only.
 */
export class AdmissionQueue<T extends Waiting> {
  readonly #own: T[] = [];
  /** In the order of turns: whoever was served goes to the end. */
  readonly #peers = new Map<string, T[]>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  add(waiter: T): void {
    this.#line(waiter.from).push(waiter);
    this.#size += 1;
  }

  /** Whose turn it is; null when nobody waits. */
  take(): T | null {
    const own = this.#own.shift();
    if (own !== undefined) {
      this.#size -= 1;
      return own;
    }
    const [turn] = this.#peers;
    if (turn === undefined) return null;
    const [from, line] = turn;
    const next = line.shift() ?? null;
    this.#peers.delete(from);
    if (line.length > 0) this.#peers.set(from, line);
    if (next !== null) this.#size -= 1;
    return next;
  }

  /** False when it did not wait any more. */
  remove(waiter: T): boolean {
    const line = waiter.from === null ? this.#own : this.#peers.get(waiter.from);
    const at = line?.indexOf(waiter) ?? -1;
    if (line === undefined || at === -1) return false;
    line.splice(at, 1);
    if (waiter.from !== null && line.length === 0) this.#peers.delete(waiter.from);
    this.#size -= 1;
    return true;
  }

  /** Takes out all that wait, or only those of peers. */
  drain(which: 'all' | 'peers'): T[] {
    const drained = [...(which === 'all' ? this.#own.splice(0) : []), ...[...this.#peers.values()].flat()];
    this.#peers.clear();
    this.#size -= drained.length;
    return drained;
  }

  /** Which place one more of `from` would get: 1 is the next in turn. */
  place(from: string | null): number {
    if (from === null) return this.#own.length + 1;
    const ours = this.#peers.get(from)?.length ?? 0;
    let before = this.#own.length + ours;
    for (const [peer, line] of this.#peers) if (peer !== from) before += Math.min(line.length, ours + 1);
    return before + 1;
  }

  /**
   * Who should make room in a full queue for one more of `from`: the last of the peer with the longest line, for this
   * node's own always, for a peer only when it would still have the shorter line. Null: nobody.
   */
  yielding(from: string | null): T | null {
    let longest: T[] = [];
    for (const line of this.#peers.values()) if (line.length > longest.length) longest = line;
    const ours = from === null ? -1 : (this.#peers.get(from)?.length ?? 0);
    return longest.length > ours + 1 ? (longest.at(-1) ?? null) : null;
  }

  #line(from: string | null): T[] {
    if (from === null) return this.#own;
    const line = this.#peers.get(from) ?? [];
    this.#peers.set(from, line);
    return line;
  }
}
