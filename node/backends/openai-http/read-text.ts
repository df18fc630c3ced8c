/** A whole body as text, within a bound. */
import { MeshError } from '../../common/errors.ts';

/**
 * Reads to the end.
 *
 * @throws MeshError `upstream_error` when it is longer than `maxBytes`, or what `body` throws.
 */
export async function readText(body: AsyncIterable<Uint8Array>, maxBytes: number, name: string): Promise<string> {
  const pieces: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const piece of body) {
    sizeBytes += piece.byteLength;
    if (sizeBytes > maxBytes)
      throw new MeshError('upstream_error', `${name} answered with more than ${maxBytes} bytes`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString('utf8');
}

/** The first `maxBytes` of a body as text; whatever breaks while it is read, what came before counts. */
export async function readStart(body: AsyncIterable<Uint8Array>, maxBytes: number): Promise<string> {
  const pieces: Uint8Array[] = [];
  let sizeBytes = 0;
  try {
    for await (const piece of body) {
      pieces.push(piece);
      sizeBytes += piece.byteLength;
      if (sizeBytes >= maxBytes) break;
    }
  } catch (error) {
    if (!(error instanceof MeshError) || error.code === 'client_closed') throw error;
  }
  return Buffer.concat(pieces).subarray(0, maxBytes).toString('utf8');
}
