/** Embeddings and ranking by node-llama-cpp: contexts of their own beside the one that generates. In the engine child. */
import { InsufficientMemoryError, type LlamaModel, type Token } from 'node-llama-cpp';
import { MeshError } from '../../../common/errors.ts';

/** Both contexts are made at their first use and kept. */
export interface NativeTasks {
  /**
   * @throws MeshError `invalid_request` when the model gives no embeddings; `out_of_memory`.
   */
  embedder(): Promise<Embedder>;
  /**
   * @throws MeshError `invalid_request` when the model is no rerank model; `out_of_memory`.
   */
  ranker(): Promise<Ranker>;
  /** Longest input, with what the model adds to it. */
  readonly contextTokens: number;
  /** Token ids are below it. */
  readonly vocabularyTokens: number;
  /** Text of tokens, that of control tokens too. */
  textOf(tokens: readonly number[]): string;
}

export interface Embedder {
  readonly dimensions: number;
  /** Tokens that will be evaluated: what the model wants at begin and end is added. At most the context's. */
  lengthOf(tokens: readonly number[]): number;
  /** The vector as the model gives it, not normalised. One input at a time: others wait. */
  embed(tokens: readonly number[]): Promise<readonly number[]>;
}

export interface Ranker {
  lengthOf(query: readonly number[], document: readonly number[]): number;
  /** 0 to 1. One document at a time: others wait. */
  rank(query: readonly number[], document: readonly number[]): Promise<number>;
}

export interface NativeTaskOptions {
  /** Of the context that generates: inputs may be as long, but not longer than the model was trained for. */
  readonly contextTokens: number;
  readonly threads: number;
}

const BATCH_TOKENS = 512;
/** `pooling_type` in the file. */
const POOLING = { none: 0, last: 3, rank: 4 } as const;

/** Creates nothing yet. */
export function nativeTasks(model: LlamaModel, options: NativeTaskOptions): NativeTasks {
  const { threads } = options;
  // Where positions are learned, llama.cpp aborts the process at the first one past the table.
  const contextTokens = Math.min(options.contextTokens, model.trainContextSize);
  // One more than the longest input: node-llama-cpp wants a cell to spare.
  const shape = { contextSize: contextTokens + 1, batchSize: batchTokens(model, contextTokens), threads };
  const embedder = onceMade(async () => {
    refuseEmbedding(model);
    return embedderOf(model, await fitting(() => model.createEmbeddingContext(shape)));
  });
  const ranker = onceMade(async () => {
    if (!model.fileInsights.supportsRanking) {
      throw refusal('This model is no rerank model: it has no ranking head. Choose one that was made for reranking.');
    }
    return rankerOf(await fitting(() => model.createRankingContext({ ...shape, batchSize: contextTokens + 1 })));
  });
  return {
    embedder,
    ranker,
    contextTokens,
    get vocabularyTokens() {
      return model.fileInfo.metadata.tokenizer?.ggml?.tokens.length ?? 0;
    },
    textOf: (tokens) => model.detokenize(asTokens(tokens), true),
  };
}

function embedderOf(model: LlamaModel, context: Awaited<ReturnType<LlamaModel['createEmbeddingContext']>>): Embedder {
  return {
    dimensions: model.embeddingVectorSize,
    lengthOf: (tokens) => context.calculateInputLength(asTokens(tokens)),
    embed: async (tokens) => (await context.getEmbeddingFor(asTokens(tokens))).vector,
  };
}

function rankerOf(context: Awaited<ReturnType<LlamaModel['createRankingContext']>>): Ranker {
  return {
    lengthOf: (query, document) => context.calculateInputLength(asTokens(query), asTokens(document)),
    rank: (query, document) => context.rank(asTokens(query), asTokens(document)),
  };
}

/** Does each token see only those before it, as in a model that generates? */
export function isCausal({ fileInfo, fileInsights }: LlamaModel): boolean {
  return fileInfo.architectureMetadata.attention?.causal !== false && !fileInsights.hasEncoder;
}

/** What is not causal, or pooled over all tokens, must be evaluated in one batch: llama.cpp aborts the process otherwise. */
function batchTokens(model: LlamaModel, contextTokens: number): number {
  const { pooling_type: pooling = POOLING.none } = model.fileInfo.architectureMetadata;
  const ofOneToken = pooling === POOLING.none || pooling === POOLING.last;
  return isCausal(model) && ofOneToken ? Math.min(BATCH_TOKENS, contextTokens + 1) : contextTokens + 1;
}

function refuseEmbedding(model: LlamaModel): void {
  if (model.fileInfo.architectureMetadata.pooling_type === POOLING.rank) {
    throw refusal('This is a rerank model: it gives scores, not embeddings. Choose another model, or call rerank.');
  }
  if (model.fileInsights.hasEncoder && model.fileInsights.hasDecoder) {
    throw refusal('This model has an encoder and a decoder; embeddings of such models are not served.');
  }
}

function refusal(message: string): MeshError {
  return new MeshError('invalid_request', message, { param: 'model' });
}

async function fitting<T>(create: () => Promise<T>): Promise<T> {
  try {
    return await create();
  } catch (thrown) {
    if (!(thrown instanceof InsufficientMemoryError)) throw thrown;
    throw new MeshError('out_of_memory', `There is no memory for it beside the model: ${thrown.message}.`, {
      cause: thrown,
    });
  }
}

/** A failed making is tried again at the next call. */
function onceMade<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | null = null;
  return () => {
    const making = made ?? make();
    made = making;
    making.catch(() => {
      if (made === making) made = null;
    });
    return making;
  };
}

function asTokens(tokens: readonly number[]): Token[] {
  return tokens as number[] as Token[];
}
