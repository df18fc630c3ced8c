/** Orders for the engine that say only what a test is about. */
import type { LaneOrder } from '../../node/backends/llama-cpp/ipc.ts';
import type { Sampling } from '../../node/backends/llama-cpp/request/generation-request.ts';

export const GREEDY: Sampling = {
  temperature: 0,
  topP: 1,
  topK: 40,
  minP: 0,
  repeatPenalty: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
  seed: 1,
  logitBias: [],
};

/** Greedy, of plain text, without anything special. */
export function laneOrder(text: string, fields: Partial<LaneOrder> = {}): LaneOrder {
  return {
    type: 'lane',
    choice: 0,
    prompt: { kind: 'text', text },
    maxTokens: 4,
    stop: [],
    sampling: GREEDY,
    constraint: { type: 'none' },
    parseTools: false,
    parallelTools: true,
    logprobs: null,
    echo: false,
    callIdSeed: 'x',
    resumed: [],
    finished: false,
    ...fields,
  };
}
