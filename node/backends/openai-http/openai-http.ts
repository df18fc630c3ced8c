/** A server that speaks OpenAI's API over HTTP as a backend: vLLM, llama-server, Ollama, another node's facade. */
import type { CatalogEntry } from '../../../protocols/catalog/catalog.ts';
import type { InferenceEvent, InferenceRequest } from '../../../protocols/inference/events.ts';
import type { Clock } from '../../common/clock.ts';
import { type MeshError, toMeshError } from '../../common/errors.ts';
import type { Backend } from '../backend.ts';
import { HttpClient } from './http-client.ts';
import { type AskModels, fetchModels } from './model-list.ts';
import { DEFAULT_OPENAI_HTTP_LIMITS, OpenAiExchange, type OpenAiHttpLimits } from './openai-exchange.ts';
import { ServerHealth, type ServerStatus } from './server-health.ts';
import { withoutSecret } from './upstream-errors.ts';

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
  /** Below the URL: what OpenAI's calls are appended to, for example `/chat/completions`. Default `/v1`. */
  readonly apiPath?: string;
  readonly limits?: Partial<OpenAiHttpLimits>;
  /** As of `HttpClient`. */
  readonly publicOnly?: boolean;
}

export class OpenAiHttpBackend implements Backend {
  readonly kind = 'http';
  readonly id: string;
  readonly #components: OpenAiHttpComponents;
  readonly #options: OpenAiHttpOptions;
  readonly #client: HttpClient;
  readonly #exchange: OpenAiExchange;
  readonly #health: ServerHealth;
  #models: readonly CatalogEntry[] = [];
  #latencyMs: number | null = null;
  #problem: string | null = null;
  #lastShown = '';
  #active = 0;

  constructor(components: OpenAiHttpComponents, options: OpenAiHttpOptions) {
    this.#components = components;
    this.id = options.fingerprint;
    this.#options = options;
    const { clock } = components;
    this.#client = new HttpClient({ clock }, options);
    const limits = { ...DEFAULT_OPENAI_HTTP_LIMITS, ...options.limits };
    this.#exchange = new OpenAiExchange({ clock, client: this.#client }, { ...options, limits });
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
      const { name, apiPath } = this.#options;
      const options = { name, key: this.#components.key(), signal, ...(apiPath !== undefined && { apiPath }) };
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
      for await (const event of this.#exchange.ask(request, { key, signal })) {
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
}
