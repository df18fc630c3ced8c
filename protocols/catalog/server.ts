/** The subscriber half of the catalog protocol: what a peer publishes, checked, for a sink. */
import type { Stream } from '@libp2p/interface';
import type { Clock } from '../../node/common/clock.ts';
import { MeshError } from '../../node/common/errors.ts';
import { FrameReader, unreachable } from '../frame-reader.ts';
import { FrameWriter } from '../frame-writer.ts';
import { endStream } from '../stream-end.ts';
import { Watchdog } from '../watchdog.ts';
import { type AdvertBounds, AdvertCheck } from './advert-check.ts';
import type { CatalogEntry, NodeHello, NodeLoad } from './catalog.ts';
import { type CatalogMessage, decodeCatalogMessage, encodeEcho, MAX_ENTRIES } from './messages.ts';

/**
 * Where checked adverts go; called in the order they came, synchronously. `from` is the peer's fingerprint.
 * Order per stream: hello first, one snapshot before any delta; hello and heartbeat at any time after the first hello;
 * at most one goodbye; always one `ended`, last.
 */
export interface CatalogSink {
  /** First on the stream, and again whenever the peer's name or hints change. */
  hello(from: string, hello: NodeHello): void;
  /** The whole catalog; once per stream. */
  snapshot(from: string, entries: readonly CatalogEntry[]): void;
  /** Changes since the snapshot; `remove` holds model ids. */
  delta(from: string, upsert: readonly CatalogEntry[], remove: readonly string[]): void;
  heartbeat(from: string, load: NodeLoad): void;
  /** The peer is shutting down: what it said is void at once. */
  goodbye(from: string): void;
  /** The stream is over: null after a goodbye or a clean close, else why (`protocol_violation`, `peer_unreachable`). */
  ended(from: string, error: MeshError | null): void;
}

export interface CatalogServerLimits extends AdvertBounds {
  /** A stream that sends nothing for this long is ended, milliseconds. Default 10,000. */
  readonly silenceMs: number;
  /** A publisher that does not take its echoes for this long is ended, milliseconds. Default 10,000. */
  readonly drainMs: number;
}

export const DEFAULT_CATALOG_SERVER_LIMITS: CatalogServerLimits = {
  silenceMs: 10_000,
  drainMs: 10_000,
  maxEntries: MAX_ENTRIES,
  framesPerSecond: 50,
  frameBurst: 256,
};

/** How long the publisher may keep a stream that is done. */
const CLOSE_MS = 1000;

export interface ServeCatalogOptions {
  readonly clock: Clock;
  /** Aborting it resets the stream; `ended` is then told `peer_unreachable` or the reason, if that is a MeshError. */
  readonly signal?: AbortSignal;
  readonly limits?: Partial<CatalogServerLimits>;
}

/** Reads one peer's adverts until the stream ends. Never rejects: see `CatalogSink.ended`. */
export async function serveCatalog(
  stream: Stream,
  from: string,
  sink: CatalogSink,
  options: ServeCatalogOptions,
): Promise<void> {
  let ending: MeshError | null = null;
  try {
    await subscribe(stream, from, sink, options);
  } catch (error) {
    ending = unreachable('the adverts of the peer ended', error);
    stream.abort(ending);
  }
  sink.ended(from, ending);
}

async function subscribe(stream: Stream, from: string, sink: CatalogSink, options: ServeCatalogOptions): Promise<void> {
  const limits = { ...DEFAULT_CATALOG_SERVER_LIMITS, ...options.limits };
  const { clock } = options;
  const reader = new FrameReader(stream);
  const writer = new FrameWriter(stream, clock, limits);
  const check = new AdvertCheck(limits);
  const silent = (): MeshError => new MeshError('peer_unreachable', `the peer said nothing for ${limits.silenceMs} ms`);
  using watchdog = new Watchdog(clock, options.signal);
  for (;;) {
    watchdog.arm(limits.silenceMs, silent);
    const frame = await reader.read(watchdog.signal);
    watchdog.disarm();
    if (frame === null) break;
    const message = check.next(decodeCatalogMessage(frame), clock.now());
    if (message !== null) tell(sink, from, message);
    if (message?.type === 'goodbye') break;
    // Waiting for a publisher that does not take its echoes is what bounds them.
    if (message?.type === 'heartbeat') await writer.write(encodeEcho(message.n), watchdog.signal);
  }
  await endStream(stream, writer, clock, CLOSE_MS);
}

function tell(sink: CatalogSink, from: string, message: CatalogMessage): void {
  switch (message.type) {
    case 'hello':
      sink.hello(from, message.hello);
      break;
    case 'snapshot':
      sink.snapshot(from, message.entries);
      break;
    case 'delta':
      sink.delta(from, message.upsert, message.remove);
      break;
    case 'heartbeat':
      sink.heartbeat(from, message.load);
      break;
    case 'goodbye':
      sink.goodbye(from);
      break;
  }
}
