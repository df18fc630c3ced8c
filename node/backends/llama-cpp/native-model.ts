/** The only file that calls node-llama-cpp: a loaded model, its tokenizer and its sequences. Lives in the engine child. */
import {
  type ControlledEvaluateInputItem,
  GgufInsights,
  getLlama,
  InsufficientMemoryError,
  type Llama,
  type LlamaContext,
  LlamaLogLevel,
  type LlamaModel,
  readGgufFileInfo,
  type Token,
} from 'node-llama-cpp';
import { MeshError, toMeshError } from '../../common/errors.ts';
import { ChatTemplate } from './chat-template.ts';
import { fittingContext, type Memory, weightsFit } from './context-fit.ts';
import type { Sampling } from './generation-request.ts';
import type { GpuChoice, LoadOrder } from './ipc.ts';
import type { Detokenize } from './output-pipeline.ts';
import type { Tokenizer } from './prompt-tokens.ts';
import { positionSeed } from './sampling.ts';

/** Tokens that one decode takes at most. */
export const BATCH_TOKENS = 512;

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
  /** The same, and the token that follows; `generated` are the answer's tokens so far. */
  next(tokens: readonly number[], sampling: Sampling, generated: readonly number[]): Promise<number>;
}

export interface NativeModel {
  readonly contextTokens: number;
  readonly tokenizer: Tokenizer;
  readonly template: ChatTemplate;
  readonly detokenize: Detokenize;
  /** Does this token end an answer? */
  endsAnswer(token: number): boolean;
  readonly sequences: readonly NativeSequence[];
  readonly usesGpu: boolean;
}

/**
 * Loads the model and creates its one context.
 *
 * @throws MeshError `out_of_memory` when it cannot fit, `engine_failed` with llama.cpp's reason otherwise.
 */
export async function loadNativeModel(order: LoadOrder, onProgress: (fraction: number) => void): Promise<NativeModel> {
  try {
    const llama = await getLlama({
      gpu: gpuOption(order.gpu),
      build: 'never',
      skipDownload: true,
      progressLogs: false,
      logLevel: LlamaLogLevel.warn,
    });
    // One core stays with the node itself; the default of four threads is slower than one on two cores.
    const threads = Math.max(1, llama.cpuMathCores - 1);
    llama.maxThreads = threads;
    await refuseTooLarge(order.modelPath, llama);
    const model = await llama.loadModel({
      modelPath: order.modelPath,
      onLoadProgress: onProgress,
      defaultContextFlashAttention: 'auto',
    });
    return await withContext(order, llama, model, threads);
  } catch (thrown) {
    if (thrown instanceof InsufficientMemoryError) {
      throw new MeshError('out_of_memory', `The model does not fit: ${thrown.message}.`, { cause: thrown });
    }
    throw toMeshError(thrown, 'engine_failed');
  }
}

/** On a GPU machine node-llama-cpp itself decides how much of the model goes where. */
async function refuseTooLarge(modelPath: string, llama: Llama): Promise<void> {
  const insights = await GgufInsights.from(await readGgufFileInfo(modelPath), llama);
  if (llama.gpu === false) weightsFit({ ramBytes: insights.modelSize, vramBytes: 0 }, await freeMemory(llama));
}

async function withContext(order: LoadOrder, llama: Llama, model: LlamaModel, threads: number): Promise<NativeModel> {
  const { parallel } = order;
  const shape = { sequences: parallel, batchSize: BATCH_TOKENS, flashAttention: 'auto' } as const;
  const contextTokens = await fittingContext({
    requestedTokens: order.contextTokens,
    trainedTokens: model.trainContextSize,
    parallel,
    free: await freeMemory(llama),
    need: async (contextSize) => {
      const estimate = { ...shape, contextSize, modelGpuLayers: model.gpuLayers };
      return memory(await model.fileInsights.estimateContextResourceRequirementsV2(estimate));
    },
  });
  const context = await model.createContext({
    ...shape,
    contextSize: contextTokens,
    threads,
    // The scheduler has decided what goes into this decode, and in which order: all of it, as it came.
    batching: {
      itemPrioritizationStrategy: ({ items }) => items.map((item) => ({ item, processAmount: item.tokens.length })),
    },
    failedCreationRemedy: false,
    ignoreMemorySafetyChecks: true,
  });
  // Created once, in ascending order and never disposed: llama.cpp batches only consecutive ascending ids together.
  const sequences = Array.from({ length: parallel }, (_, id) => nativeSequence(id, context));
  return {
    contextTokens,
    tokenizer: tokenizerOf(model),
    template: templateOf(model),
    detokenize: (tokens, previous) => model.detokenize(asTokens(tokens), false, asTokens(previous)),
    endsAnswer: (token) => model.isEogToken(token as Token),
    sequences,
    usesGpu: llama.gpu !== false && model.gpuLayers > 0,
  };
}

function nativeSequence(id: number, context: LlamaContext): NativeSequence {
  let sequence = context.getSequence();
  let broken = false;
  const evaluate = async (input: ControlledEvaluateInputItem[]) => {
    try {
      return await sequence.controlledEvaluate(input);
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
      }
      // Also of an erasure that fails nobody knows what it left.
      broken = true;
      await sequence.adaptStateToTokens(sequence.contextTokens.slice(0, count), false);
      broken = false;
      return sequence.nextTokenIndex;
    },
    async prefill(tokens) {
      await evaluate(asTokens(tokens));
    },
    async next(tokens, sampling, generated) {
      const last = asTokens(tokens).at(-1);
      if (last === undefined) throw new MeshError('internal_error', 'A step needs a token.');
      const options = samplerOptions(sampling, generated);
      const generateNext = { token: true, options } as const;
      const results = await evaluate([...asTokens(tokens.slice(0, -1)), [last, { generateNext }]]);
      const token = results[tokens.length - 1]?.next.token;
      if (token === undefined || token === null) throw new MeshError('engine_failed', 'llama.cpp sampled no token.');
      return token;
    },
  };
}

function samplerOptions(sampling: Sampling, generated: readonly number[]) {
  const { temperature, topP, topK, minP, repeatPenalty, frequencyPenalty, presencePenalty } = sampling;
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
  };
}

function tokenizerOf(model: LlamaModel): Tokenizer {
  const { tokens } = model;
  return {
    tokenize: (text, special, continues) => model.tokenize(text, special, continues ? 'trimLeadingSpace' : undefined),
    leadingToken: tokens.shouldPrependBosToken ? tokens.bos : null,
  };
}

function templateOf(model: LlamaModel): ChatTemplate {
  const controlTokens: string[] = [];
  for (const token of model.iterateAllTokens()) {
    const { control, unknown } = model.getTokenAttributes(token);
    if (control || unknown) controlTokens.push(model.detokenize([token], true));
  }
  return new ChatTemplate({
    template: model.fileInfo.metadata.tokenizer?.chat_template ?? null,
    bosToken: model.tokens.bosString ?? '',
    eosToken: model.tokens.eosString ?? '',
    controlTokens,
  });
}

function gpuOption(choice: GpuChoice): 'auto' | 'cuda' | 'vulkan' | 'metal' | false {
  return choice === 'off' ? false : choice;
}

async function freeMemory(llama: Llama): Promise<Memory> {
  const { free } = await llama.getVramState();
  return { ramBytes: process.availableMemory(), vramBytes: free };
}

function memory({ cpuRam, gpuVram }: { cpuRam: number; gpuVram: number }): Memory {
  return { ramBytes: cpuRam, vramBytes: gpuVram };
}

/** node-llama-cpp brands its token ids; they are plain numbers to everybody else. */
function asTokens(tokens: readonly number[]): Token[] {
  return tokens as number[] as Token[];
}
