/** The end of a stream that did its work. */
import type { Stream } from '@libp2p/interface';
import type { Clock } from '../node/common/clock.ts';
import { MeshError } from '../node/common/errors.ts';
import type { FrameWriter } from './frame-writer.ts';

/**
 * Ends our side once all is sent, and resolves when the peer has ended its own; resets the stream when that takes more
 * than `boundMs`. Never rejects.
 */
export async function endStream(stream: Stream, writer: FrameWriter, clock: Clock, boundMs: number): Promise<void> {
  const { promise: closed, resolve } = Promise.withResolvers<void>();
  stream.addEventListener('close', () => resolve(), { once: true });
  if (isOver(stream)) return;
  await writer.close();
  const late = new MeshError('request_timeout', `the peer did not end its stream within ${boundMs} ms`);
  const cancel = clock.after(boundMs, () => stream.abort(late));
  if (!isOver(stream)) await closed;
  cancel();
}

function isOver({ status }: Stream): boolean {
  return status !== 'open' && status !== 'closing';
}
