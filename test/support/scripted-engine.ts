/**
 * An engine without a model, for what real ones do not do on demand: tokens as fast as the path carries them, or as slow
 * as told, each verifiable from the request alone, so that a foreign, lost or repeated token shows; and faults on order.
 */
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Engine } from '../../node/backends/backend.ts';
import { MeshError } from '../../node/common/errors.ts';
import type { CatalogEntry } from '../../protocols/catalog/catalog.ts';
import type { ChunkEvent, InferenceEvent, InferenceRequest, Resume } from '../../protocols/inference/events.ts';

/** What goes wrong, in each attempt once it has given `afterTokens` tokens of its own, all choices together. */
export interface ScriptedFault {
  /**
   * `engine_failed`: as a child that crashed. `hang`: no token more. `kill`: SIGKILL to this very process.
   * `other_prompt`: its template gives another prompt than elsewhere, at once.
   */
  readonly kind: 'engine_failed' | 'hang' | 'kill' | 'other_prompt';
  readonly afterTokens: number;
  /** Attempts that it still hits; counts down. */
  times: number;
}

export interface ScriptedEngineOptions {
  readonly fingerprint: string;
  /** Model ids that it claims. */
  readonly models: readonly string[];
  /** Pause before each token, milliseconds; 0: one token a turn of the event loop. */
  readonly tokenDelayMs: number;
  /** Tokens by which the text comes late, as in models whose tokens end inside characters. Default 0. */
  readonly textLag?: number;
  /** Default: one of its own for each model id. null: not computed yet. */
  readonly digest?: string | null;
  /** Default `scripted`. */
  readonly build?: string;
}

/** Token `index` of an answer, as text: seven characters. */
export const scriptedWord = (seed: number, index: number): string =>
  `${((seed + index * 2_654_435_761) >>> 0).toString(36).padStart(6, '0').slice(-6)} `;

/** Its id. */
export const scriptedToken = (seed: number, index: number): number => (((seed + index * 40_503) >>> 0) % 32_000) + 3;

/** The seed behind a choice of an answer: its own for the first. */
export const scriptedSeed = (seed: number, choice: number): number => (seed + choice * 7919) >>> 0;

/** The whole text of one choice. */
export const scriptedAnswer = (seed: number, count: number, choice = 0): string =>
  Array.from({ length: count }, (_, index) => scriptedWord(scriptedSeed(seed, choice), index)).join('');

/** The artifact digest of a model id. */
export const scriptedArtifact = (model: string): string => sha256(`artifact of ${model}`);

/** The prompt digest of a request. */
export const scriptedPrompt = ({ model, body }: Pick<InferenceRequest, 'model' | 'body'>): string =>
  createHash('sha256').update(model).update(body).digest('hex');

export class ScriptedEngine implements Engine {
  readonly kind = 'engine';
  readonly build: string;
  readonly id: string;
  /** May be changed at any time; counts for attempts that begin then. */
  fault: ScriptedFault | null = null;
  /** May be changed at any time. */
  tokenDelayMs: number;
  readonly #options: ScriptedEngineOptions;
  #inFlight = 0;

  constructor(options: ScriptedEngineOptions) {
    this.id = options.fingerprint;
    this.build = options.build ?? 'scripted';
    this.tokenDelayMs = options.tokenDelayMs;
    this.#options = options;
  }

  start(): void {}
  stop(): void {}

  catalog(): CatalogEntry[] {
    return this.#options.models.map((id) => ({
      id,
      digest: this.#artifact(id),
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
    const { count, choices, seed } = askedFor(request);
    const fault = this.#takeFault();
    const { resume } = request;
    const promptDigest = fault?.kind === 'other_prompt' ? sha256('another prompt') : scriptedPrompt(request);
    this.#inFlight += 1;
    try {
      const artifact = this.#artifact(request.model);
      if (resume !== undefined) refuseForeign(resume, { promptDigest, artifact, seed, choices });
      yield { type: 'accepted', node: this.id, promptTokens: 1, promptDigest, artifact };
      let given = 0;
      for (const chunk of this.#chunks(seed, { count, choices, resume })) {
        if (fault !== null && given >= fault.afterTokens) await happen(fault, signal);
        if (this.tokenDelayMs > 0) await sleep(this.tokenDelayMs, undefined, { signal });
        else await new Promise((resolve) => setImmediate(resolve));
        signal.throwIfAborted();
        yield chunk;
        given += chunk.tokens.length;
      }
      if (fault !== null) await happen(fault, signal);
      yield {
        type: 'end',
        finishReasons: Array.from({ length: choices }, () => 'length' as const),
        usage: { completionTokens: count * choices, promptTokens: 1, cachedTokens: 0 },
        timings: { promptMs: 0, predictedMs: 0 },
      };
    } catch (thrown) {
      if (thrown instanceof MeshError) throw thrown;
      throw signal.reason instanceof MeshError ? signal.reason : new MeshError('client_closed', 'cancelled');
    } finally {
      this.#inFlight -= 1;
    }
  }

  #artifact(model: string): string | null {
    return this.#options.digest === undefined ? scriptedArtifact(model) : this.#options.digest;
  }

  #takeFault(): ScriptedFault | null {
    const { fault } = this;
    if (fault === null || fault.times <= 0) return null;
    fault.times -= 1;
    return fault;
  }

  /** One token at a time, of each choice in turn. */
  *#chunks(
    seed: number,
    { count, choices, resume }: { count: number; choices: number; resume: Resume | undefined },
  ): Generator<ChunkEvent> {
    const lag = this.#options.textLag ?? 0;
    for (let index = 0; index < count; index++) {
      for (let choice = 0; choice < choices; choice++) {
        if (index < (resume?.choices[choice]?.tokens.length ?? 0)) continue;
        const own = scriptedSeed(seed, choice);
        const isLast = index === count - 1;
        const words: string[] = [];
        for (let at = Math.max(0, index - lag); at <= (isLast ? index : index - lag); at++) {
          words.push(scriptedWord(own, at));
        }
        const tokens = [scriptedToken(own, index)];
        const chunk = { type: 'chunk', choice, index, tokens, text: words.join('') } as const;
        yield isLast ? { ...chunk, finish: 'length' } : chunk;
      }
    }
  }
}

/** `max_tokens` (default 16), `n` and `seed` of a body. */
function askedFor({ body, seed }: InferenceRequest): { count: number; choices: number; seed: number } {
  const said = JSON.parse(Buffer.from(body).toString()) as Record<string, unknown>;
  const figure = (name: string): number | undefined => {
    const value = said[name];
    return typeof value === 'number' ? value : undefined;
  };
  return {
    count: figure('max_completion_tokens') ?? figure('max_tokens') ?? 16,
    choices: figure('n') ?? 1,
    seed: figure('seed') ?? seed,
  };
}

interface Own {
  readonly promptDigest: string;
  readonly artifact: string | null;
  readonly seed: number;
  readonly choices: number;
}

/** Every token of what is to be resumed must be one that this engine would have given. */
function refuseForeign(resume: Resume, { promptDigest, artifact, seed, choices }: Own): void {
  if (resume.artifact !== artifact) throw new MeshError('cannot_resume', 'another model file');
  if (resume.promptDigest !== promptDigest) throw new MeshError('cannot_resume', 'another prompt');
  if (resume.choices.length !== choices) throw new MeshError('internal_error', 'another number of choices');
  for (const [choice, { tokens }] of resume.choices.entries()) {
    const own = scriptedSeed(seed, choice);
    if (tokens.every((token, index) => token === scriptedToken(own, index))) continue;
    throw new MeshError('internal_error', `choice ${choice} holds tokens that are not its own`);
  }
}

async function happen({ kind }: ScriptedFault, signal: AbortSignal): Promise<void> {
  if (kind === 'other_prompt') return;
  if (kind === 'kill') process.kill(process.pid, 'SIGKILL');
  if (kind === 'engine_failed') throw new MeshError('engine_failed', 'The engine ended unexpectedly (scripted)');
  await new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');
