/** Batches as a facade serves them, of which no line is ever asked: for tests of what comes in and goes out. */
import assert from 'node:assert/strict';
import { readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { systemClock } from '../../node/common/clock.ts';
import { silentLogger } from '../../node/common/logger.ts';
import { BatchService, type BatchServiceOptions } from '../../node/routing/batch-service.ts';
import { temporaryDir } from './node-process.ts';

export interface IdleBatches {
  readonly service: BatchService;
  /** Names of the files that are kept. */
  stored(): readonly string[];
  /** After the facade has stopped. */
  remove(): Promise<void>;
}

/** In a folder of its own; the facade starts it. */
export function idleBatches(limits: Omit<BatchServiceOptions, 'dataDir'> = {}): IdleBatches {
  const dataDir = temporaryDir();
  const service = new BatchService(
    {
      dispatcher: { dispatch: () => assert.fail('nothing is asked') },
      room: { free: () => 0, lookFurther: async () => {} },
      answer: () => assert.fail('nothing is answered'),
      isOpen: () => false,
      clock: systemClock,
      logger: silentLogger,
      warn: () => {},
    },
    { dataDir, ...limits },
  );
  return {
    service,
    stored: () => readdirSync(path.join(dataDir, 'batch-files')),
    async remove() {
      await service.stop();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}
