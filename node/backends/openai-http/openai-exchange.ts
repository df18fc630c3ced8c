/** One request to a server that speaks OpenAI's API, and how its answer is read. */
import type {
  EndEvent,
  InferenceEvent,
  InferenceKind,
  InferenceRequest,
  ResultEvent,
} from '../../../protocols/inference/events.ts';
import type { Clock } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';
import type { HttpAnswer, HttpClient, HttpLimits } from './http-client.ts';
import { bearer } from './model-list.ts';
import { OpenAiAnswer, readResult } from './openai-answer.ts';
import { readStart, readText } from './read-text.ts';
import { SseParser } from './sse-parser.ts';
import { errorOfRefusal } from './upstream-errors.ts';

/** All durations in milliseconds. */
export interface OpenAiHttpLimits extends HttpLimits {
  /** As `headersMs`, of a request that is not streamed: its headers come with the whole answer. */
  readonly wholeAnswerMs: number;
  /** After the finish reason: what is still to come are counts. */
  readonly tailMs: number;
}

export const DEFAULT_OPENAI_HTTP_LIMITS: OpenAiHttpLimits = {
  connectMs: 3000,
  headersMs: 120_000,
  silenceMs: 60_000,
  wholeAnswerMs: 900_000,
  tailMs: 5000,
};

/** Below the part of the path that OpenAI's API has. */
const CALLS = {
  chat: '/chat/completions',
  completion: '/completions',
  embedding: '/embeddings',
  rerank: '/rerank',
} as const;
const MAX_WHOLE_BYTES = 64 * 1024 * 1024;
const MAX_REFUSAL_BYTES = 64 * 1024;
/** The receiving node serves such a request itself or not at all. */
const HOPS = { 'x-meshnode-hops': '1' };

export interface OpenAiExchangeOptions {
  /** Who answers: as of the backend. */
  readonly fingerprint: string;
  /** What people and errors call the server. */
  readonly name: string;
  readonly limits: OpenAiHttpLimits;
  /** Default `/v1`. */
  readonly apiPath?: string;
}

export class OpenAiExchange {
  readonly #components: { readonly clock: Clock; readonly client: HttpClient };
  readonly #options: OpenAiExchangeOptions;

  constructor(components: { readonly clock: Clock; readonly client: HttpClient }, options: OpenAiExchangeOptions) {
    this.#components = components;
    this.#options = options;
  }

  /**
   * The events of its answer.
   *
   * @throws MeshError with what the server said in its message; whoever asks takes the key out of it.
   */
  async *ask(
    request: InferenceRequest,
    { key, signal }: { readonly key: string | null; readonly signal: AbortSignal },
  ): AsyncGenerator<InferenceEvent> {
    const { name, limits: given, apiPath = '/v1' } = this.#options;
    const { clock, client } = this.#components;
    if (request.resume !== undefined) {
      throw new MeshError('cannot_resume', `${name} cannot go on from the tokens of another`);
    }
    const startedAt = clock.now();
    const limits = isStreamed(request.body) ? given : { ...given, headersMs: given.wholeAnswerMs };
    const headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
    const ask = {
      method: 'POST',
      path: pathOf(request.kind, apiPath),
      headers: { ...headers, ...HOPS, ...bearer(key) },
      body: request.body,
    } as const;
    const answer = await client.call(ask, limits, signal);
    try {
      const contentType = await this.#checkHead(answer);
      yield { type: 'accepted', node: this.#options.fingerprint, promptTokens: 0, promptDigest: '', artifact: null };
      if (request.kind !== 'chat' && request.kind !== 'completion') {
        yield* this.#result(answer, startedAt);
        return;
      }
      const { requestId, choices = 1 } = request;
      const reading = new OpenAiAnswer({ name, requestId, choices });
      const texts = contentType === 'text/event-stream' ? this.#events(answer, reading) : this.#whole(answer);
      let firstAt = Number.NaN;
      for await (const text of texts) {
        const chunks = reading.take(text);
        if (chunks.length > 0 && Number.isNaN(firstAt)) firstAt = clock.now();
        yield* chunks;
      }
      const endedAt = clock.now();
      const first = Number.isNaN(firstAt) ? endedAt : firstAt;
      const end = reading.end({ promptMs: first - startedAt, predictedMs: endedAt - first });
      answer.settle();
      yield end;
    } finally {
      answer.close();
    }
  }

  /** The answer of a kind that generates nothing, byte for byte. */
  async *#result(answer: HttpAnswer, startedAt: number): AsyncGenerator<ResultEvent | EndEvent> {
    const { body, usage } = readResult(
      await readText(answer.body, MAX_WHOLE_BYTES, this.#options.name),
      this.#options.name,
    );
    answer.settle();
    yield { type: 'result', body };
    const timings = { promptMs: this.#components.clock.now() - startedAt, predictedMs: 0 };
    yield { type: 'end', finishReasons: [], usage, timings };
  }

  /** The content type of an answer that begins well. */
  async #checkHead({ status, headers, body }: HttpAnswer): Promise<string> {
    const name = this.#options.name;
    if (status !== 200) {
      const said = await readStart(body, MAX_REFUSAL_BYTES);
      throw errorOfRefusal({ name, status, headers, body: said, nowMs: Date.now() });
    }
    const encoding = headers['content-encoding'] ?? 'identity';
    if (encoding !== 'identity') throw new MeshError('upstream_error', `${name} compressed its answer unasked`);
    const contentType = (headers['content-type'] ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? '';
    if (contentType === 'text/event-stream' || contentType === 'application/json') return contentType;
    throw new MeshError('upstream_error', `${name} answered with neither JSON nor an event stream`);
  }

  async *#whole({ body }: HttpAnswer): AsyncGenerator<string> {
    yield await readText(body, MAX_WHOLE_BYTES, this.#options.name);
  }

  /** The data of each event up to `[DONE]` or the end of the stream. */
  async *#events(answer: HttpAnswer, reading: OpenAiAnswer): AsyncGenerator<string> {
    const parser = new SseParser();
    try {
      for await (const bytes of answer.body) {
        for (const { event, data } of parser.push(bytes)) {
          if (data === '[DONE]') return;
          yield event === 'error' ? asError(data) : data;
          // Servers that never say [DONE] are not waited for.
          if (reading.isOver) return;
          if (reading.isWhole) answer.boundSilence(this.#options.limits.tailMs);
        }
      }
    } catch (error) {
      // All content is here: a server that never says [DONE], or breaks off then, has cut nothing.
      const isOutside = error instanceof MeshError && error.code === 'peer_unreachable';
      if (!isOutside || !reading.isWhole) throw error;
    }
  }
}

/** Those of llama.cpp and vLLM tokenize outside of OpenAI's API. */
function pathOf(kind: InferenceKind, apiPath: string): string {
  return kind === 'tokenize' || kind === 'detokenize' ? `/${kind}` : `${apiPath}${CALLS[kind]}`;
}

/** Events named `error` carry the error with or without its envelope. */
function asError(data: string): string {
  try {
    const json = JSON.parse(data) as unknown;
    const isWrapped = typeof json === 'object' && json !== null && 'error' in json;
    return JSON.stringify(isWrapped ? json : { error: json });
  } catch {
    return JSON.stringify({ error: { message: data } });
  }
}

/** Only decides how long headers may take, so a look at the text is enough: within a JSON string the quotes are escaped. */
function isStreamed(body: Uint8Array): boolean {
  return /"stream"\s*:\s*true/.test(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('latin1'));
}
