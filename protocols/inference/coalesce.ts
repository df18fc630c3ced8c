/** Puts tokens that are ready together into one frame: sixteen per frame cost a quarter of one per frame. */
import { continues, join } from './chunk-join.ts';
import type { ChunkEvent, InferenceEvent } from './events.ts';

/** A merged chunk is not added to once it has this many tokens. */
export const COALESCED_TOKENS = 16;

/**
 * The same events, with neighbouring chunks of a choice merged when they came within one turn of the event loop. The
 * first chunk is never kept waiting. Leaving it early leaves the source early, without waiting for it.
 */
export async function* coalesce(source: AsyncIterable<InferenceEvent>): AsyncGenerator<InferenceEvent> {
  const events = source[Symbol.asyncIterator]();
  let waiting = events.next();
  let first = true;
  let done = false;
  try {
    for (;;) {
      const result = await waiting;
      if (result.done === true) break;
      const event = result.value;
      waiting = events.next();
      if (event.type !== 'chunk' || first) {
        first &&= event.type !== 'chunk';
        yield event;
        continue;
      }
      const gathered = await gather(event, waiting, events);
      waiting = gathered.waiting;
      yield gathered.chunk;
    }
    done = true;
  } finally {
    if (!done) {
      waiting.catch(() => {});
      events.return?.().catch(() => {});
    }
  }
}

async function gather(
  first: ChunkEvent,
  ahead: Promise<IteratorResult<InferenceEvent>>,
  events: AsyncIterator<InferenceEvent>,
): Promise<{ chunk: ChunkEvent; waiting: Promise<IteratorResult<InferenceEvent>> }> {
  const turn = new Promise<null>((resolve) => setImmediate(resolve, null));
  let chunk = first;
  let waiting = ahead;
  while (chunk.tokens.length < COALESCED_TOKENS) {
    // A failure is for the next turn of the outer loop: what came before it goes out first.
    const result = await Promise.race([waiting.catch(() => null), turn]);
    if (result === null || result.done === true) break;
    const { value } = result;
    if (value.type !== 'chunk' || !continues(chunk, value)) break;
    chunk = join(chunk, value);
    waiting = events.next();
  }
  return { chunk, waiting };
}
