/** Runs all choices of a request, each as an answer of its own, and makes one stream of events of them. */
import type { AcceptedEvent, EndEvent, InferenceEvent } from '../../../protocols/inference/events.ts';
import { MeshError, toMeshError } from '../../common/errors.ts';
import type { AcceptedOrder, Answer } from './answer.ts';
import type { LaneOrder, StepEnd } from './ipc.ts';
import { digestOfPrompts, laneOrders, sounding } from './lane-orders.ts';
import { Merge } from './merge.ts';
import type { GenerationRequest } from './request/generation-request.ts';

/** Of one request, so that one with a hundred choices leaves room in slots and queue. */
const DEFAULT_AT_ONCE = 4;

/** A model's engine, as far as choices need it: `ModelEngine`. */
export interface LaneEngine {
  submit(order: LaneOrder): Answer;
  cancel(answer: Answer, error: MeshError): void;
}

export interface ChoiceFacts {
  /** This node's own. */
  readonly fingerprint: string;
  /** sha256 of the model's file, null while it is not known. */
  readonly artifact: string | null;
  /** Most choices that are submitted at a time; default 4. */
  readonly atOnce?: number;
}

/**
 * The answer to `request`. A choice whose resumed part is whole is not run again, but counts.
 *
 * @throws MeshError `cannot_resume` when it was begun from another file or renders to another prompt; what `submit`
 *   throws; the failure of any choice, which ends all; `client_closed` after `signal`.
 */
export async function* answerChoices(
  engine: LaneEngine,
  request: GenerationRequest,
  facts: ChoiceFacts,
  { signal }: { signal: AbortSignal },
): AsyncGenerator<InferenceEvent> {
  refuseForeign(request, facts);
  const run = new ChoiceRun(engine, request, facts);
  const onAbort = (): void => run.fail(clientClosed());
  signal.addEventListener('abort', onAbort, { once: true });
  if (signal.aborted) run.fail(clientClosed());
  else run.start();
  try {
    yield* run.events();
  } finally {
    signal.removeEventListener('abort', onAbort);
    // Also when the reader has left: a no-op when all is over.
    run.fail(clientClosed());
  }
}

function refuseForeign({ prompts, choices, resume }: GenerationRequest, { artifact }: ChoiceFacts): void {
  if (resume === null) return;
  if (resume.artifact !== artifact) throw cannotResume('another model file');
  if (resume.choices.length !== prompts.length * choices) throw cannotResume('another number of choices');
}

/** One order of the run. */
interface Piece {
  readonly order: LaneOrder;
  /** Nothing of its chunks is for the client. */
  readonly silent: boolean;
  /** Its end is that of its choice. */
  readonly counts: boolean;
}

class ChoiceRun {
  readonly #engine: LaneEngine;
  readonly #request: GenerationRequest;
  readonly #facts: ChoiceFacts;
  readonly #merge = new Merge<InferenceEvent>();
  readonly #running = new Set<Answer>();
  readonly #waiting: Piece[];
  /** By prompt. */
  readonly #accepted: AcceptedOrder[] = [];
  /** By choice. */
  readonly #ends: StepEnd[] = [];
  readonly #allAccepted = Promise.withResolvers<void>();
  #acceptedCount = 0;
  #endedCount = 0;
  #over = false;

  constructor(engine: LaneEngine, request: GenerationRequest, facts: ChoiceFacts) {
    this.#engine = engine;
    this.#request = request;
    this.#facts = facts;
    const orders = laneOrders(request);
    const late = orders.filter(({ choice }) => choice >= this.#atOnce && choice % request.choices === 0);
    this.#waiting = [
      ...late.map((order) => ({ order: sounding(order), silent: true, counts: false })),
      ...orders.map((order) => ({ order, silent: order.finished, counts: true })),
    ];
    this.#allAccepted.promise.catch(() => {});
  }

  get #atOnce(): number {
    return this.#facts.atOnce ?? DEFAULT_AT_ONCE;
  }

  start(): void {
    this.#submitNext();
  }

  events(): AsyncGenerator<InferenceEvent> {
    return this.#merge.values();
  }

  /** Ends everything that runs, with `error`. */
  fail(error: MeshError): void {
    if (this.#over) return;
    this.#over = true;
    this.#waiting.length = 0;
    for (const answer of this.#running) if (!answer.over) this.#engine.cancel(answer, error);
    this.#allAccepted.reject(error);
    this.#merge.fail(error);
  }

  #submitNext(): void {
    while (!this.#over && this.#running.size < this.#atOnce) {
      const piece = this.#waiting[0];
      if (piece === undefined) return;
      let answer: Answer;
      try {
        answer = this.#engine.submit(piece.order);
      } catch (thrown) {
        const error = toMeshError(thrown, 'engine_failed');
        // A full queue lets the others of this request go on: their ends bring the next try.
        if (error.code !== 'overloaded' || this.#running.size === 0) this.fail(error);
        return;
      }
      this.#waiting.shift();
      this.#running.add(answer);
      void this.#follow(answer, piece);
    }
  }

  /** Never rejects. */
  async #follow(answer: Answer, { order, silent, counts }: Piece): Promise<void> {
    try {
      for await (const event of answer.events()) {
        if (event.type === 'progress') await this.#progress(answer, event);
        else if (event.type === 'accepted') await this.#accept(order, event);
        else if (event.type === 'end' && counts) this.#end(order, event);
        else if (event.type === 'chunk' && !silent) {
          await this.#allAccepted.promise;
          await this.#merge.put(event);
        }
      }
      this.#running.delete(answer);
      if (this.#endedCount === this.#choiceCount) await this.#finish();
      else this.#submitNext();
    } catch (thrown) {
      this.fail(toMeshError(thrown, 'engine_failed'));
    }
  }

  get #choiceCount(): number {
    return this.#request.prompts.length * this.#request.choices;
  }

  /** One of several that wait speaks for all. */
  async #progress(answer: Answer, event: InferenceEvent): Promise<void> {
    const [first] = this.#running;
    if (answer === first && this.#acceptedCount < this.#request.prompts.length) await this.#merge.put(event);
  }

  async #accept({ choice }: LaneOrder, event: AcceptedOrder): Promise<void> {
    const prompt = Math.floor(choice / this.#request.choices);
    if (this.#accepted[prompt] !== undefined) return;
    this.#accepted[prompt] = event;
    this.#acceptedCount += 1;
    if (this.#acceptedCount < this.#request.prompts.length) return;
    const accepted = this.#acceptedEvent();
    const { resume } = this.#request;
    if (resume !== null && resume.promptDigest !== accepted.promptDigest) throw cannotResume('another prompt');
    await this.#merge.put(accepted);
    this.#allAccepted.resolve();
  }

  #acceptedEvent(): AcceptedEvent {
    return {
      type: 'accepted',
      node: this.#facts.fingerprint,
      promptTokens: sum(this.#accepted.map(({ promptTokens }) => promptTokens)),
      promptDigest: digestOfPrompts(this.#accepted.map(({ promptDigest }) => promptDigest)),
      artifact: this.#facts.artifact,
    };
  }

  #end({ choice }: LaneOrder, end: StepEnd): void {
    this.#ends[choice] = end;
    this.#endedCount += 1;
  }

  async #finish(): Promise<void> {
    this.#over = true;
    await this.#merge.put(this.#endEvent());
    this.#merge.end();
  }

  #endEvent(): EndEvent {
    const { choices, resume } = this.#request;
    const ends = this.#ends;
    const resumed = resume?.choices ?? [];
    const reasoningTokens = sum(ends.map((end) => end.reasoningTokens));
    return {
      type: 'end',
      finishReasons: ends.map(({ finish }, choice) => resumed[choice]?.finish ?? finish),
      usage: {
        promptTokens: sum(this.#accepted.map(({ promptTokens }) => promptTokens)),
        completionTokens: sum([
          ...ends.map(({ completionTokens }) => completionTokens),
          ...resumed.map(({ tokens }) => tokens.length),
        ]),
        cachedTokens: sum(ends.map(({ cachedTokens }, choice) => (choice % choices === 0 ? cachedTokens : 0))),
        ...(reasoningTokens === 0 ? {} : { reasoningTokens }),
      },
      timings: {
        promptMs: Math.max(...ends.map(({ timings }) => timings.promptMs)),
        predictedMs: Math.max(...ends.map(({ timings }) => timings.predictedMs)),
      },
    };
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

function cannotResume(what: string): MeshError {
  return new MeshError('cannot_resume', `This node cannot go on with the answer: it was begun with ${what}.`);
}

function clientClosed(): MeshError {
  return new MeshError('client_closed', 'The request was cancelled.');
}
