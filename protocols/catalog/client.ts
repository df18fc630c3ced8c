/** The publisher half of the catalog protocol: says to one peer what this node serves. */
import type { Stream } from '@libp2p/interface';
import { abortable, type CancelTimer, type Clock, deadline } from '../../node/common/clock.ts';
import { MeshError } from '../../node/common/errors.ts';
import { violation } from '../frame-decoder.ts';
import { FrameReader, unreachable } from '../frame-reader.ts';
import { FrameWriter } from '../frame-writer.ts';
import type { OutgoingFrame } from '../framing.ts';
import { endStream } from '../stream-end.ts';
import type { CatalogEntry, NodeHello, NodeLoad } from './catalog.ts';
import {
  advertisable,
  boundHello,
  decodeEcho,
  diffCatalogs,
  encodeDelta,
  encodeGoodbye,
  encodeHeartbeat,
  encodeHello,
  encodeSnapshot,
} from './messages.ts';

export interface CatalogPublisherComponents {
  readonly clock: Clock;
  /** Opens a catalog stream to the peer. May ignore its signal: a stream that comes too late is reset. */
  open(signal: AbortSignal): Promise<Stream>;
  hello(): NodeHello;
  entries(): readonly CatalogEntry[];
  load(): NodeLoad;
}

export interface CatalogPublisherOptions {
  /** Default 500. */
  readonly heartbeatMs?: number;
  /** At most one delta in this many milliseconds; the first goes out at once. Default 50. */
  readonly deltaSpacingMs?: number;
  /** To open the stream, milliseconds. Default 3,000. */
  readonly openMs?: number;
  /** A peer that takes nothing for this long is given up, milliseconds. Default 10,000. */
  readonly drainMs?: number;
  /** A heartbeat came back after `ms` milliseconds. */
  onRoundTrip?(ms: number): void;
}

/** Publishes to one peer. One `run` at a time. */
export class CatalogPublisher {
  readonly #components: CatalogPublisherComponents;
  readonly #options: CatalogPublisherOptions;
  #session: Session | null = null;

  constructor(components: CatalogPublisherComponents, options: CatalogPublisherOptions = {}) {
    this.#components = components;
    this.#options = options;
  }

  /**
   * Opens a stream, says HELLO and SNAPSHOT, then publishes until the stream ends. Resolves after `goodbye()` or when
   * `signal` aborts; may be called again after it settled (a new stream, a new snapshot).
   *
   * @throws MeshError `peer_unreachable` or `protocol_violation` when the stream was lost.
   */
  async run(signal: AbortSignal): Promise<void> {
    let session: Session | null = null;
    try {
      session = new Session(await this.#open(signal), this.#components, this.#options);
      this.#session = session;
      await session.run(signal);
    } catch (error) {
      if (signal.aborted || session?.ending === true) return;
      throw unreachable('the peer does not take our catalog', error);
    } finally {
      if (this.#session === session) this.#session = null;
    }
  }

  /** The catalog or the hello changed: sends what differs from what was last said. Cheap; any number of calls. */
  changed(): void {
    this.#session?.changed();
  }

  /** Tells the peer that this node stops and ends the stream; resolves at once when there is none. Never rejects. */
  async goodbye(): Promise<void> {
    await this.#session?.goodbye();
  }

  async #open(parent: AbortSignal): Promise<Stream> {
    const openMs = this.#options.openMs ?? 3000;
    const late = (): MeshError => new MeshError('peer_unreachable', `no stream to the peer within ${openMs} ms`);
    using bound = deadline(this.#components.clock, openMs, late, parent);
    bound.signal.throwIfAborted();
    const opening = this.#components.open(bound.signal);
    try {
      return await abortable(opening, bound.signal);
    } catch (error) {
      opening.then(
        (stream) => stream.abort(late()),
        () => {},
      );
      throw error;
    }
  }
}

/** How long the peer may keep the stream after our goodbye. */
const CLOSE_MS = 1000;
/** Heartbeats whose echo may still come. */
const MAX_PENDING_ECHOES = 64;

/** One stream's worth of publishing. */
class Session {
  readonly #stream: Stream;
  readonly #components: CatalogPublisherComponents;
  readonly #options: CatalogPublisherOptions;
  readonly #reader: FrameReader;
  readonly #writer: FrameWriter;
  readonly #sentAt = new Map<number, number>();
  #said: ReadonlyMap<string, CatalogEntry> = new Map();
  #saidHello = '';
  #seq = 0;
  #heartbeats = 0;
  #ending = false;
  #spacing: CancelTimer | null = null;
  #dirty = false;

  constructor(stream: Stream, components: CatalogPublisherComponents, options: CatalogPublisherOptions) {
    this.#stream = stream;
    this.#components = components;
    this.#options = options;
    this.#reader = new FrameReader(stream);
    this.#writer = new FrameWriter(stream, components.clock, options);
  }

  /** A goodbye was said: the end of the stream is no loss. */
  get ending(): boolean {
    return this.#ending;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock } = this.#components;
    const onAbort = (): void => this.#lose(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { once: true });
    this.#say(this.#introduction());
    const stopHeartbeats = clock.every(this.#options.heartbeatMs ?? 500, () => this.#heartbeat());
    try {
      this.#heartbeat();
      await this.#readEchoes();
      if (!this.#ending) throw new MeshError('peer_unreachable', 'the peer ended the stream of our catalog');
    } finally {
      stopHeartbeats();
      this.#spacing?.();
      signal.removeEventListener('abort', onAbort);
      if (!this.#ending) this.#lose(new MeshError('peer_unreachable', 'the stream of our catalog is over'));
    }
  }

  changed(): void {
    if (this.#ending) return;
    this.#dirty = true;
    if (this.#spacing === null) this.#publishChange();
  }

  async goodbye(): Promise<void> {
    if (this.#ending) return;
    this.#ending = true;
    try {
      await this.#writer.write(encodeGoodbye());
    } catch (error) {
      this.#lose(error);
    }
    await endStream(this.#stream, this.#writer, this.#components.clock, CLOSE_MS);
  }

  #introduction(): OutgoingFrame[] {
    const hello = this.#components.hello();
    this.#saidHello = JSON.stringify(boundHello(hello));
    this.#said = advertisable(this.#components.entries());
    return [encodeHello(hello), ...this.#numbered(encodeSnapshot([...this.#said.values()], this.#seq))];
  }

  /** What differs from what was said goes out now; what changes next waits for the spacing. */
  #publishChange(): void {
    this.#dirty = false;
    const frames: OutgoingFrame[] = [];
    const hello = this.#components.hello();
    if (JSON.stringify(boundHello(hello)) !== this.#saidHello) {
      this.#saidHello = JSON.stringify(boundHello(hello));
      frames.push(encodeHello(hello));
    }
    const entries = advertisable(this.#components.entries());
    const change = diffCatalogs(this.#said, entries);
    this.#said = entries;
    if (change !== null) frames.push(...this.#numbered(encodeDelta(change, this.#seq)));
    if (frames.length === 0) return;
    this.#say(frames);
    this.#spacing = this.#components.clock.after(this.#options.deltaSpacingMs ?? 50, () => {
      this.#spacing = null;
      if (this.#dirty && !this.#ending) this.#publishChange();
    });
  }

  #numbered(frames: OutgoingFrame[]): OutgoingFrame[] {
    this.#seq += frames.length;
    return frames;
  }

  #heartbeat(): void {
    // A peer that is behind gets no more to fall behind with; the drain bound ends it.
    if (this.#ending || this.#writer.blocked) return;
    const n = this.#heartbeats++;
    this.#sentAt.set(n, this.#components.clock.now());
    this.#sentAt.delete(n - MAX_PENDING_ECHOES);
    this.#say([encodeHeartbeat(n, this.#components.load())]);
  }

  async #readEchoes(): Promise<void> {
    for (;;) {
      const frame = await this.#reader.read();
      if (frame === null) return;
      const n = decodeEcho(frame);
      const sentAt = this.#sentAt.get(n);
      if (n >= this.#heartbeats) throw violation('an ECHO of no heartbeat');
      // Twice, or too late to tell anything.
      if (sentAt === undefined) continue;
      this.#sentAt.delete(n);
      this.#options.onRoundTrip?.(this.#components.clock.now() - sentAt);
    }
  }

  #say(frames: readonly OutgoingFrame[]): void {
    this.#writer.write(frames).catch((error: unknown) => this.#lose(error));
  }

  #lose(reason: unknown): void {
    this.#stream.abort(unreachable('our catalog could not be sent', reason));
  }
}
