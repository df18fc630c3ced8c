/** A real engine on one model file, without a node around it. */
import { statSync } from 'node:fs';
import { LlamaEngine } from '../node/backends/llama-cpp/engine.ts';
import { systemClock } from '../node/common/clock.ts';
import { silentLogger } from '../node/common/logger.ts';
import type { ModelFile } from '../node/storage/model-file.ts';

export interface BenchedModel {
  readonly id: string;
  readonly path: string;
  readonly contextTokens: number;
  readonly parallel: number;
}

export function benchedEngine({ id, path, contextTokens, parallel }: BenchedModel): LlamaEngine {
  const file: ModelFile = {
    id,
    path,
    sizeBytes: statSync(path).size,
    digest: null,
    architecture: 'llama',
    quantization: 'Q8_0',
    trainedContext: 2048,
  };
  const models = { list: () => [file], onChange: () => () => {} };
  return new LlamaEngine(
    { fingerprint: 'bench', models, clock: systemClock, logger: silentLogger },
    { gpu: 'off', contextTokens, parallel },
  );
}
