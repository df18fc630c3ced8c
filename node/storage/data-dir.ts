/** The directory that holds what a node remembers: identity, models, caches. Its owner's alone. */
import { chmod, mkdir, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { MeshError } from '../common/errors.ts';

const PRIVATE_DIR_MODE = 0o700;
const WRITABLE_BY_OTHERS = 0o022;

/** Names of everything in a data dir. */
export function dataDirPaths(dataDir: string): {
  readonly lock: string;
  readonly lockHolder: string;
  readonly run: string;
  readonly state: string;
  readonly digests: string;
} {
  return {
    lock: join(dataDir, 'lock.db'),
    lockHolder: join(dataDir, 'lock.json'),
    run: join(dataDir, 'run.json'),
    state: join(dataDir, 'state.json'),
    digests: join(dataDir, 'digests.json'),
  };
}

/**
 * Creates the directory (0700) where it is missing; an existing one must be writable by its owner only.
 *
 * @throws MeshError `invalid_request` that names the directory and the remedy.
 */
export async function prepareDataDir(dataDir: string): Promise<void> {
  try {
    await mkdir(dataDir, { recursive: true, mode: PRIVATE_DIR_MODE });
    const { mode } = await stat(dataDir);
    if ((mode & 0o077) === 0 || process.platform === 'win32') return;
    // An empty directory was made for us a moment ago (mktemp, a container volume): tighten it and say nothing.
    if ((await readdir(dataDir)).length === 0) return await chmod(dataDir, PRIVATE_DIR_MODE);
    if ((mode & WRITABLE_BY_OTHERS) === 0) return;
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? 'error';
    throw new MeshError(
      'invalid_request',
      `cannot use the data directory ${dataDir} (${code}): choose another with --data-dir`,
      { cause, param: 'dataDir' },
    );
  }
  throw new MeshError(
    'invalid_request',
    `other users may write to the data directory ${dataDir}: run chmod 700 on it, or choose another with --data-dir`,
    { param: 'dataDir' },
  );
}
