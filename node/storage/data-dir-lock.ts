/** One process at a time per data dir. */
import { chmod } from 'node:fs/promises';
import { hostname } from 'node:os';
import { DatabaseSync } from 'node:sqlite';
import { MeshError } from '../common/errors.ts';
import type { Startable } from '../common/lifecycle.ts';
import { dataDirPaths } from './data-dir.ts';
import { readJsonFile, writePrivateFile } from './private-file.ts';

const SQLITE_BUSY = 5;

/**
 * Holds the data dir from `start` to `stop`. The lock is the operating system's (through SQLite, the one part of Node
 * that takes file locks): it vanishes with its process, however that ends, and it holds across containers and NFS
 * clients that share the directory, where a pid in a file would name a stranger.
 */
export class DataDirLock implements Startable {
  readonly #dataDir: string;
  #database: DatabaseSync | null = null;

  constructor(dataDir: string) {
    this.#dataDir = dataDir;
  }

  /** @throws MeshError `invalid_request` that names the process that holds the data dir. */
  async start(): Promise<void> {
    if (this.#database !== null) return;
    const paths = dataDirPaths(this.#dataDir);
    let database: DatabaseSync | null = null;
    try {
      database = new DatabaseSync(paths.lock);
      // By path: opening and closing the file here would drop a lock that this very process holds on it.
      await chmod(paths.lock, 0o600);
      database.exec('PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE');
    } catch (error) {
      database?.close();
      const busy = (error as { errcode?: unknown }).errcode === SQLITE_BUSY;
      throw busy ? await heldError(this.#dataDir, error) : unusableError(this.#dataDir, error);
    }
    this.#database = database;
    await writePrivateFile(paths.lockHolder, JSON.stringify({ pid: process.pid, host: hostname() }));
  }

  stop(): void {
    this.#database?.close();
    this.#database = null;
  }
}

async function heldError(dataDir: string, cause: unknown): Promise<MeshError> {
  const holder = await readJsonFile(dataDirPaths(dataDir).lockHolder, 4096);
  const { pid, host } = (typeof holder === 'object' && holder !== null ? holder : {}) as Record<string, unknown>;
  const elsewhere = typeof host === 'string' && host !== hostname() ? ` on ${host}` : '';
  const who = typeof pid === 'number' ? `process ${pid}${elsewhere}` : 'another process';
  return new MeshError(
    'invalid_request',
    `the data directory ${dataDir} is in use by ${who}: stop that node, or give this one its own with --data-dir`,
    { cause, param: 'dataDir' },
  );
}

function unusableError(dataDir: string, cause: unknown): MeshError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new MeshError('invalid_request', `cannot lock the data directory ${dataDir}: ${reason}`, {
    cause,
    param: 'dataDir',
  });
}
