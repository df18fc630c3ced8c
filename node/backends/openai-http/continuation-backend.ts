/**
 * An HTTP backend that can also go on with a text that another of its kind began: by prefill where its server is known to
 * do that, else by answering anew, as long as that says the same.
 */
import type { ChunkEvent, EndEvent, InferenceEvent, InferenceRequest } from '../../../protocols/inference/events.ts';
import type { Clock } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';
import type { Backend } from '../backend.ts';
import { type BegunText, canContinue, canRepeat, continuedBody, type PrefillDialect } from './continuation-body.ts';
import { type ContinuationProbeOptions, probeContinuation } from './continuation-probe.ts';
import { HttpClient, type HttpClientOptions } from './http-client.ts';

export interface ContinuationBackendComponents {
  /** The server itself. */
  readonly backend: Backend;
  readonly clock: Clock;
}

export class ContinuationBackend implements Backend {
  readonly kind = 'http';
  readonly id: string;
  readonly #backend: Backend;
  readonly #client: HttpClient;
  #dialect: PrefillDialect = null;

  constructor({ backend, clock }: ContinuationBackendComponents, options: HttpClientOptions) {
    this.id = backend.id;
    this.#backend = backend;
    this.#client = new HttpClient({ clock }, options);
  }

  /** Asks the server anew what it can; what was known stays when it does not answer. Throws nothing. */
  async probe(options: ContinuationProbeOptions): Promise<void> {
    try {
      this.#dialect = await probeContinuation(this.#client, options);
    } catch {
      // Whatever it can, it is not asked now: the next poll that finds it well tries again.
    } finally {
      this.#client.closeIdle();
    }
  }

  /** Could it go on with an answer to this request? */
  continuesText(request: InferenceRequest): boolean {
    return canContinue(request, this.#dialect) || canRepeat(request);
  }

  /** As its server answers. @throws MeshError `cannot_resume` as well, for an answer that it cannot go on with. */
  infer(request: InferenceRequest, options: { signal: AbortSignal }): AsyncIterable<InferenceEvent> {
    const { resume, ...first } = request;
    if (resume === undefined) return this.#backend.infer(request, options);
    const [begun = null] = resume.choices;
    return this.#resume(first, { text: begun?.text ?? '', tokens: begun?.chunks ?? 0 }, options);
  }

  async *#resume(
    request: InferenceRequest,
    begun: BegunText,
    options: { signal: AbortSignal },
  ): AsyncGenerator<InferenceEvent> {
    try {
      // Many chat templates drop what is white at the end of a message; then the model writes it once more.
      const body = continuedBody(request, { ...begun, text: begun.text.trimEnd() }, this.#dialect);
      if (body !== null) {
        yield* this.#goOn({ ...request, body }, begun, options);
        return;
      }
    } catch (thrown) {
      // Before its answer begins. A server that does not want the beginning of it may still give all of it.
      if (!(thrown instanceof MeshError) || thrown.code !== 'invalid_request') throw thrown;
    }
    if (!canRepeat(request))
      throw new MeshError('cannot_resume', 'The server cannot go on with an answer that another began');
    yield* repeated(this.#backend.infer(request, options), begun.text);
  }

  async *#goOn(
    request: InferenceRequest,
    { text, tokens }: BegunText,
    options: { signal: AbortSignal },
  ): AsyncGenerator<InferenceEvent> {
    let given = text.slice(text.trimEnd().length);
    for await (const event of this.#backend.infer(request, options)) {
      if (event.type === 'end') yield inAll(event, tokens);
      else if (event.type !== 'chunk' || given === '') yield event;
      else {
        const overlap = commonPrefix(given, event.text);
        given = overlap < event.text.length ? '' : given.slice(overlap);
        yield* withoutFirst(event, overlap);
      }
    }
  }
}

/**
 * The same answer once more, without `text`, which it must begin with.
 *
 * @throws MeshError `cannot_resume` at the first character that differs: sampled answers do.
 */
async function* repeated(events: AsyncIterable<InferenceEvent>, text: string): AsyncGenerator<InferenceEvent> {
  let due = text;
  for await (const event of events) {
    if (event.type !== 'chunk' || due === '') {
      yield event;
      continue;
    }
    const shared = commonPrefix(due, event.text);
    due = due.slice(shared);
    const isOther = due !== '' && (shared < event.text.length || event.finish !== undefined);
    if (isOther || event.reasoning !== undefined || event.toolCalls !== undefined)
      throw new MeshError('cannot_resume', 'The server gives another answer than the one that was begun');
    if (due === '') yield* withoutFirst(event, shared);
  }
}

function commonPrefix(a: string, b: string): number {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length += 1;
  return length;
}

/** The chunk without text that went out before; none when nothing else is in it. */
function* withoutFirst(event: ChunkEvent, characters: number): Generator<ChunkEvent> {
  const text = event.text.slice(characters);
  const holdsMore = event.finish !== undefined || event.reasoning !== undefined || event.toolCalls !== undefined;
  if (text !== '' || holdsMore) yield { ...event, text };
}

/** Its server counted what was begun as part of the prompt. How many tokens that is can only be guessed. */
function inAll(event: EndEvent, begunTokens: number): EndEvent {
  const { promptTokens, completionTokens } = event.usage;
  const usage = {
    ...event.usage,
    promptTokens: Math.max(0, promptTokens - begunTokens),
    completionTokens: completionTokens + begunTokens,
  };
  return { ...event, usage };
}
