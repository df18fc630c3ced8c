/**
 * An engine without a model, for what real ones do not do on demand: tokens as fast as the path carries them, or as slow
 * as told, and each verifiable from the request alone, so that a foreign, lost or repeated token shows.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Engine } from '../../node/backends/backend.ts';
import type { CatalogEntry } from '../../protocols/catalog/catalog.ts';
import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import { parseBody } from '../../protocols/inference/openai-body.ts';

export interface ScriptedEngineOptions {
  readonly fingerprint: string;
  /** Model ids that it claims. */
  readonly models: readonly string[];
  /** Pause before each token, milliseconds; 0: one token a turn of the event loop. */
  readonly tokenDelayMs: number;
}

/** Token `index` of an answer: seven characters. */
export const scriptedWord = (seed: number, index: number): string =>
  `${((seed + index * 2_654_435_761) >>> 0).toString(36).padStart(6, '0').slice(-6)} `;

export class ScriptedEngine implements Engine {
  readonly kind = 'engine';
  readonly build = 'scripted';
  readonly id: string;
  readonly #options: ScriptedEngineOptions;
  #inFlight = 0;

  constructor(options: ScriptedEngineOptions) {
    this.id = options.fingerprint;
    this.#options = options;
  }

  start(): void {}
  stop(): void {}

  catalog(): CatalogEntry[] {
    return this.#options.models.map((id) => ({
      id,
      digest: null,
      quantization: null,
      contextLength: 1_000_000,
      sizeBytes: 1,
      state: 'resident',
      slots: 256,
      tokensPerSecond: null,
    }));
  }

  onCatalogChange(): () => void {
    return () => {};
  }

  onEvent(): () => void {
    return () => {};
  }

  load(): { inFlight: number; queued: number; engineAgeMs: number } {
    return { inFlight: this.#inFlight, queued: 0, engineAgeMs: 0 };
  }

  async *infer(request: InferenceRequest, { signal }: { signal: AbortSignal }): AsyncGenerator<InferenceEvent> {
    const body = parseBody(request.kind, request.body);
    const count = body.max_tokens ?? 16;
    const seed = body.seed ?? request.seed;
    const completion = { completionTokens: count, promptTokens: 1, cachedTokens: 0 };
    this.#inFlight += 1;
    try {
      yield { type: 'accepted', node: this.id, promptTokens: 1, promptDigest: '0'.repeat(64), artifact: null };
      for (let index = 0; index < count; index++) {
        if (this.#options.tokenDelayMs > 0) await sleep(this.#options.tokenDelayMs, undefined, { signal });
        else await new Promise((resolve) => setImmediate(resolve));
        signal.throwIfAborted();
        yield { type: 'chunk', choice: 0, index, tokens: [index], text: scriptedWord(seed, index) };
      }
      yield { type: 'end', finishReasons: ['length'], usage: completion, timings: { promptMs: 0, predictedMs: 0 } };
    } finally {
      this.#inFlight -= 1;
    }
  }
}
