/** The small steps around a dial or the opening of a stream. */
import type { PeerId, Stream } from '@libp2p/interface';
import { peerIdFromString } from '@libp2p/peer-id';
import type { Multiaddr } from '@multiformats/multiaddr';
import { MeshError } from '../common/errors.ts';
import { parseMultiaddr } from './address.ts';

/** What libp2p should dial: a peer id, or multiaddrs of one peer. */
export function dialTarget(target: string | readonly string[]): Multiaddr[] | PeerId {
  const texts = typeof target === 'string' ? [target] : target;
  if (typeof target === 'string' && !target.startsWith('/')) return peerIdFromString(target);
  const addresses = texts.map(parseMultiaddr).filter((address) => address !== null);
  if (addresses.length === 0) throw new MeshError('peer_unreachable', `No address to dial in ${texts.join(', ')}.`);
  return addresses;
}

/** A stream that opens after its opener gave up has no owner: reset it. */
export function abandonLate(opening: Promise<Stream>, signal: AbortSignal): void {
  opening.then(
    (stream) => {
      if (signal.aborted) stream.abort(new Error('opened too late'));
    },
    () => {},
  );
}

/** Any failure to reach a peer, as the one code that stands for it. */
export function unreachable(error: unknown, what: string): MeshError {
  if (error instanceof MeshError) return error;
  const detail = error instanceof Error ? error.message : String(error);
  return new MeshError('peer_unreachable', `${what}: ${detail}`, { cause: error });
}
