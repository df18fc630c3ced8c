/** sha256 of model files, remembered by inode, size and mtime: hashing 40 GB at every start would take minutes. */
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { dataDirPaths } from './data-dir.ts';
import { readJsonFile, writePrivateFile } from './private-file.ts';

const MAX_ENTRIES = 4096;
const MAX_FILE_BYTES = 2 * 1024 * 1024;
const CHUNK_BYTES = 1024 * 1024;

/** What makes a file on disk the same as before, as the file system tells it. */
export interface FileStamp {
  readonly dev: number;
  readonly ino: number;
  readonly sizeBytes: number;
  readonly mtimeMs: number;
}

/** `<dataDir>/digests.json`, the newest 4,096 entries. Losing it only costs time. */
export class DigestCache {
  readonly #path: string;
  #digests = new Map<string, string>();

  constructor(dataDir: string) {
    this.#path = dataDirPaths(dataDir).digests;
  }

  async load(): Promise<void> {
    const json = await readJsonFile(this.#path, MAX_FILE_BYTES);
    const entries = typeof json === 'object' && json !== null ? Object.entries(json) : [];
    this.#digests = new Map(
      entries.filter(([, digest]) => typeof digest === 'string' && /^[0-9a-f]{64}$/.test(digest)),
    );
  }

  /** The digest of files with these stamps, in order (one, or all shards of a split model); null when not known. */
  get(stamps: readonly FileStamp[]): string | null {
    return this.#digests.get(keyOf(stamps)) ?? null;
  }

  async set(stamps: readonly FileStamp[], digest: string): Promise<void> {
    const key = keyOf(stamps);
    this.#digests.delete(key);
    this.#digests.set(key, digest);
    for (const oldest of this.#digests.keys()) {
      if (this.#digests.size <= MAX_ENTRIES) break;
      this.#digests.delete(oldest);
    }
    await writePrivateFile(this.#path, JSON.stringify(Object.fromEntries(this.#digests)));
  }
}

function keyOf(stamps: readonly FileStamp[]): string {
  return stamps.map((stamp) => `${stamp.dev}:${stamp.ino}:${stamp.sizeBytes}:${stamp.mtimeMs}`).join('+');
}

/**
 * sha256 (hex) of the files' bytes one after the other. Reads one chunk at a time and gives way after each, so that
 * streams that run meanwhile are not delayed.
 *
 * @throws the signal's reason, or the file system's error.
 */
export async function digestFiles(paths: readonly string[], signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  for (const path of paths) {
    await using file = await open(path, 'r');
    for (;;) {
      signal.throwIfAborted();
      const { bytesRead } = await file.read(chunk, 0, CHUNK_BYTES, null);
      if (bytesRead === 0) break;
      hash.update(chunk.subarray(0, bytesRead));
      await nextTurn();
    }
  }
  return hash.digest('hex');
}
