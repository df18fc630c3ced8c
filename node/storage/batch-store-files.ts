/** Uploaded and written files: their content on disk, what they are in the database. */
import { randomBytes } from 'node:crypto';
import { type FileHandle, open, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { MeshError } from '../common/errors.ts';

/** What a file is for. `batch_output`: written here, answers or errors. */
export type FilePurpose = 'batch' | 'batch_output';

export interface StoredFile {
  /** `file-<24 hex>`. */
  readonly id: string;
  readonly filename: string;
  readonly purpose: FilePurpose;
  readonly bytes: number;
  /** Unix seconds. */
  readonly createdAt: number;
}

export interface FilePage {
  readonly purpose?: string | undefined;
  /** Only files behind this one. */
  readonly after?: string | undefined;
  readonly limit: number;
  /** Default newest first. */
  readonly ascending?: boolean;
}

/** A file that is being written; it exists for others once it is kept. */
export interface WritableFile {
  write(bytes: Uint8Array): Promise<void>;
  /** Everything is on disk. Part of the caller's transaction when `register` is called in one. */
  sync(): Promise<void>;
  readonly file: () => StoredFile;
  /** Removes it, unless it is registered. */
  discard(): Promise<void>;
}

const TEMPORARY = '.tmp';
/** Of names that clients gave. */
const NAME_CHARS = 200;

type Row = Record<string, string | number | null>;

export class BatchStoreFiles {
  readonly #database: DatabaseSync;
  readonly #dir: string;

  constructor(components: { readonly database: DatabaseSync }, options: { readonly dir: string }) {
    this.#database = components.database;
    this.#dir = options.dir;
  }

  path(id: string): string {
    return join(this.#dir, id);
  }

  /** Removes what no entry names: uploads that never came to their end. */
  async sweep(): Promise<void> {
    for (const name of await readdir(this.#dir)) {
      if (this.get(name) === null) await rm(join(this.#dir, name), { force: true });
    }
  }

  /** Begins a file. */
  async create(filename: string, purpose: FilePurpose): Promise<WritableFile> {
    const id = `file-${randomBytes(12).toString('hex')}`;
    const temporary = this.path(id) + TEMPORARY;
    const handle: FileHandle = await open(temporary, 'wx', 0o600);
    let bytes = 0;
    return {
      write: async (part) => {
        await handle.writeFile(part);
        bytes += part.byteLength;
      },
      sync: async () => {
        await handle.sync();
        await handle.close();
        await rename(temporary, this.path(id));
        await syncDir(this.#dir);
      },
      file: () => ({ id, filename: filename.slice(0, NAME_CHARS), purpose, bytes, createdAt: nowSeconds() }),
      discard: async () => {
        await handle.close().catch(() => {});
        await rm(temporary, { force: true });
        if (this.get(id) === null) await rm(this.path(id), { force: true });
      },
    };
  }

  /** Enters a file that is whole and on disk. */
  register({ id, filename, purpose, bytes, createdAt }: StoredFile): void {
    this.#database
      .prepare('INSERT INTO files (id, filename, purpose, bytes, created_at) VALUES (?, ?, ?, ?, ?)')
      .run(id, filename, purpose, bytes, createdAt);
  }

  get(id: string): StoredFile | null {
    const row = this.#database.prepare('SELECT * FROM files WHERE id = ?').get(id) as Row | undefined;
    return row === undefined ? null : fileOf(row);
  }

  /** One more than asked for, where there is one. @throws MeshError `not_found` for an unknown `after`. */
  list({ purpose, after, limit, ascending = false }: FilePage): StoredFile[] {
    const seq = after === undefined ? null : this.#seq(after);
    const [order, beyond] = ascending ? ['ASC', '>'] : ['DESC', '<'];
    const rows = this.#database
      .prepare(
        `SELECT * FROM files WHERE (?1 IS NULL OR purpose = ?1) AND (?2 IS NULL OR seq ${beyond} ?2)
         ORDER BY seq ${order} LIMIT ?3`,
      )
      .all(purpose ?? null, seq, limit + 1) as Row[];
    return rows.map(fileOf);
  }

  /** Bytes of all files. */
  totalBytes(): number {
    return (this.#database.prepare('SELECT coalesce(sum(bytes), 0) AS bytes FROM files').get() as { bytes: number })
      .bytes;
  }

  /** How many there are. */
  count(): number {
    return (this.#database.prepare('SELECT count(*) AS n FROM files').get() as { n: number }).n;
  }

  async remove(id: string): Promise<void> {
    this.#database.prepare('DELETE FROM files WHERE id = ?').run(id);
    await rm(this.path(id), { force: true });
  }

  #seq(id: string): number {
    const row = this.#database.prepare('SELECT seq FROM files WHERE id = ?').get(id) as { seq: number } | undefined;
    if (row === undefined)
      throw new MeshError('not_found', `There is no file "${id.slice(0, 64)}".`, { param: 'after' });
    return row.seq;
  }
}

function fileOf(row: Row): StoredFile {
  return {
    id: String(row['id']),
    filename: String(row['filename']),
    purpose: row['purpose'] as FilePurpose,
    bytes: Number(row['bytes']),
    createdAt: Number(row['created_at']),
  };
}

/** A new name is on disk once its directory is. */
async function syncDir(dir: string): Promise<void> {
  if (process.platform === 'win32') return;
  const handle = await open(dir, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

const nowSeconds = (): number => Math.floor(Date.now() / 1000);
