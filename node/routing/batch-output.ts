/** Writes the output file and the error file of a batch, and ends it. */
import type { BatchState, BatchStore, LineOutcome, StoredBatch } from '../storage/batch-store.ts';
import type { WritableFile } from '../storage/batch-store-files.ts';
import { lineIdentity, unaskedLine } from './batch-line.ts';

/** Lines that are read, and written, at a time. */
const AT_ONCE = 100;

export const nowSeconds = (): number => Math.floor(Date.now() / 1000);

/**
 * Ends a batch as `completed`, or as what its facts say was begun: `cancelled` or `expired`. Both files and the state
 * appear together. May be begun again after a crash.
 *
 * @throws the signal's reason, and what writing throws; the batch is as it was then.
 */
export async function writeOutput(store: BatchStore, batch: StoredBatch, signal: AbortSignal): Promise<StoredBatch> {
  const { id, cancellingAt, expiredAt } = batch;
  if (cancellingAt === undefined) {
    store.transaction(() => store.update(id, 'finalizing', { finalizingAt: batch.finalizingAt ?? nowSeconds() }));
  }
  const written: WritableFile[] = [];
  try {
    const output = await write(store, batch, { isOk: true, signal, written });
    const errors = await write(store, batch, { isOk: false, signal, written });
    const state: BatchState =
      cancellingAt !== undefined ? 'cancelled' : expiredAt !== undefined ? 'expired' : 'completed';
    const at = nowSeconds();
    return store.transaction(() => {
      for (const file of written) store.files.register(file.file());
      return store.update(id, state, {
        ...(output === null ? {} : { outputFileId: output }),
        ...(errors === null ? {} : { errorFileId: errors }),
        ...(state === 'cancelled' ? { cancelledAt: at } : state === 'completed' ? { completedAt: at } : {}),
      });
    }, true);
  } catch (error) {
    for (const file of written) await file.discard();
    throw error;
  }
}

/** Every line that has no answer yet gets its place in the error file: the time is over. */
export async function expireLines(
  store: BatchStore,
  { seq, id }: StoredBatch,
  reason: { code: string; message: string },
  model?: string,
): Promise<void> {
  for (const each of model === undefined ? store.pendingModels(seq) : [model]) {
    for (;;) {
      const lines = store.pending(seq, each, { after: 0, limit: AT_ONCE });
      if (lines.length === 0) break;
      store.finish(
        lines.map(({ line, customId }): LineOutcome => {
          const { requestId } = lineIdentity(id, line);
          const text = unaskedLine({ requestId, customId }, { ...reason, line });
          return { batch: seq, line, isOk: false, text, promptTokens: 0, completionTokens: 0 };
        }),
      );
      await nextTurn();
    }
  }
}

/** The file's id; null where it would be empty. */
async function write(
  store: BatchStore,
  { seq, id }: StoredBatch,
  { isOk, signal, written }: { isOk: boolean; signal: AbortSignal; written: WritableFile[] },
): Promise<string | null> {
  let file: WritableFile | null = null;
  let after = 0;
  for (;;) {
    const lines = store.outcomes(seq, isOk, { after, limit: AT_ONCE });
    const last = lines.at(-1);
    if (last === undefined) break;
    if (file === null) {
      file = await store.files.create(`${id}_${isOk ? 'output' : 'error'}.jsonl`, 'batch_output');
      written.push(file);
    }
    await file.write(Buffer.from(lines.map(({ text }) => `${text}\n`).join('')));
    after = last.line;
    signal.throwIfAborted();
  }
  if (file === null) return null;
  await file.sync();
  return file.file().id;
}

/** Lets everybody else go on. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
