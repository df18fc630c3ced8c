/**
 * The parts of node-llama-cpp that it does not export and that nothing exported stands in for. Its version is pinned to
 * the digit in package.json, and the engine tests go through everything here.
 *
 * Why: every exported way to evaluate makes a sampler of its own, at each call, with room for the whole vocabulary
 * (12 bytes a token), which its disposal does not give back: only a garbage collection does, and V8 knows nothing of that
 * memory. Answers of a few hundred tokens left the child hundreds of megabytes larger. Besides, `controlledEvaluate`
 * takes no grammar, and gives logits after temperature and truncation; `evaluate` takes a grammar and gives no logits; a
 * fresh grammar state cannot be told of tokens that stand already; `TokenBias` ignores tokens that end an answer; text
 * is all that a token can be asked for, not its bytes.
 */
import type {
  EvaluationPriority,
  LlamaContextSequence,
  LlamaGrammarEvaluationState,
  LlamaModel,
  SequenceEvaluateOptions,
  Token,
  TokenBias,
} from 'node-llama-cpp';

/** Logits of one position as the model gave them. */
export interface RawLogits {
  /** The wanted token's and the top ones'. */
  readonly logits: ReadonlyMap<number, number>;
  readonly highest: number;
  /** Sum of e^(logit - highest) over the vocabulary. */
  readonly weight: number;
}

export interface StepSample {
  readonly token: number;
  readonly raw: RawLogits | null;
}

/** What is not in it is off. */
interface SamplerConfig {
  readonly seed: number;
}

interface NativeSampler {
  applyConfig(config: SamplerConfig): void;
}

type LogitFilter = readonly [tokens: readonly number[], max: boolean, min: boolean, selected: boolean, top: number];
type SampledLogits = [token: number, unknown, unknown, logits: number[] | undefined, weight: number | undefined];

interface SequenceInternals {
  readonly _context: {
    readonly _ctx: {
      sampleToken(index: number, sampler: NativeSampler): Promise<number>;
      sampleToken(
        index: number,
        sampler: NativeSampler,
        probabilities: false,
        confidence: false,
        logits: LogitFilter,
        weight: true,
      ): Promise<SampledLogits>;
    };
  };
  readonly _takeIntervalCheckpointIfNeededAfterBatch: unknown;
  _resolveSamplerConfig(options: SequenceEvaluateOptions): SamplerConfig;
  /** `index` is the position's in the batch, `at` its token's in `tokens`. */
  _decodeTokens<T>(
    tokens: readonly Token[],
    logits: readonly boolean[],
    priority: number,
    meter: unknown,
    contextShift: object,
    onLogits: (index: number, at: number) => Promise<T>,
    afterBatch: unknown,
  ): Promise<(T | undefined)[]>;
}

interface ModelInternals {
  readonly _model: { getTokenString(token: number): string };
  readonly _llama: {
    readonly _bindings: {
      readonly AddonSampler: {
        new (model: unknown): NativeSampler;
        acceptGrammarEvaluationStateToken(state: unknown, token: number): void;
      };
    };
  };
}

/** Contexts never shift here: lengths are checked before. */
const NO_SHIFT = { size: 1, strategy: 'eraseBeginning' };

/** Evaluates on one sequence, one call after the other, with a sampler that serves as long as this does. */
export class Evaluation {
  readonly #sequence: LlamaContextSequence;
  readonly #inside: SequenceInternals;
  readonly #priority: EvaluationPriority;
  #sampler: NativeSampler | null = null;
  #lastSeed: number | null = null;
  /** Positions of one batch are told of at the same time. */
  #sampling: Promise<unknown> = Promise.resolve();

  constructor(sequence: LlamaContextSequence, priority: EvaluationPriority) {
    this.#sequence = sequence;
    this.#inside = sequence as unknown as SequenceInternals;
    this.#priority = priority;
  }

  /** Evaluates `tokens` without an answer. */
  async prefill(tokens: readonly Token[]): Promise<void> {
    await this.#decode(tokens, () => false, unwanted);
  }

  /**
   * Evaluates `tokens` and samples what follows, with a grammar where `options` has one. `top`: how many of the most
   * probable tokens' raw logits are wanted beside the sampled one's; null for no logits.
   */
  async next(tokens: readonly Token[], options: SequenceEvaluateOptions, top: number | null): Promise<StepSample> {
    const last = tokens.length - 1;
    const samples = await this.#decode(
      tokens,
      (at) => at === last,
      async (index) => {
        const config = this.#inside._resolveSamplerConfig(options);
        const token = await this.#sample(config, (sampler) => this.#native.sampleToken(index, sampler));
        if (token === -1) throw new Error('llama.cpp sampled no token');
        return { token, raw: top === null ? null : await this.#rawLogits(index, token, top) };
      },
    );
    const sample = samples[last];
    if (sample === undefined) throw new Error('llama.cpp sampled no token');
    return sample;
  }

  /** Evaluates `tokens`; each one's logits of what followed it and of the `top` most probable. */
  async score(tokens: readonly Token[], followers: readonly number[], top: number): Promise<RawLogits[]> {
    const all = await this.#decode(
      tokens,
      () => true,
      (index, at) => this.#rawLogits(index, followers[at] ?? 0, top),
    );
    return all.map((raw) => raw ?? { logits: new Map(), highest: 0, weight: 0 });
  }

  get #native(): SequenceInternals['_context']['_ctx'] {
    return this.#inside._context._ctx;
  }

  #decode<T>(
    tokens: readonly Token[],
    isWanted: (at: number) => boolean,
    onLogits: (index: number, at: number) => Promise<T>,
  ): Promise<(T | undefined)[]> {
    return this.#inside._decodeTokens(
      tokens,
      tokens.map((_, at) => isWanted(at)),
      this.#priority,
      this.#sequence.tokenMeter,
      NO_SHIFT,
      onLogits,
      this.#inside._takeIntervalCheckpointIfNeededAfterBatch,
    );
  }

  /** As the model gave them: greedy sampling changes none, and its own choice is the highest of all. */
  async #rawLogits(index: number, token: number, top: number): Promise<RawLogits> {
    const greedy = this.#inside._resolveSamplerConfig({ temperature: 0 });
    const [highest, , , flat, weight] = await this.#sample(greedy, (sampler) =>
      this.#native.sampleToken(index, sampler, false, false, [[token], false, false, true, top], true),
    );
    return rawLogits(highest, flat ?? [], weight ?? 0);
  }

  #sample<T>(config: SamplerConfig, sample: (sampler: NativeSampler) => Promise<T>): Promise<T> {
    const sampled = this.#sampling.then(() => sample(this.#configured(config)));
    this.#sampling = sampled.catch(() => {});
    return sampled;
  }

  #configured(config: SamplerConfig): NativeSampler {
    const { _llama, _model } = inner(this.#sequence.model);
    const sampler = this.#sampler ?? new _llama._bindings.AddonSampler(_model);
    this.#sampler = sampler;
    // Its random numbers go on while the seed is the same; a position's are to begin with its seed.
    if (config.seed === this.#lastSeed) sampler.applyConfig({ seed: config.seed ^ 1 });
    sampler.applyConfig(config);
    this.#lastSeed = config.seed;
    return sampler;
  }
}

/** Never called. */
const unwanted = (): Promise<void> => Promise.resolve();

/** Tells a grammar's state of a token that stands already. @throws when the grammar does not allow it. */
export function acceptToken(model: LlamaModel, state: LlamaGrammarEvaluationState, token: number): void {
  const { _state } = state as unknown as { readonly _state: unknown };
  inner(model)._llama._bindings.AddonSampler.acceptGrammarEvaluationStateToken(_state, token);
}

/** Adds to logits, those of tokens that end an answer too. */
export function setBias(bias: TokenBias, token: number, logit: number): void {
  (bias as unknown as { readonly _biases: Map<number, number> })._biases.set(token, logit);
}

/** The token as the vocabulary spells it: in the vocabulary's own alphabet. */
export function spelling(model: LlamaModel, token: number): string {
  return inner(model)._model.getTokenString(token);
}

function inner(model: LlamaModel): ModelInternals {
  return model as unknown as ModelInternals;
}

function rawLogits(highestToken: number, flat: readonly number[], weight: number): RawLogits {
  const logits = new Map<number, number>();
  for (let at = 0; at + 1 < flat.length; at += 2) logits.set(flat[at] ?? 0, flat[at + 1] ?? 0);
  return { logits, highest: logits.get(highestToken) ?? 0, weight };
}
