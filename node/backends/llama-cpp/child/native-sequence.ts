/** One of a loaded model's parallel sequences, stepped by node-llama-cpp. In the engine child. */
import {
  type BatchingOptions,
  type EvaluationPriority,
  type LlamaContext,
  type LlamaGrammarEvaluationState,
  type LlamaModel,
  type SequenceEvaluateOptions,
  type Token,
  TokenBias,
} from 'node-llama-cpp';
import type { Logprob, TokenLogprob } from '../../../../protocols/inference/events.ts';
import { MeshError } from '../../../common/errors.ts';
import type { Sampling } from '../request/generation-request.ts';
import { positionSeed } from '../request/sampling.ts';
import { acceptToken, Evaluation, type RawLogits, setBias } from './native-internals.ts';
import type { Vocabulary } from './native-vocabulary.ts';

/** What the answer may still become. One for each answer: it follows the tokens. */
export interface NativeGrammar {
  readonly state: LlamaGrammarEvaluationState;
  /** Follows a token that stands already. @throws MeshError `cannot_resume` when the grammar does not allow it. */
  accept(token: number): void;
}

/** How the next token is found. */
export interface StepQuestion {
  readonly sampling: Sampling;
  /** The answer's tokens so far. */
  readonly generated: readonly number[];
  /** What the token must fit; it then follows it. */
  readonly grammar: NativeGrammar | null;
  /** How many of the most probable tokens to report, null for no log probability at all. */
  readonly logprobs: number | null;
}

export interface Sampled {
  readonly token: number;
  /** When it was asked for. */
  readonly logprob: TokenLogprob | null;
}

/** One of the model's parallel sequences. Sequence ids are 0 to parallel-1. */
export interface NativeSequence {
  readonly id: number;
  /** The tokens whose state it holds, from the first on; none after an evaluation that failed. */
  readonly tokens: readonly number[];
  /**
   * Forgets all but the first `count` tokens, and resolves with how many it still holds: fewer where the model's
   * state cannot be cut there. Waits for a decode that runs.
   */
  keep(count: number): Promise<number>;
  /** Evaluates `tokens` after what came before, without an answer. */
  prefill(tokens: readonly number[]): Promise<void>;
  /** The same, and how probable each of `followers` was, which come after the token of the same index. */
  score(tokens: readonly number[], followers: readonly number[], top: number): Promise<TokenLogprob[]>;
  /** Evaluates at least one token, and gives the one that follows. */
  next(tokens: readonly number[], question: StepQuestion): Promise<Sampled>;
}

/** What stands for the log of nothing, which JSON cannot say. */
const LEAST_LOGPROB = -9_999;

/**
 * Batches as they came, in ascending order of sequence ids, which alone llama.cpp decodes together. The scheduler steps in
 * that order; that it stays so does not hang on the turns which the library takes: the id goes as priority.
 */
export const BATCHING: BatchingOptions = {
  itemPrioritizationStrategy: ({ items }) =>
    items
      .toSorted((a, b) => a.evaluationPriority - b.evaluationPriority)
      .map((item) => ({ item, processAmount: item.tokens.length })),
};

/** The context's next sequence: they must be asked for in ascending order of ids. */
export function nativeSequence(id: number, context: LlamaContext, vocabulary: Vocabulary): NativeSequence {
  const priority = id as EvaluationPriority;
  let sequence = context.getSequence();
  let evaluation = new Evaluation(sequence, priority);
  let broken = false;
  const { model } = context;
  const guarded = async <T>(evaluated: Promise<T>): Promise<T> => {
    try {
      return await evaluated;
    } catch (thrown) {
      broken = true;
      throw thrown;
    }
  };
  return {
    id,
    get tokens() {
      return broken ? [] : sequence.contextTokens;
    },
    async keep(count) {
      if (broken) {
        // A decode that failed half-way may have left tokens that the sequence does not know of, and so cannot erase.
        // Disposing erases by id; the new sequence gets the same one, since all others are taken.
        await sequence.dispose();
        sequence = context.getSequence();
        evaluation = new Evaluation(sequence, priority);
      }
      // Also of an erasure that fails nobody knows what it left.
      broken = true;
      await sequence.adaptStateToTokens(sequence.contextTokens.slice(0, count), false);
      broken = false;
      return sequence.nextTokenIndex;
    },
    async prefill(tokens) {
      await guarded(evaluation.prefill(asTokens(tokens)));
    },
    async score(tokens, followers, top) {
      const scored = await guarded(evaluation.score(asTokens(tokens), followers, top));
      return scored.map((raw, index) =>
        logprobOf(followers[index] ?? 0, raw, { top, vocabulary, previous: tokens[index] ?? 0 }),
      );
    },
    async next(tokens, question) {
      const previous = tokens.at(-1);
      if (previous === undefined) throw new MeshError('internal_error', 'A step needs a token.');
      const { logprobs: top } = question;
      const { token, raw } = await guarded(evaluation.next(asTokens(tokens), samplerOptions(question, model), top));
      return { token, logprob: raw === null ? null : logprobOf(token, raw, { top: top ?? 0, vocabulary, previous }) };
    },
  };
}

/** A fresh state of a compiled grammar. */
export function nativeGrammar(model: LlamaModel, state: LlamaGrammarEvaluationState): NativeGrammar {
  return {
    state,
    accept(token) {
      try {
        acceptToken(model, state, token);
      } catch (thrown) {
        throw new MeshError('cannot_resume', 'The answer so far does not fit its grammar here.', { cause: thrown });
      }
    },
  };
}

function samplerOptions({ sampling, generated, grammar }: StepQuestion, model: LlamaModel): SequenceEvaluateOptions {
  const { temperature, topP, topK, minP, repeatPenalty, frequencyPenalty, presencePenalty, logitBias } = sampling;
  const penalised = repeatPenalty !== 1 || frequencyPenalty !== 0 || presencePenalty !== 0;
  return {
    temperature,
    topP,
    topK,
    minP,
    seed: positionSeed(sampling.seed, generated.length),
    ...(penalised && {
      repeatPenalty: { penalty: repeatPenalty, frequencyPenalty, presencePenalty, punishTokens: asTokens(generated) },
    }),
    ...(grammar !== null && { grammarEvaluationState: grammar.state }),
    ...(logitBias.length > 0 && { tokenBias: tokenBias(logitBias, model) }),
  };
}

function tokenBias(logitBias: Sampling['logitBias'], model: LlamaModel): TokenBias {
  const bias = new TokenBias(model.tokenizer);
  for (const [token, logit] of logitBias) setBias(bias, token, logit);
  return bias;
}

interface LogprobContext {
  readonly top: number;
  readonly vocabulary: Vocabulary;
  readonly previous: number;
}

function logprobOf(token: number, raw: RawLogits, { top, vocabulary, previous }: LogprobContext): TokenLogprob {
  const scored = (id: number): Logprob => {
    const logprob = (raw.logits.get(id) ?? Number.NEGATIVE_INFINITY) - raw.highest - Math.log(raw.weight);
    return { ...vocabulary.piece(id, previous), logprob: Math.min(0, Math.max(LEAST_LOGPROB, logprob)) };
  };
  // Equal ones by id: llama.cpp's own order of them is not stable.
  const best = [...raw.logits].toSorted(([a, one], [b, other]) => other - one || a - b).slice(0, top);
  return { ...scored(token), top: best.map(([id]) => scored(id)) };
}

/** node-llama-cpp brands its token ids; they are plain numbers to everybody else. */
function asTokens(tokens: readonly number[]): Token[] {
  return tokens as number[] as Token[];
}
