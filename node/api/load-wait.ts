/** How long a client waits for a model to load when nothing can tell it meanwhile that something happens. */
import type { InferenceEvent, ProgressEvent } from '../../protocols/inference/events.ts';
import type { Clock } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';

/** When it makes sense to come back, while nobody knows how fast the model loads. */
const RETRY_MS = 10_000;
const MAX_RETRY_MS = 120_000;

/**
 * The same events. Leaving the source cancels the request; a load goes on without it.
 *
 * @throws MeshError `model_not_loaded` with the load's progress and a time to come back, once the model has been
 *   loading for `loadWaitMs`; and what the source throws.
 */
export async function* withLoadBound(
  events: AsyncIterable<InferenceEvent>,
  { clock, loadWaitMs }: { readonly clock: Clock; readonly loadWaitMs: number },
): AsyncGenerator<InferenceEvent> {
  let since: number | null = null;
  for await (const event of events) {
    if (event.type === 'progress' && event.state === 'loading') {
      since ??= clock.now();
      // While it waits, progress comes twice a second.
      const waitedMs = clock.now() - since;
      if (waitedMs >= loadWaitMs) throw stillLoading(event, waitedMs);
    }
    yield event;
  }
}

function stillLoading({ state, fraction }: ProgressEvent, waitedMs: number): MeshError {
  const done = fraction === null ? '' : `, ${Math.floor(fraction * 100)} % done`;
  const message = `The model is still loading${done}. Ask again when Retry-After has passed; the load goes on.`;
  const restMs = fraction === null || fraction <= 0 ? RETRY_MS : (waitedMs * (1 - fraction)) / fraction;
  const retryAfterMs = Math.min(Math.max(restMs, 1000), MAX_RETRY_MS);
  return new MeshError('model_not_loaded', message, { retryAfterMs, progress: { state, fraction } });
}
