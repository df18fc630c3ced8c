/** Which of a fixed number of sequences are free. The lowest free one is handed out: gaps between busy ids cost decodes. */
export class Slots {
  readonly #busy: boolean[];

  constructor(count: number) {
    this.#busy = new Array<boolean>(count).fill(false);
  }

  /** The lowest free index, or null when all are taken. */
  acquire(): number | null {
    const index = this.#busy.indexOf(false);
    if (index === -1) return null;
    this.#busy[index] = true;
    return index;
  }

  release(index: number): void {
    this.#busy[index] = false;
  }
}
