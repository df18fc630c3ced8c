/** Which GGUF files there are and what each is called: one look at the disk, without memory of the last. */
import { readdir, realpath, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { MeshError, toMeshError } from '../common/errors.ts';
import type { FileStamp } from './digest-cache.ts';
import { type GgufHeader, readGgufHeader } from './gguf-header.ts';

const MAX_DEPTH = 8;
const MAX_FILES = 4096;
const MODEL_ID = /^[A-Za-z0-9][A-Za-z0-9._:/@+ -]{0,255}$/;
const SHARD = /^(.+)-(\d{5})-of-(\d{5})$/;

/** A file to look at; `id` null = by its name. */
export interface NamedFile {
  readonly id: string | null;
  readonly path: string;
}

/** A GGUF file whose header was read and believed. */
export interface ScannedModel {
  readonly id: string;
  /** What the engine opens: of a split model the first part under its own name, since llama.cpp finds the others by it. */
  readonly path: string;
  /** The file, or all shards in order; absolute, symlinks resolved. */
  readonly paths: readonly string[];
  readonly stamps: readonly FileStamp[];
  readonly header: GgufHeader;
}

/** Id and place within its split model of a file with this name, or null when the name cannot be an id. */
export function readFileName(path: string): { id: string; shard: number; shards: number } | null {
  const stem = basename(path).replace(/\.gguf$/i, '');
  const match = SHARD.exec(stem);
  const [, whole = stem, shard = '1', shards = '1'] = match ?? [];
  return MODEL_ID.test(whole) ? { id: whole, shard: Number(shard), shards: Number(shards) } : null;
}

/** Every `.gguf` file below `dir`, in order of path, and the directories seen. Symlinks to directories are not followed. */
export async function findModelFiles(dir: string): Promise<{ files: readonly string[]; dirs: readonly string[] }> {
  const found: string[] = [];
  const dirs: string[] = [];
  const visit = async (at: string, depth: number): Promise<void> => {
    // A directory that vanishes or may not be read has no models for us.
    dirs.push(at);
    const entries = await readdir(at, { withFileTypes: true }).catch(() => []);
    for (const entry of entries.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
      if (found.length >= MAX_FILES) return;
      const path = join(at, entry.name);
      if (entry.isDirectory() && depth < MAX_DEPTH && !entry.name.startsWith('.')) await visit(path, depth + 1);
      else if (!entry.isDirectory() && /\.gguf$/i.test(entry.name)) found.push(path);
    }
  };
  await visit(dir, 0);
  return { files: found, dirs };
}

/** The file's stamp as it is now. */
export async function stampOf(path: string): Promise<FileStamp> {
  const { dev, ino, size, mtimeMs } = await stat(path);
  return { dev, ino, sizeBytes: size, mtimeMs };
}

/**
 * Reads one model: resolves symlinks, finds its shards, checks every header.
 *
 * @throws MeshError `invalid_request` with one sentence that names the file.
 */
export async function scanModel(file: NamedFile): Promise<ScannedModel> {
  const name = readFileName(file.path);
  const id = file.id ?? name?.id;
  if (id === undefined || !MODEL_ID.test(id)) {
    throw new MeshError('invalid_request', `${file.path}: its name cannot be a model id; name it with --model ID=PATH`);
  }
  if (name !== null && name.shard !== 1) {
    throw new MeshError('invalid_request', `${file.path} is part ${name.shard} of a split model: name its first part`);
  }
  const paths = await shardPaths(file.path, name?.shards ?? 1);
  const headers = await Promise.all(paths.map((path) => readGgufHeader(path)));
  const header = headers[0];
  if (header === undefined) throw new MeshError('internal_error', `${file.path}: no header`);
  const path = paths.length > 1 ? file.path : (paths[0] ?? file.path);
  return { id, path, paths, stamps: await Promise.all(paths.map(stampOf)), header };
}

async function shardPaths(first: string, shards: number): Promise<readonly string[]> {
  if (shards > 999) throw new MeshError('invalid_request', `${first}: a split model has at most 999 parts`);
  const paths: string[] = [];
  for (let shard = 1; shard <= shards; shard++) {
    const path = first.replace(/-00001-of-(\d{5})(\.gguf)$/i, `-${String(shard).padStart(5, '0')}-of-$1$2`);
    try {
      paths.push(await realpath(path));
    } catch (error) {
      if (shard > 1)
        throw new MeshError('invalid_request', `${basename(first)} lacks its part ${shard} of ${shards} (${path})`);
      // A plain missing file gets the header reader's sentence.
      await readGgufHeader(path);
      throw toMeshError(error, 'invalid_request');
    }
  }
  return paths;
}
