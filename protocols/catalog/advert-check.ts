/** The order and the limits of one peer's adverts: pure, fed with messages, tells a sink. */
import { violation } from '../frame-decoder.ts';
import type { CatalogEntry } from './catalog.ts';
import type { CatalogMessage } from './messages.ts';

export interface AdvertBounds {
  /** Most entries of a catalog. Default 4,096. */
  readonly maxEntries: number;
  /** Frames a second after the snapshot. Default 50. */
  readonly framesPerSecond: number;
  /** Frames at once after the snapshot. Default 256. */
  readonly frameBurst: number;
}

/** Checks the messages of one stream. */
export class AdvertCheck {
  readonly #bounds: AdvertBounds;
  readonly #ids = new Set<string>();
  #seq = 0;
  #greeted = false;
  #snapshot: CatalogEntry[] | null = [];
  #allowance: number;
  #countedAt = 0;

  constructor(bounds: AdvertBounds) {
    this.#bounds = bounds;
    this.#allowance = bounds.frameBurst;
  }

  /**
   * What the subscriber is to be told: the message itself, with all entries in the snapshot that completes; null for a
   * part of a snapshot. `now` in milliseconds on any monotonic clock.
   *
   * @throws MeshError `protocol_violation`.
   */
  next(message: CatalogMessage, now: number): CatalogMessage | null {
    if (!this.#greeted && message.type !== 'hello') throw violation('an advert before HELLO');
    this.#greeted = true;
    switch (message.type) {
      case 'snapshot':
        return this.#onSnapshot(message, now);
      case 'delta':
        this.#spend(now);
        this.#onDelta(message);
        return message;
      case 'hello':
      case 'heartbeat':
        this.#spend(now);
        return message;
      case 'goodbye':
        return message;
    }
  }

  #onSnapshot(message: CatalogMessage & { type: 'snapshot' }, now: number): CatalogMessage | null {
    if (this.#snapshot === null) throw violation('a second snapshot');
    this.#count(message.seq);
    if (message.more && message.entries.length === 0) throw violation('an empty part of a snapshot');
    for (const entry of message.entries) {
      if (this.#ids.has(entry.id)) throw violation('a model that is in a snapshot twice');
      this.#add(entry.id);
      this.#snapshot.push(entry);
    }
    if (message.more) return null;
    const entries = this.#snapshot;
    this.#snapshot = null;
    this.#countedAt = now;
    return { ...message, entries };
  }

  #onDelta(message: CatalogMessage & { type: 'delta' }): void {
    if (this.#snapshot !== null) throw violation('a delta before the snapshot');
    this.#count(message.seq);
    for (const id of message.remove) this.#ids.delete(id);
    for (const entry of message.upsert) this.#add(entry.id);
  }

  #add(id: string): void {
    this.#ids.add(id);
    if (this.#ids.size > this.#bounds.maxEntries) throw violation('a catalog of too many models');
  }

  #count(seq: number): void {
    if (seq !== this.#seq) throw violation(`an advert numbered ${seq} where ${this.#seq} was due`);
    this.#seq++;
  }

  /** A bucket of frames that refills with time. */
  #spend(now: number): void {
    const { framesPerSecond, frameBurst } = this.#bounds;
    const refill = (Math.max(0, now - this.#countedAt) / 1000) * framesPerSecond;
    this.#allowance = Math.min(frameBurst, this.#allowance + refill) - 1;
    this.#countedAt = now;
    if (this.#allowance < 0) throw violation('too many adverts a second');
  }
}
