/** llama.cpp on this machine as a backend: one supervised child process for each model in use. */

import type { CatalogEntry, NodeLoad } from '../../../protocols/catalog/catalog.ts';
import type { InferenceEvent, InferenceRequest } from '../../../protocols/inference/events.ts';
import { abortable, type Clock } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';
import type { Logger } from '../../common/logger.ts';
import type { ModelFile, ModelFileSource } from '../../storage/model-file.ts';
import type { Engine, EngineEvent, ResidencyControl } from '../backend.ts';
import { answerChoices } from './choices.ts';
import { engineBuild } from './engine-build.ts';
import { DEFAULT_CONTEXT_TOKENS, type GpuChoice } from './ipc.ts';
import { mayUseGpu } from './memory/gpu-hint.ts';
import { MemoryRoom } from './memory/memory-room.ts';
import { ModelEngine } from './model-engine.ts';
import { ModelResidents } from './model-residents.ts';
import { generationRequest } from './request/generation-request.ts';
import { answerTask } from './tasks/engine-task-answer.ts';

export interface EngineComponents {
  /** This node's own. */
  readonly fingerprint: string;
  readonly models: ModelFileSource;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Bytes that programs could get now. Default: what the operating system says. */
  readonly freeBytes?: () => number;
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
  /** A model that nobody used for this long is unloaded; null: none is; 0: at once. Default 5 minutes. */
  readonly keepAliveMs?: number | null;
  /** For all models together; null, the default, for what is free while none is loaded, less a reserve. */
  readonly memoryBytes?: number | null;
  /** How long a load waits for models that are in use; default 30 s. */
  readonly roomWaitMs?: number;
  /** Loaded at start, never evicted, never unloaded for idleness. Ids that no file has are ignored until one has. */
  readonly pinned?: readonly string[];
}

export const DEFAULT_KEEP_ALIVE_MS = 5 * 60_000;

interface Known {
  readonly engine: ModelEngine;
  readonly file: ModelFile;
}

export class LlamaEngine implements Engine {
  readonly kind = 'engine';
  readonly id: string;
  readonly residency: ResidencyControl;
  readonly #components: EngineComponents;
  readonly #options: EngineOptions;
  readonly #engines = new Map<string, Known>();
  readonly #room: MemoryRoom;
  readonly #pinned: Set<string>;
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
    const { clock, freeBytes, models } = components;
    const { memoryBytes = null, roomWaitMs, pinned = [] } = options;
    this.#room = new MemoryRoom(
      { clock, ...(freeBytes !== undefined && { freeBytes }) },
      { budgetBytes: memoryBytes, ...(roomWaitMs !== undefined && { waitMs: roomWaitMs }) },
    );
    this.#pinned = new Set(pinned);
    this.residency = new ModelResidents({
      room: this.#room,
      pinned: this.#pinned,
      ids: () => models.list().map((file) => file.id),
      engine: (model) => this.#engine(model),
    });
  }

  /** llama.cpp's release. Reads a small file; loads no native code. */
  get build(): string {
    return engineBuild();
  }

  /** Forks children for pinned models only: others start with the first request for them. */
  start(): void {
    this.#unsubscribe = this.#components.models.onChange(() => this.#filesChanged());
    this.#loadPinned();
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
    for (const [model, { engine }] of this.#engines) {
      const pid = engine.life.child?.pid;
      if (pid !== undefined) pids.set(model, pid);
    }
    return pids;
  }

  /** See `Backend.infer`. A model that is not here is `model_not_loaded`. */
  async *infer(request: InferenceRequest, { signal }: { signal: AbortSignal }): AsyncGenerator<InferenceEvent> {
    if (signal.aborted) throw clientClosed();
    const engine = this.#engine(request.model);
    const facts = { fingerprint: this.id, artifact: this.#file(request.model)?.digest ?? null };
    const release = engine.hold();
    try {
      const { kind } = request;
      if (kind === 'chat' || kind === 'completion') {
        // A batch request takes one slot, however many choices it asks for.
        const atOnce = request.priority === 'batch' ? 1 : this.#options.parallel;
        yield* answerChoices(engine, generationRequest({ ...request, kind }), { ...facts, atOnce }, { signal });
      } else {
        yield* answerTask(engine, request, facts, { signal });
      }
    } finally {
      release();
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
    const { clock, logger } = this.#components;
    const { parallel, gpu, contextTokens, keepAliveMs = DEFAULT_KEEP_ALIVE_MS } = this.#options;
    const engine: ModelEngine = new ModelEngine(
      {
        clock,
        logger,
        room: this.#room,
        // An engine outlives its file: it finishes what it has.
        file: () => this.#file(model) ?? file,
        isPinned: () => this.#pinned.has(model) && this.#engines.get(model)?.engine === engine,
        onEvent: (event) => this.#tell(event),
        onChange: () => this.#changed(),
      },
      {
        gpu,
        contextTokens,
        parallel,
        keepAliveMs,
        mayUseGpu: mayUseGpu(gpu),
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
      contextLength:
        engine?.life.contextTokens ?? contextTokens ?? Math.min(file.trainedContext, DEFAULT_CONTEXT_TOKENS),
      sizeBytes: file.sizeBytes,
      state: engine?.life.state ?? 'on-disk',
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
    this.#loadPinned();
    this.#changed();
  }

  #loadPinned(): void {
    for (const model of this.#pinned) {
      // One that failed is brought back by its own engine, in time.
      if (!this.#engines.has(model) && this.#file(model) !== undefined) this.#engine(model).life.want();
    }
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
