/** A server that speaks OpenAI's API over HTTP as a backend: vLLM, llama-server, Ollama, another node's facade. */
import type { CatalogEntry } from '../../../protocols/catalog/catalog.ts';
import type { EndEvent, InferenceEvent, InferenceRequest, ResultEvent } from '../../../protocols/inference/events.ts';
import type { Clock } from '../../common/clock.ts';
import { MeshError, toMeshError } from '../../common/errors.ts';
import type { Backend } from '../backend.ts';
import { type HttpAnswer, HttpClient, type HttpLimits } from './http-client.ts';
import { type AskModels, bearer, fetchModels } from './model-list.ts';
import { OpenAiAnswer, readResult } from './openai-answer.ts';
import { readStart, readText } from './read-text.ts';
import { ServerHealth, type ServerStatus } from './server-health.ts';
import { SseParser } from './sse-parser.ts';
import { errorOfRefusal, withoutSecret } from './upstream-errors.ts';

export interface OpenAiHttpComponents {
  readonly clock: Clock;
  /** The key of now, read for every request; null = none. */
  readonly key: () => string | null;
  /** Default: by `GET /v1/models`. */
  readonly askModels?: AskModels;
  /** Status or models changed. */
  readonly onChange?: () => void;
  /** A request found the server dead: it is worth asking again soon. */
  readonly onTrouble?: () => void;
}

export interface OpenAiHttpOptions {
  /** `api:<slug>`. */
  readonly fingerprint: string;
  /** What people and errors call it. */
  readonly name: string;
  /** Base URL without trailing slash and `/v1`. */
  readonly url: string;
  readonly limits?: Partial<OpenAiHttpLimits>;
  /** As of `HttpClient`. */
  readonly publicOnly?: boolean;
}

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

/** Where servers have them: those of llama.cpp and vLLM tokenize outside of /v1. */
const PATHS = {
  chat: '/v1/chat/completions',
  completion: '/v1/completions',
  embedding: '/v1/embeddings',
  rerank: '/v1/rerank',
  tokenize: '/tokenize',
  detokenize: '/detokenize',
} as const;
const MAX_WHOLE_BYTES = 64 * 1024 * 1024;
const MAX_REFUSAL_BYTES = 64 * 1024;
/** The receiving node serves such a request itself or not at all. */
const HOPS = { 'x-meshnode-hops': '1' };

export class OpenAiHttpBackend implements Backend {
  readonly kind = 'http';
  readonly id: string;
  readonly #components: OpenAiHttpComponents;
  readonly #name: string;
  readonly #client: HttpClient;
  readonly #limits: OpenAiHttpLimits;
  readonly #health: ServerHealth;
  #models: readonly CatalogEntry[] = [];
  #latencyMs: number | null = null;
  #problem: string | null = null;
  #lastShown = '';
  #active = 0;

  constructor(components: OpenAiHttpComponents, options: OpenAiHttpOptions) {
    this.#components = components;
    this.id = options.fingerprint;
    this.#name = options.name;
    this.#client = new HttpClient({ clock: components.clock }, options);
    this.#limits = { ...DEFAULT_OPENAI_HTTP_LIMITS, ...options.limits };
    this.#health = new ServerHealth(components.clock);
  }

  get status(): ServerStatus {
    return this.#health.status;
  }

  /** Failed polls one after the other. */
  get failures(): number {
    return this.#health.failures;
  }

  /** What it listed last; nothing while it is offline. */
  get models(): readonly CatalogEntry[] {
    return this.status === 'offline' ? [] : this.#models;
  }

  /** Of the last answered poll, milliseconds; null before it. */
  get latencyMs(): number | null {
    return this.#latencyMs;
  }

  /** One sentence: what the last poll or request ran into; null when all is well. Quotes no prompt. */
  get problem(): string | null {
    return this.#problem;
  }

  /** Asks for the model list and takes note of how it went. Throws nothing but the signal's reason. */
  async poll(signal: AbortSignal): Promise<void> {
    let failure: MeshError | null = null;
    let queued = 0;
    try {
      const { clock, askModels = fetchModels } = this.#components;
      const options = { name: this.#name, key: this.#components.key(), signal };
      const { models, latencyMs, waiting } = await askModels({ client: this.#client, clock }, options);
      queued = waiting;
      this.#models = models;
      this.#latencyMs = latencyMs;
    } catch (error) {
      signal.throwIfAborted();
      failure = toMeshError(error);
    }
    this.#health.polled(failure, { waiting: queued, active: this.#active });
    this.#problem = failure?.message ?? null;
    this.#show();
  }

  /** The key changed: what the server said about the old one is void. */
  rekeyed(): void {
    this.#health.rekeyed();
    this.#problem = null;
    this.#show();
  }

  /** Requests that run go on; whatever is idle closes. */
  retire(): void {
    this.#client.closeIdle();
  }

  /** Breaks all connections. */
  close(): void {
    this.#client.destroy();
  }

  /** Drops a model of which the server said that it does not serve it, until the next poll. */
  forget(modelId: string): void {
    this.#models = this.#models.filter((entry) => entry.id !== modelId);
    this.#show();
  }

  async *infer(request: InferenceRequest, { signal }: { signal: AbortSignal }): AsyncGenerator<InferenceEvent> {
    const key = this.#components.key();
    this.#active += 1;
    try {
      for await (const event of this.#ask(request, key, signal)) {
        if (event.type === 'end') this.#note(null);
        yield event;
      }
    } catch (thrown) {
      const error = withoutSecret(toMeshError(thrown, 'upstream_error'), key);
      if (!signal.aborted) this.#note(error);
      throw error;
    } finally {
      this.#active -= 1;
    }
  }

  #note(error: MeshError | null): void {
    const isTrouble = this.#health.answered(error);
    if (isTrouble) this.#components.onTrouble?.();
    // Only what is said in our own words: a server's may quote the prompt.
    if (error === null) this.#problem = null;
    else if (isTrouble || error.code === 'unauthorized') this.#problem = error.message;
    this.#show();
  }

  #show(): void {
    const { status } = this;
    const shown = JSON.stringify([status, this.models]);
    if (shown === this.#lastShown) return;
    this.#lastShown = shown;
    this.#components.onChange?.();
  }

  async *#ask(request: InferenceRequest, key: string | null, signal: AbortSignal): AsyncGenerator<InferenceEvent> {
    if (request.resume !== undefined) {
      throw new MeshError('cannot_resume', `${this.#name} cannot go on from the tokens of another`);
    }
    const { clock } = this.#components;
    const startedAt = clock.now();
    const limits = isStreamed(request.body) ? this.#limits : { ...this.#limits, headersMs: this.#limits.wholeAnswerMs };
    const headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
    const ask = {
      method: 'POST',
      path: PATHS[request.kind],
      headers: { ...headers, ...HOPS, ...bearer(key) },
      body: request.body,
    } as const;
    const answer = await this.#client.call(ask, limits, signal);
    try {
      const contentType = await this.#checkHead(answer);
      yield { type: 'accepted', node: this.id, promptTokens: 0, promptDigest: '', artifact: null };
      if (request.kind !== 'chat' && request.kind !== 'completion') {
        yield* this.#result(answer, startedAt);
        return;
      }
      const { requestId, choices = 1 } = request;
      const reading = new OpenAiAnswer({ name: this.#name, requestId, choices });
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
    const { body, usage } = readResult(await readText(answer.body, MAX_WHOLE_BYTES, this.#name), this.#name);
    answer.settle();
    yield { type: 'result', body };
    const timings = { promptMs: this.#components.clock.now() - startedAt, predictedMs: 0 };
    yield { type: 'end', finishReasons: [], usage, timings };
  }

  /** The content type of an answer that begins well. */
  async #checkHead({ status, headers, body }: HttpAnswer): Promise<string> {
    const name = this.#name;
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
    yield await readText(body, MAX_WHOLE_BYTES, this.#name);
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
          if (reading.isWhole) answer.boundSilence(this.#limits.tailMs);
        }
      }
    } catch (error) {
      // All content is here: a server that never says [DONE], or breaks off then, has cut nothing.
      const isOutside = error instanceof MeshError && error.code === 'peer_unreachable';
      if (!isOutside || !reading.isWhole) throw error;
    }
  }
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
