/** With which context a model is loaded and what it then takes, decided before its child exists. Pure. */
import type { ModelFile } from '../../../storage/model-file.ts';
import type { MemoryNeed } from '../../backend.ts';
import { contextSizes } from './context-fit.ts';
import { memoryNeed } from './memory-need.ts';

export interface LoadWish {
  /** What the user asked for, null for as much as is sensible. */
  readonly contextTokens: number | null;
  readonly parallel: number;
  /** llama.cpp may put it on a GPU, whose memory is not known here. */
  readonly mayUseGpu: boolean;
}

export interface LoadPlan {
  /** What the child is told: null where it decides itself. */
  readonly contextTokens: number | null;
  readonly need: MemoryNeed;
  /** Counted against the budget. */
  readonly roomBytes: number;
}

/**
 * The largest sensible context that fits into `limitBytes`, or the smallest where none does: whether that may be loaded
 * is for others to say. Where a GPU may take a part, the child decides, and no more than `limitBytes` are counted.
 */
export function loadPlan(file: ModelFile, wish: LoadWish, limitBytes: number): LoadPlan {
  const { parallel, mayUseGpu } = wish;
  const isKnown = file.shape !== undefined && file.shape.layers > 0;
  const sizes = wish.contextTokens === null ? contextSizes(file.trainedContext) : [wish.contextTokens];
  const plans = sizes.map((contextTokens) => ({ contextTokens, need: memoryNeed(file, { contextTokens, parallel }) }));
  const [largest] = plans;
  const plan = plans.find(({ need }) => need.totalBytes <= limitBytes) ?? plans.at(-1) ?? largest;
  if (plan === undefined) throw new RangeError('no context size to plan with');
  const { need } = plan;
  if (mayUseGpu) {
    return { contextTokens: wish.contextTokens, need, roomBytes: Math.min(need.totalBytes, Math.max(0, limitBytes)) };
  }
  return { contextTokens: isKnown ? plan.contextTokens : wish.contextTokens, need, roomBytes: need.totalBytes };
}
