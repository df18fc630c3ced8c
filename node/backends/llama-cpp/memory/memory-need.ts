/** What a model takes once it is loaded, computed from what its file says, before any native code. Pure. */

import type { ModelShape } from '../../../storage/gguf-shape.ts';
import type { ModelFile } from '../../../storage/model-file.ts';
import type { MemoryNeed } from '../../backend.ts';

/** One context for each of `parallel` sequences. */
export interface ContextShape {
  readonly contextTokens: number;
  readonly parallel: number;
}

/** A child with the inference library and no model: measured, rounded up. */
const PROCESS_BYTES = 120 * 2 ** 20;
/** Keys, values and attention masks are F16; intermediate results and recurrent states F32. */
const F16_BYTES = 2;
const F32_BYTES = 4;
/** llama.cpp decodes at most this many tokens of a batch together. */
const UNIT_TOKENS = 512;
/** It allots cells in these. */
const CELL_STEP = 256;
/** Vectors of the embedding's length that are alive at once, at the widest place of attention. */
const ATTENTION_VECTORS = 12;

/** A file that tells nothing of its shape counts with its size alone. */
export function memoryNeed(file: Pick<ModelFile, 'sizeBytes' | 'shape'>, context: ContextShape): MemoryNeed {
  const { shape, sizeBytes: weightsBytes } = file;
  const known = shape !== undefined && shape.layers > 0;
  const contextBytes = known ? contextNeed(shape, context) : 0;
  const computeBytes = known ? computeNeed(shape, context) : 0;
  const totalBytes = weightsBytes + contextBytes + computeBytes + PROCESS_BYTES;
  return { weightsBytes, contextBytes, computeBytes, processBytes: PROCESS_BYTES, totalBytes };
}

function contextNeed(shape: ModelShape, { contextTokens, parallel }: ContextShape): number {
  const cells = padded(contextTokens);
  const windowCells = shape.slidingWindow === 0 ? cells : Math.min(cells, padded(shape.slidingWindow + UNIT_TOKENS));
  let bytes = 0;
  for (const [layer, kvHeads] of shape.kvHeads.entries()) {
    const layerCells = shape.slidingLayers[layer] === true ? windowCells : cells;
    const elements = shape.latentLength || kvHeads * (shape.keyLength + shape.valueLength);
    bytes += layerCells * elements * F16_BYTES;
    if (shape.recurrentLength > 0 && elements === 0) bytes += shape.recurrentLength * F32_BYTES;
  }
  return bytes * parallel;
}

/** The widest place of one decode: attention, the feed-forward part, or the scores of all tokens of the vocabulary. */
function computeNeed(shape: ModelShape, { contextTokens, parallel }: ContextShape): number {
  const { embeddingLength, vocabularySize, feedForwardLength, expertsUsed } = shape;
  const cells = padded(contextTokens);
  const unit = Math.min(UNIT_TOKENS, cells * parallel);
  const attention = F32_BYTES * ATTENTION_VECTORS * embeddingLength + F16_BYTES * cells;
  const feedForward = F32_BYTES * (2 * embeddingLength + 2 * feedForwardLength * Math.max(1, expertsUsed));
  const scores = F32_BYTES * (2 * embeddingLength + vocabularySize);
  return unit * Math.max(attention, feedForward, scores);
}

function padded(tokens: number): number {
  return Math.ceil(tokens / CELL_STEP) * CELL_STEP;
}
