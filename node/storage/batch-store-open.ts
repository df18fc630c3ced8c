/** Opens the database of batches: its schema, its modes, and what happens when it cannot be read. */
import { chmodSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { MeshError } from '../common/errors.ts';

/** Grows with each change that older releases could not read. */
const SCHEMA_VERSION = 1;

const SCHEMA = `
CREATE TABLE files (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  filename TEXT NOT NULL,
  purpose TEXT NOT NULL,
  bytes INTEGER NOT NULL,
  created_at INTEGER NOT NULL
);
CREATE TABLE batches (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  state TEXT NOT NULL,
  total INTEGER NOT NULL DEFAULT 0,
  completed INTEGER NOT NULL DEFAULT 0,
  failed INTEGER NOT NULL DEFAULT 0,
  prompt_tokens INTEGER NOT NULL DEFAULT 0,
  completion_tokens INTEGER NOT NULL DEFAULT 0,
  facts TEXT NOT NULL
);
CREATE TABLE lines (
  batch INTEGER NOT NULL REFERENCES batches(seq),
  line INTEGER NOT NULL,
  custom_id TEXT,
  model TEXT,
  at INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  tries INTEGER NOT NULL DEFAULT 0,
  ok INTEGER,
  outcome TEXT,
  PRIMARY KEY (batch, line)
);
CREATE UNIQUE INDEX one_line_a_custom_id ON lines(batch, custom_id) WHERE custom_id IS NOT NULL;
CREATE INDEX pending_lines ON lines(batch, model, line) WHERE outcome IS NULL;
`;

/** Where everything of batches lies. */
export function batchPaths(dataDir: string): { readonly database: string; readonly files: string } {
  return { database: join(dataDir, 'batches.db'), files: join(dataDir, 'batch-files') };
}

/** Is there anything to go on with? */
export function hasBatchStore(dataDir: string): boolean {
  return existsSync(batchPaths(dataDir).database);
}

/** What SQLite calls a file that holds nothing it could read: an error of ours in it, damage, another kind of file. */
const DAMAGED: ReadonlySet<number> = new Set([1, 11, 26]);

/**
 * The database, made where it is missing. One that is damaged is set aside with its files, and `warn` says where; batches
 * then begin anew.
 *
 * Written ahead (WAL) and synced at checkpoints only: a commit survives the death of the process at once, and that of the
 * machine within a few seconds. What the machine's death takes back is whole commits, each an answer together with the word
 * that it is there, so that such a line is asked again and still comes out once.
 *
 * @throws MeshError `invalid_request` for one of a newer release, `internal_error` for one that cannot be opened just now:
 *   in use elsewhere, a full disk, no permission. Both are left alone.
 */
export function openBatchDatabase(dataDir: string, warn: (message: string) => void): DatabaseSync {
  const { database: path, files } = batchPaths(dataDir);
  let opened: DatabaseSync;
  try {
    opened = open(path);
  } catch (error) {
    if (error instanceof MeshError) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    if (!isDamage(error)) {
      const message = `${path} cannot be opened (${reason}): is it in use elsewhere, the disk full, or not yours?`;
      throw new MeshError('internal_error', message, { cause: error });
    }
    const aside = setAside(dataDir);
    warn(`the database of batches could not be read (${reason}): it was set aside as ${aside}; batches begin anew`);
    opened = open(path);
  }
  mkdirSync(files, { recursive: true, mode: 0o700 });
  return opened;
}

function open(path: string): DatabaseSync {
  const database = new DatabaseSync(path);
  try {
    chmodSync(path, 0o600);
    // This process stands still so long for another that looks into it.
    database.exec('PRAGMA busy_timeout = 1000');
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON');
    database.exec('PRAGMA journal_size_limit = 16777216');
    const check = database.prepare('PRAGMA quick_check(1)').get() as { quick_check: string };
    if (check.quick_check !== 'ok') throw new Damage(check.quick_check);
    const { user_version: version } = database.prepare('PRAGMA user_version').get() as { user_version: number };
    if (version > SCHEMA_VERSION) {
      const message = `${path} was written by a newer meshnode: update this one, or move the file away`;
      throw new MeshError('invalid_request', message, { param: 'dataDir' });
    }
    if (version === 0) {
      database.exec(`BEGIN IMMEDIATE; ${SCHEMA} PRAGMA user_version = ${SCHEMA_VERSION}; COMMIT`);
    } else {
      // A file that is no database of ours shows here.
      database.prepare('SELECT count(*) FROM batches').get();
    }
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

class Damage extends Error {}

/** The lowest byte of the code is its kind. */
function isDamage(error: unknown): boolean {
  if (error instanceof Damage) return true;
  const { errcode } = error as { readonly errcode?: unknown };
  return typeof errcode === 'number' && DAMAGED.has(errcode & 0xff);
}

function setAside(dataDir: string): string {
  const { database, files } = batchPaths(dataDir);
  const suffix = `.unreadable-${Date.now()}`;
  renameSync(database, database + suffix);
  for (const part of ['-wal', '-shm']) rmSync(database + part, { force: true });
  if (existsSync(files)) renameSync(files, files + suffix);
  return database + suffix;
}
