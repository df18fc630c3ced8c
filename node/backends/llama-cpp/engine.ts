/** llama.cpp on this machine as a backend: one supervised child process for each model in use. */

import type { CatalogEntry, NodeLoad } from '../../../protocols/catalog/catalog.ts';
import type { InferenceEvent, InferenceRequest } from '../../../protocols/inference/events.ts';
import { abortable, type Clock } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';
import type { Logger } from '../../common/logger.ts';
import type { ModelFile, ModelFileSource } from '../../storage/model-file.ts';
import type { Engine, EngineEvent } from '../backend.ts';
import { engineBuild } from './engine-build.ts';
import { generationRequest } from './generation-request.ts';
import { DEFAULT_CONTEXT_TOKENS, type GpuChoice } from './ipc.ts';
import { ModelEngine } from './model-engine.ts';

export interface EngineComponents {
  /** This node's own. */
  readonly fingerprint: string;
  readonly models: ModelFileSource;
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface EngineOptions {
  readonly gpu: GpuChoice;
  /** Tokens per request; null for what fits memory, up to the trained context and 8192. */
  readonly contextTokens: number | null;
  /** Requests that run at once per model. */
  readonly parallel: number;
  /** Requests that wait per model; default 16 × `parallel`. */
  readonly queueLimit?: number;
  /** Silence of a working child after which it is killed; default 2000 ms. */
  readonly wedgedAfterMs?: number;
}

export class LlamaEngine implements Engine {
  readonly kind = 'engine';
  readonly id: string;
  readonly #components: EngineComponents;
  readonly #options: EngineOptions;
  readonly #engines = new Map<string, { readonly engine: ModelEngine; readonly file: ModelFile }>();
  /** Of files that are gone or were replaced: they finish what they have. */
  readonly #retired = new Set<ModelEngine>();
  readonly #changeListeners = new Set<() => void>();
  readonly #eventListeners = new Set<(event: EngineEvent) => void>();
  #unsubscribe: () => void = () => {};
  #stopping = false;

  constructor(components: EngineComponents, options: EngineOptions) {
    this.id = components.fingerprint;
    this.#components = components;
    this.#options = options;
  }

  /** llama.cpp's release. Reads a small file; loads no native code. */
  get build(): string {
    return engineBuild();
  }

  /** Forks nothing: a child starts with the first request for its model. */
  start(): void {
    this.#unsubscribe = this.#components.models.onChange(() => this.#filesChanged());
  }

  /** Fails what runs with `draining` and kills the children. */
  async stop(signal: AbortSignal): Promise<void> {
    this.#stopping = true;
    this.#unsubscribe();
    const stopped = Promise.all(this.#all().map((engine) => engine.stop()));
    // A child that even SIGKILL does not end is the kernel's to finish.
    await abortable(stopped, signal).catch(() => {});
  }

  catalog(): readonly CatalogEntry[] {
    return this.#components.models.list().map((file) => this.#entry(file));
  }

  onCatalogChange(listener: () => void): () => void {
    this.#changeListeners.add(listener);
    return () => this.#changeListeners.delete(listener);
  }

  /** What happens to models, for people to see; returns the unsubscribe. */
  onEvent(listener: (event: EngineEvent) => void): () => void {
    this.#eventListeners.add(listener);
    return () => this.#eventListeners.delete(listener);
  }

  /** All models together; the age is that of the child that has been silent longest. */
  load(): Omit<NodeLoad, 'draining'> {
    const loads = this.#all().map((engine) => engine.load);
    return {
      inFlight: loads.reduce((sum, load) => sum + load.inFlight, 0),
      queued: loads.reduce((sum, load) => sum + load.queued, 0),
      engineAgeMs: Math.max(0, ...loads.map((load) => load.engineAgeMs)),
    };
  }

  /** Process ids of the children that live, by model: for tests and diagnosis. */
  children(): ReadonlyMap<string, number> {
    const pids = new Map<string, number>();
    for (const [model, { engine }] of this.#engines) if (engine.pid !== null) pids.set(model, engine.pid);
    return pids;
  }

  /** See `Backend.infer`. A model that is not here is `model_not_loaded`. */
  async *infer(request: InferenceRequest, { signal }: { signal: AbortSignal }): AsyncGenerator<InferenceEvent> {
    if (signal.aborted) throw clientClosed();
    const engine = this.#engine(request.model);
    const answer = engine.submit(generationRequest(request));
    const onAbort = (): void => engine.cancel(answer, clientClosed());
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      yield* answer.events();
    } finally {
      signal.removeEventListener('abort', onAbort);
      // Also when the reader has left: a no-op for an answer that is over.
      if (!answer.over) engine.cancel(answer, clientClosed());
    }
  }

  #engine(model: string): ModelEngine {
    if (this.#stopping) throw new MeshError('draining', 'This node is shutting down.');
    const known = this.#engines.get(model);
    if (known !== undefined) return known.engine;
    const file = this.#file(model);
    if (file === undefined) {
      throw new MeshError('model_not_loaded', `This node does not have the model "${model}".`, { param: 'model' });
    }
    const { fingerprint, clock, logger } = this.#components;
    const { parallel, gpu, contextTokens } = this.#options;
    const engine = new ModelEngine(
      {
        fingerprint,
        clock,
        logger,
        file: () => this.#file(model) ?? file,
        onEvent: (event) => this.#tell(event),
        onChange: () => this.#changed(),
      },
      {
        gpu,
        contextTokens,
        parallel,
        queueLimit: this.#options.queueLimit ?? 16 * parallel,
        wedgedAfterMs: this.#options.wedgedAfterMs ?? 2_000,
      },
    );
    this.#engines.set(model, { engine, file });
    return engine;
  }

  #all(): ModelEngine[] {
    return [...this.#retired, ...[...this.#engines.values()].map(({ engine }) => engine)];
  }

  #file(model: string): ModelFile | undefined {
    return this.#components.models.list().find((file) => file.id === model);
  }

  #entry(file: ModelFile): CatalogEntry {
    const engine = this.#engines.get(file.id)?.engine;
    const { contextTokens, parallel } = this.#options;
    return {
      id: file.id,
      digest: file.digest,
      quantization: file.quantization,
      contextLength: engine?.contextTokens ?? contextTokens ?? Math.min(file.trainedContext, DEFAULT_CONTEXT_TOKENS),
      sizeBytes: file.sizeBytes,
      state: engine?.state ?? 'on-disk',
      slots: parallel,
      tokensPerSecond: engine?.tokensPerSecond ?? null,
    };
  }

  /** A file that is gone gives its engine up; one that was replaced is loaded anew. */
  #filesChanged(): void {
    for (const [model, { engine, file }] of this.#engines) {
      const now = this.#file(model);
      if (now?.path === file.path && now.sizeBytes === file.sizeBytes) continue;
      this.#engines.delete(model);
      this.#retired.add(engine);
      void engine.retire().then(() => this.#retired.delete(engine));
    }
    this.#changed();
  }

  #changed(): void {
    for (const listener of this.#changeListeners) listener();
  }

  #tell(event: EngineEvent): void {
    for (const listener of this.#eventListeners) listener(event);
  }
}

function clientClosed(): MeshError {
  return new MeshError('client_closed', 'The request was cancelled.');
}
