/** One answer that a remote function pushes here, between its sender and whoever waits for it. */
import type { CancelTimer, Clock } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';

/** What became of a push. */
export type Taken = 'taken' | 'dropped';

const FIRST_DATA_MS = 30_000;
const WHOLE_ANSWER_MS = 300_000;
/** Not yet read: whoever asked has stopped reading. */
const MAX_WAITING_CHARS = 8 * 1024 * 1024;

export class CallbackTask {
  readonly #waiting: string[] = [];
  #waitingChars = 0;
  /** Set once nothing more is taken. */
  #end: { readonly error: MeshError | null } | null = null;
  #wake: () => void = () => {};
  /** The last piece, when its sender did not learn that it came. */
  #unconfirmed: string | null = null;
  readonly #cancelFirst: CancelTimer;
  readonly #cancelWhole: CancelTimer;

  constructor({ clock }: { readonly clock: Clock }) {
    this.#cancelFirst = clock.after(FIRST_DATA_MS, () => {
      this.end(tooLate('first_token_timeout', `no data came within ${FIRST_DATA_MS / 1000} s`));
    });
    this.#cancelWhole = clock.after(WHOLE_ANSWER_MS, () => {
      this.end(tooLate('request_timeout', `the answer took more than ${WHOLE_ANSWER_MS / 1000} s`));
    });
  }

  /** A piece. What comes after the end is dropped, and so is a repetition of a piece whose sender got no reply. */
  push(data: string): Taken {
    const isRepeated = this.#unconfirmed === data;
    this.#unconfirmed = null;
    if (this.#end !== null || isRepeated) return 'dropped';
    this.#cancelFirst();
    // It would count for nothing against what may wait.
    if (data === '') return 'taken';
    this.#waiting.push(data);
    this.#waitingChars += data.length;
    if (this.#waitingChars > MAX_WAITING_CHARS) {
      this.end(new MeshError('client_closed', 'The client stopped reading its answer.'));
    }
    this.#wake();
    return 'taken';
  }

  /** The sender of this piece, which was the last one, may send it again. */
  unconfirmed(data: string): Taken {
    this.#unconfirmed = data;
    return 'taken';
  }

  /** Nothing more is taken; what waits is still read, and then the error is thrown, if there is one. */
  end(error: MeshError | null): Taken {
    if (this.#end !== null) return 'dropped';
    this.#end = { error };
    this.#cancelFirst();
    this.#cancelWhole();
    this.#wake();
    return 'taken';
  }

  /** Read it once. Leaving it ends the answer at once, also while a piece is awaited. */
  chunks(): AsyncIterableIterator<string> {
    const chunks: AsyncIterableIterator<string> = {
      next: () => this.#next(),
      return: async () => {
        this.#waiting.length = 0;
        this.end(null);
        return { done: true, value: undefined };
      },
      [Symbol.asyncIterator]: () => chunks,
    };
    return chunks;
  }

  async #next(): Promise<IteratorResult<string>> {
    for (;;) {
      const value = this.#waiting.shift();
      if (value !== undefined) {
        this.#waitingChars -= value.length;
        return { done: false, value };
      }
      if (this.#end?.error) throw this.#end.error;
      if (this.#end !== null) return { done: true, value: undefined };
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

function tooLate(code: 'first_token_timeout' | 'request_timeout', what: string): MeshError {
  return new MeshError(code, `The remote function streams its answer to this node, but ${what}`);
}
