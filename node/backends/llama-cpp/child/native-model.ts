/** Loads a model with node-llama-cpp: its vocabulary, its sequences, its grammars. Lives in the engine child. */
import {
  GgufInsights,
  getLlama,
  InsufficientMemoryError,
  type Llama,
  LlamaGrammarEvaluationState,
  LlamaLogLevel,
  type LlamaModel,
  readGgufFileInfo,
} from 'node-llama-cpp';
import { MeshError, toMeshError } from '../../../common/errors.ts';
import type { GpuChoice, LoadOrder } from '../ipc.ts';
import { fittingContext, type Memory, weightsFit } from '../memory/context-fit.ts';
import { ChatTemplate } from '../prompt/chat-template.ts';
import { GrammarCache } from './grammar-cache.ts';
import { BATCHING, type NativeGrammar, type NativeSequence, nativeGrammar, nativeSequence } from './native-sequence.ts';
import { isCausal, type NativeTasks, nativeTasks } from './native-tasks.ts';
import { type Vocabulary, vocabularyOf } from './native-vocabulary.ts';

/** Tokens that one decode takes at most. */
export const BATCH_TOKENS = 512;

export interface NativeModel {
  readonly contextTokens: number;
  readonly vocabulary: Vocabulary;
  readonly template: ChatTemplate;
  readonly sequences: readonly NativeSequence[];
  readonly tasks: NativeTasks;
  readonly usesGpu: boolean;
  /** False for models that only embed or rank: they have no next token. */
  readonly generates: boolean;
  /**
   * A fresh state of the grammar.
   *
   * @param source GBNF.
   * @throws MeshError `invalid_request` when llama.cpp cannot read it.
   */
  grammar(source: string): Promise<NativeGrammar>;
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
    batching: BATCHING,
    failedCreationRemedy: false,
    ignoreMemorySafetyChecks: true,
  });
  const vocabulary = vocabularyOf(model);
  const grammars = new GrammarCache((grammar) => llama.createGrammar({ grammar }));
  return {
    contextTokens,
    vocabulary,
    template: templateOf(model, vocabulary),
    // Created once, in ascending order and never disposed: llama.cpp batches only consecutive ascending ids together.
    sequences: Array.from({ length: parallel }, (_, id) => nativeSequence(id, context, vocabulary)),
    tasks: nativeTasks(model, { contextTokens, threads }),
    usesGpu: llama.gpu !== false && model.gpuLayers > 0,
    generates: isCausal(model),
    grammar: async (source) => {
      const grammar = await grammars.get(source);
      return nativeGrammar(model, new LlamaGrammarEvaluationState({ model, grammar }));
    },
  };
}

function templateOf(model: LlamaModel, { controlTokens }: Vocabulary): ChatTemplate {
  return new ChatTemplate({
    template: model.fileInfo.metadata.tokenizer?.chat_template ?? null,
    bosToken: model.tokens.bosString ?? '',
    eosToken: model.tokens.eosString ?? '',
    controlTokens: [...controlTokens.keys()],
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
