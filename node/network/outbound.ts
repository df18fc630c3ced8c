/** The small steps around a dial or the opening of a stream. */
import type { PeerId, Stream } from '@libp2p/interface';
import { peerIdFromString } from '@libp2p/peer-id';
import type { Multiaddr } from '@multiformats/multiaddr';
import { abortable, type Clock } from '../common/clock.ts';
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

/** Opens a stream in one way; heeds its signal or not. */
export type Opening = (signal: AbortSignal) => Promise<Stream>;

/** A stream takes one round trip to open, so that one that takes longer may wait on a connection that is dead. */
const NEXT_WAY_MS = 500;

/**
 * Tries one way after the other, the next when those before failed or take long, and resolves with the first stream.
 * Streams that come later are reset.
 *
 * @throws the first way's error when all failed, or the signal's reason.
 */
export function firstToOpen(
  ways: readonly Opening[],
  { clock, signal }: { readonly clock: Clock; readonly signal: AbortSignal },
): Promise<Stream> {
  const { promise, resolve, reject } = Promise.withResolvers<Stream>();
  const over = new AbortController();
  const either = AbortSignal.any([signal, over.signal]);
  let [begun, failed] = [0, 0];
  let failure: unknown = null;
  let cancel = (): void => {};
  const begin = (): void => {
    cancel();
    const open = ways[begun];
    if (open === undefined || either.aborted) return;
    begun += 1;
    cancel = clock.after(NEXT_WAY_MS, begin);
    open(either).then(won, lost);
  };
  const won = (stream: Stream): void => {
    if (either.aborted) {
      stream.abort(new Error('opened too late'));
      return;
    }
    over.abort();
    resolve(stream);
  };
  const lost = (error: unknown): void => {
    failure ??= error;
    failed += 1;
    if (failed === ways.length) reject(failure);
    else if (failed === begun) begin();
  };
  begin();
  return abortable(promise, signal).finally(() => {
    cancel();
    over.abort();
  });
}

/** Any failure to reach a peer, as the one code that stands for it. */
export function unreachable(error: unknown, what: string): MeshError {
  if (error instanceof MeshError) return error;
  // libp2p also throws the event with which a connection or stream ended.
  const said = error instanceof Event ? `the connection had its event "${error.type}"` : String(error);
  const detail = error instanceof Error ? error.message : said;
  return new MeshError('peer_unreachable', `${what}: ${detail}`, { cause: error });
}
