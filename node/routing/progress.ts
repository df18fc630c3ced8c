/** How far one dispatch has come: what came of its answer, and what of that has gone to the client. */
import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import { EmittedAnswer } from './emitted-answer.ts';

const NOTHING: readonly InferenceEvent[] = [];

export class Progress {
  /** Of the attempt that was accepted last before the commit; null until one was. */
  servedBy: string | null = null;
  attempts = 0;
  /** The answer has come to its end. */
  whole = false;
  readonly #choices: number | undefined;
  readonly #stream: boolean;
  #emitted: EmittedAnswer;
  /** Null once the answer goes out as it comes. */
  #held: InferenceEvent[] | null = [];
  #released: readonly InferenceEvent[] = NOTHING;
  #nodes: string[] = [];
  #giver = '';
  #gave = false;

  /** `stream`: commit with the first content; else with the end. */
  constructor({ choices }: Pick<InferenceRequest, 'choices'>, { stream }: { readonly stream: boolean }) {
    this.#choices = choices;
    this.#stream = stream;
    this.#emitted = new EmittedAnswer(choices);
  }

  /** Content has gone to the client: what has is not taken back. */
  get committed(): boolean {
    return this.#held === null;
  }

  get emitted(): EmittedAnswer {
    return this.#emitted;
  }

  /** Who gave parts of the answer, in order. */
  get nodes(): readonly string[] {
    return this.#nodes;
  }

  /** Has the attempt that began last given a part of the answer? */
  get gave(): boolean {
    return this.#gave;
  }

  /** An attempt on this backend begins. */
  begin(backendId: string): void {
    this.attempts += 1;
    this.#giver = backendId;
    this.#gave = false;
  }

  /**
   * Adds what the attempt gave. Does it go out now? What was held before it then goes first: `release`.
   *
   * @throws MeshError `protocol_violation` for what does not fit to what is there.
   */
  take(event: InferenceEvent): boolean {
    if (event.type === 'progress') return true;
    const isNews = this.#emitted.take(event);
    this.#note(event);
    if (!isNews) return false;
    if (this.#held === null) return true;
    if (commits(event, this.#stream)) {
      this.#released = this.#held;
      this.#held = null;
      return true;
    }
    this.#held.push(event);
    return false;
  }

  /** What was held until the commit, once. */
  release(): readonly InferenceEvent[] {
    const released = this.#released;
    this.#released = NOTHING;
    return released;
  }

  /** Forgets what came: another attempt begins anew. Only before the commit. */
  restart(): void {
    this.servedBy = null;
    this.#emitted = new EmittedAnswer(this.#choices);
    this.#held = [];
    this.#nodes = [];
  }

  #note(event: InferenceEvent): void {
    if (event.type === 'end') this.whole = true;
    else if (event.type === 'chunk' && !this.#gave) {
      this.#gave = true;
      this.#nodes.push(this.#giver);
    } else if (event.type === 'accepted') {
      this.#giver = event.node;
      if (!this.committed) this.servedBy = event.node;
    }
  }
}

/** With this event the answer goes out: at the first content of a stream, else when it is whole. */
function commits(event: InferenceEvent, stream: boolean): boolean {
  if (event.type === 'end') return true;
  if (!stream || event.type !== 'chunk') return false;
  return (
    event.text !== '' || event.reasoning !== undefined || event.toolCalls !== undefined || event.finish !== undefined
  );
}
