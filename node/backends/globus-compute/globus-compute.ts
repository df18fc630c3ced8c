/** A model behind Globus Compute as a backend: FIRST's function is called there, which asks the model server beside it. */
import { randomUUID } from 'node:crypto';
import type { EndEvent, InferenceEvent, InferenceRequest } from '../../../protocols/inference/events.ts';
import { abortable, type Clock, deadline, sleep } from '../../common/clock.ts';
import { MeshError, toMeshError } from '../../common/errors.ts';
import type { StreamCallbacks } from '../../storage/fixtures/fixture-types.ts';
import type { Backend } from '../backend.ts';
import { OpenAiAnswer, readResult } from '../openai-http/openai-answer.ts';
import { withoutSecret } from '../openai-http/upstream-errors.ts';
import { awaited } from './awaited.ts';
import { answerOf, type CalledModel, packCall, pushedPieces, wantsStream } from './function-call.ts';
import type { GlobusAccount } from './globus-account.ts';
import { checkPushed, PushedAnswer } from './pushed-answer.ts';
import { resultText } from './task-report.ts';

export interface GlobusComputeComponents {
  readonly clock: Clock;
  /** Null while there are no credentials. */
  readonly account: () => GlobusAccount | null;
  /** As `EndpointWatch.admit`. */
  readonly admit: () => () => void;
  /** Is the model up, so that an answer begins at once? Only then is it streamed. */
  readonly isRunning: () => boolean;
  /** Something went wrong that the endpoint's status may explain. */
  readonly onTrouble: () => void;
  /** Absent: every answer comes whole. */
  readonly callbacks?: StreamCallbacks;
}

export interface GlobusComputeOptions extends CalledModel {
  /** `globus:<slug>`. */
  readonly fingerprint: string;
  /** What people and errors call it. */
  readonly name: string;
  readonly endpointUuid: string;
  readonly functionUuid: string;
  /** From the submit to the result, milliseconds. Default 300,000. */
  readonly waitMs?: number;
}

const WAIT_MS = 300_000;
/** After the last piece of a pushed answer the function returns at once; its result is not needed to end the answer. */
const REPORT_MS = 10_000;

/** The service cannot cancel tasks: one that nobody waits for any more runs to its end there, and its result expires. */
export class GlobusComputeBackend implements Backend {
  readonly kind = 'http';
  readonly id: string;
  readonly #components: GlobusComputeComponents;
  readonly #options: GlobusComputeOptions;

  constructor(components: GlobusComputeComponents, options: GlobusComputeOptions) {
    this.id = options.fingerprint;
    this.#components = components;
    this.#options = options;
  }

  async *infer(request: InferenceRequest, { signal }: { signal: AbortSignal }): AsyncGenerator<InferenceEvent> {
    const { clock, onTrouble } = this.#components;
    const { name, waitMs = WAIT_MS } = this.#options;
    let taskId: string | null = null;
    const late = (): MeshError => {
      const where = taskId === null ? '' : `; its task ${taskId} goes on there`;
      return new MeshError('request_timeout', `${name} gave no result within ${waitMs / 1000} s${where}`);
    };
    // Also ends what runs when whoever asked leaves early.
    const left = new AbortController();
    using bound = deadline(clock, waitMs, late, AbortSignal.any([signal, left.signal]));
    const noteTask = (id: string): void => {
      taskId = id;
    };
    try {
      yield* this.#ask(request, { signal: bound.signal, noteTask });
    } catch (thrown) {
      if (signal.aborted) throw ownReason(signal);
      const error = toMeshError(thrown, 'upstream_error');
      if (error.code === 'peer_unreachable' || error.code === 'unauthorized') onTrouble();
      throw error;
    } finally {
      left.abort(new MeshError('client_closed', 'The request was given up'));
    }
  }

  async *#ask(request: InferenceRequest, asking: Asking): AsyncGenerator<InferenceEvent> {
    const { account, callbacks, isRunning, admit } = this.#components;
    const { name } = this.#options;
    if (request.resume !== undefined) {
      throw new MeshError('cannot_resume', `${name} cannot go on from the tokens of another`);
    }
    const used = account();
    if (used === null) throw new MeshError('unauthorized', `There is no Globus service account for ${name}`);
    const url = callbacks !== undefined && isRunning() && wantsStream(request) ? callbacks.url() : null;
    if (callbacks !== undefined && url !== null) {
      yield* this.#streamed(request, asking, used, { callbacks, url });
      return;
    }
    const packed = packCall(request, this.#options, null);
    yield* this.#whole(request, this.#run(used, packed, admit, asking));
  }

  /** The text that the function returned. */
  async #run(account: GlobusAccount, packed: string, admit: () => () => void, asking: Asking): Promise<string> {
    const { endpointUuid, functionUuid, name } = this.#options;
    const { signal } = asking;
    const undo = admit();
    let taskId: string;
    try {
      taskId = await account.submit({ endpointUuid, functionUuid, packed }, signal);
    } catch (error) {
      undo();
      throw error;
    }
    asking.noteTask(taskId);
    return resultText(await account.result(taskId, signal), name);
  }

  async *#whole(request: InferenceRequest, returned: Promise<string>): AsyncGenerator<InferenceEvent> {
    const { clock, isRunning } = this.#components;
    const startedAt = clock.now();
    const text = yield* awaited(clock, returned, isRunning() ? 'queued' : 'loading');
    yield* this.#given(request, answerOf(text), startedAt);
  }

  /** An answer that came at once. */
  *#given(request: InferenceRequest, text: string, startedAt: number): Generator<InferenceEvent> {
    const { name } = this.#options;
    const timings = { promptMs: this.#components.clock.now() - startedAt, predictedMs: 0 };
    if (request.kind !== 'chat' && request.kind !== 'completion') {
      const { body, usage } = readResult(text, name);
      yield this.#accepted();
      yield { type: 'result', body };
      yield { type: 'end', finishReasons: [], usage, timings };
      return;
    }
    const reading = this.#reading(request);
    const chunks = reading.take(text);
    const end = reading.end(timings);
    yield this.#accepted();
    yield* chunks;
    yield end;
  }

  async *#streamed(
    request: InferenceRequest,
    asking: Asking,
    account: GlobusAccount,
    { callbacks, url }: { readonly callbacks: StreamCallbacks; readonly url: string },
  ): AsyncGenerator<InferenceEvent> {
    const { clock, admit } = this.#components;
    const startedAt = clock.now();
    const pushTaskId = randomUUID();
    const opened = callbacks.open(pushTaskId);
    const push = { url, taskId: pushTaskId, token: opened.token };
    let answer: PushedAnswer | null = null;
    try {
      const returned = this.#run(account, packCall(request, this.#options, push), admit, asking);
      answer = new PushedAnswer({ clock, chunks: opened.chunks, returned });
      const reading = this.#reading(request);
      let firstAt: number | null = null;
      for (;;) {
        const step = abortable(answer.step(), asking.signal);
        const next = firstAt === null ? yield* awaited(clock, step, 'queued') : await step;
        if (next === 'pushed') break;
        if ('whole' in next) {
          yield* this.#given(request, answerOf(next.whole), startedAt);
          return;
        }
        if (firstAt === null) {
          firstAt = clock.now();
          yield this.#accepted();
        }
        for (const data of next.data) yield* reading.take(data);
      }
      yield await this.#pushedEnd(reading, { answer, returned, startedAt, firstAt, asking });
    } catch (error) {
      // A model server may repeat its parameters, and the function the whole of its arguments.
      throw withoutSecret(toMeshError(error, 'upstream_error'), opened.token);
    } finally {
      opened.close();
      await answer?.close();
    }
  }

  /** Waits a while for what the function says of it: that nothing was lost on the way back. */
  async #pushedEnd(reading: OpenAiAnswer, pushed: Pushed): Promise<EndEvent> {
    const { clock } = this.#components;
    const { answer, returned, startedAt, firstAt, asking } = pushed;
    const endedAt = clock.now();
    const over = new AbortController();
    const tooLong = sleep(clock, REPORT_MS, AbortSignal.any([over.signal, asking.signal])).then(() => null);
    try {
      const report = await Promise.race([returned, tooLong]);
      if (report !== null) checkPushed(pushedPieces(report), answer.count, this.#options.name);
    } finally {
      over.abort(new MeshError('client_closed', 'answered'));
      await tooLong.catch(() => {});
    }
    const first = firstAt ?? endedAt;
    return reading.end({ promptMs: first - startedAt, predictedMs: endedAt - first });
  }

  #reading({ requestId, choices = 1 }: InferenceRequest): OpenAiAnswer {
    return new OpenAiAnswer({ name: this.#options.name, requestId, choices });
  }

  #accepted(): InferenceEvent {
    return { type: 'accepted', node: this.id, promptTokens: 0, promptDigest: '', artifact: null };
  }
}

/** One request on its way. */
interface Asking {
  readonly signal: AbortSignal;
  readonly noteTask: (taskId: string) => void;
}

interface Pushed {
  readonly answer: PushedAnswer;
  readonly returned: Promise<string>;
  readonly startedAt: number;
  readonly firstAt: number | null;
  readonly asking: Asking;
}

function ownReason({ reason }: AbortSignal): MeshError {
  return reason instanceof MeshError ? reason : new MeshError('client_closed', 'The request was given up');
}
