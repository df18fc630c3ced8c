/** An answer that the remote function pushes back piece by piece, beside the task that it is the work of. */
import { type Clock, sleep } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';

export interface PushedAnswerComponents {
  readonly clock: Clock;
  /** As `StreamCallbacks.open` gives them: lines of server-sent events, several in a piece. */
  readonly chunks: AsyncIterable<string>;
  /** The text that the function returned; rejects with what broke it. */
  readonly returned: Promise<string>;
}

const QUIET_MS = 1000;

type Step = { readonly data: readonly string[] } | { readonly whole: string } | 'pushed';

/** Reads both sides. Close it always. */
export class PushedAnswer {
  readonly #pieces: AsyncIterator<string>;
  readonly #clock: Clock;
  readonly #end: Promise<Ended>;
  #next: Promise<IteratorResult<string>> | null = null;
  #count = 0;

  constructor({ clock, chunks, returned }: PushedAnswerComponents) {
    this.#pieces = chunks[Symbol.asyncIterator]();
    this.#clock = clock;
    this.#end = returned.then(endOf);
    // Whoever reads no more is not interested in what breaks it later.
    this.#end.catch(() => {});
  }

  /** Events that came so far, of which there should be as many as the function says in the end. */
  get count(): number {
    return this.#count;
  }

  /**
   * The next events of the answer; `whole`: the function returned an answer instead; `pushed`: all that comes has come.
   *
   * @throws MeshError what broke the task, or the way back.
   */
  async step(): Promise<Step> {
    this.#next ??= this.#pieces.next();
    const next = this.#next.then((piece) => ({ piece }));
    next.catch(() => {});
    let first = await Promise.race([next, this.#end]);
    // What was pushed before the function returned may still be on its way through this process.
    if (!('piece' in first)) first = await Promise.race([next, this.#quiet(first)]);
    if (!('piece' in first)) return 'whole' in first && this.#count === 0 ? first : 'pushed';
    this.#next = null;
    const { piece } = first;
    if (piece.done === true) return 'pushed';
    const data = eventsOf(piece.value);
    this.#count += data.length;
    return { data: data.filter((each) => each !== '[DONE]') };
  }

  /** Lets go of what is still to come. Never rejects. */
  async close(): Promise<void> {
    await this.#pieces.return?.().then(
      () => {},
      () => {},
    );
  }

  /** The function's own end, unless something comes within a moment. */
  async #quiet(end: Ended): Promise<Ended> {
    await sleep(this.#clock, QUIET_MS);
    return end;
  }
}

/** The function has returned: with an answer, or with the news that it pushed one. */
type Ended = { readonly whole: string } | { readonly isPushed: true };

function endOf(text: string): Ended {
  return isPushReport(text) ? { isPushed: true } : { whole: text };
}

/** Is it what a function returns that pushed its answer? */
function isPushReport(text: string): boolean {
  return /^\s*\{\s*"streaming"\s*:\s*true/.test(text);
}

/** @throws MeshError `upstream_error` when the function read more from the model server than came here. */
export function checkPushed(expected: number | null, count: number, name: string): void {
  if (expected === null || count >= expected) return;
  throw new MeshError('upstream_error', `${name}: ${expected - count} pieces of the answer were lost on the way back`);
}

/** One event a line: the function drops the empty lines between them. */
function eventsOf(piece: string): readonly string[] {
  return piece.split(/\r?\n/).flatMap((line) => {
    const text = line.trim();
    return text.startsWith('data:') ? [text.slice('data:'.length).trim()] : [];
  });
}
