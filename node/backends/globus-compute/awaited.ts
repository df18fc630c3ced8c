/** Long waits that say that they go on. */
import type { ProgressEvent } from '../../../protocols/inference/events.ts';
import { type Clock, sleep } from '../../common/clock.ts';

const EVERY_MS = 500;

/** What `work` resolves with; a sign of life every 500 ms until then. Whoever leaves must abort the work himself. */
export async function* awaited<T>(
  clock: Clock,
  work: Promise<T>,
  state: ProgressEvent['state'],
): AsyncGenerator<ProgressEvent, T> {
  const over = new AbortController();
  const settled = work.then(
    () => over.abort(),
    () => over.abort(),
  );
  try {
    while (!over.signal.aborted) {
      await Promise.race([settled, sleep(clock, EVERY_MS, over.signal).catch(() => {})]);
      if (!over.signal.aborted) yield { type: 'progress', state, fraction: null };
    }
    return await work;
  } finally {
    over.abort();
  }
}
