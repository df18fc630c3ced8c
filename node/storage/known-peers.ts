/** Peers that were connected before, so that a node finds its mesh again without multicast. A snapshot in the data dir. */
import path from 'node:path';
import type { Clock } from '../common/clock.ts';
import type { Startable } from '../common/lifecycle.ts';
import type { Logger } from '../common/logger.ts';
import { readJsonFile, writePrivateFile } from './private-file.ts';

export interface KnownPeer {
  readonly fingerprint: string;
  /** Multiaddrs without `/p2p/…`, best first. */
  readonly addresses: readonly string[];
}

export interface KnownPeersComponents {
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface KnownPeersOptions {
  /** Null: remembered only while the process runs. */
  readonly dataDir: string | null;
  /** How many are kept; the one seen longest ago goes first. Default 256. */
  readonly limit?: number;
}

const FILE_NAME = 'peers.json';
const WRITE_SPACING_MS = 5000;
const MAX_ADDRESSES = 8;
/** A file larger than this is not ours. */
const MAX_FILE_BYTES = 1024 * 1024;

/** Remembers peers, most recently seen last. Loaded by `start`, written at most every 5 s and at `stop`. */
export class KnownPeers implements Startable {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #file: string | null;
  readonly #limit: number;
  readonly #peers = new Map<string, KnownPeer>();
  #cancelWrite: (() => void) | null = null;
  #writing: Promise<void> = Promise.resolve();

  constructor(components: KnownPeersComponents, options: KnownPeersOptions) {
    this.#clock = components.clock;
    this.#logger = components.logger;
    this.#file = options.dataDir === null ? null : path.join(options.dataDir, FILE_NAME);
    this.#limit = options.limit ?? 256;
  }

  /** A missing or damaged file is an empty list: the mesh is found again in other ways. */
  async start(): Promise<void> {
    if (this.#file === null) return;
    for (const peer of parsePeers(await readJsonFile(this.#file, MAX_FILE_BYTES))) this.#keep(peer);
  }

  async stop(): Promise<void> {
    if (this.#cancelWrite !== null) {
      this.#cancelWrite();
      this.#cancelWrite = null;
      this.#write();
    }
    await this.#writing;
  }

  /** Most recently seen first. */
  list(): KnownPeer[] {
    return [...this.#peers.values()].reverse();
  }

  /** The peer is here now, at these addresses. */
  seen(peer: KnownPeer): void {
    if (peer.addresses.length === 0) return;
    this.#keep(peer);
    if (this.#file === null || this.#cancelWrite !== null) return;
    this.#cancelWrite = this.#clock.after(WRITE_SPACING_MS, () => {
      this.#cancelWrite = null;
      this.#write();
    });
  }

  #keep({ fingerprint, addresses }: KnownPeer): void {
    this.#peers.delete(fingerprint);
    this.#peers.set(fingerprint, { fingerprint, addresses: addresses.slice(0, MAX_ADDRESSES) });
    const oldest = this.#peers.size > this.#limit ? this.#peers.keys().next().value : undefined;
    if (oldest !== undefined) this.#peers.delete(oldest);
  }

  #write(): void {
    const file = this.#file;
    if (file === null) return;
    const text = `${JSON.stringify({ peers: [...this.#peers.values()] })}\n`;
    this.#writing = this.#writing.then(async () => {
      try {
        await writePrivateFile(file, text);
      } catch (error) {
        this.#logger.warn({ file, error }, 'the list of known peers cannot be written');
      }
    });
  }
}

function parsePeers(value: unknown): KnownPeer[] {
  const list = isRecord(value) && Array.isArray(value['peers']) ? value['peers'] : [];
  const peers: KnownPeer[] = [];
  for (const item of list as unknown[]) {
    if (!isRecord(item) || typeof item['fingerprint'] !== 'string' || !Array.isArray(item['addresses'])) continue;
    const addresses = (item['addresses'] as unknown[]).filter((address) => typeof address === 'string');
    peers.push({ fingerprint: item['fingerprint'], addresses });
  }
  return peers;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
