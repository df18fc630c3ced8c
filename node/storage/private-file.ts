/** Small files that only their owner may read, replaced in one step so that a crash never leaves half of one. */
import { randomBytes } from 'node:crypto';
import { open, readFile, rename, rm, stat } from 'node:fs/promises';
import { MeshError } from '../common/errors.ts';

/** Replaces the file by `text`, mode 0600; readers see the old or the new content, never a mixture. */
export async function writePrivateFile(path: string, text: string): Promise<void> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    const file = await open(temporary, 'wx', 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** The file's JSON, or null when it is absent, longer than `maxBytes` or no JSON: such files are caches and hints. */
export async function readJsonFile(path: string, maxBytes: number): Promise<unknown> {
  try {
    if ((await stat(path)).size > maxBytes) return null;
    return JSON.parse(await readFile(path, 'utf8')) as unknown;
  } catch {
    return null;
  }
}

/**
 * The secret in the first line of a file.
 *
 * @throws MeshError `invalid_request` that names the file, never what is in it.
 */
export async function readSecretFile(path: string): Promise<string> {
  let text: string;
  try {
    if ((await stat(path)).size > 64 * 1024) throw new Error('larger than 64 KiB');
    text = await readFile(path, 'utf8');
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code ?? (cause as Error).message;
    throw new MeshError('invalid_request', `cannot read the key file ${path} (${reason})`, { cause });
  }
  const secret = (text.split('\n', 1)[0] ?? '').trim();
  if (/^[\x21-\x7e]{8,512}$/.test(secret)) return secret;
  throw new MeshError(
    'invalid_request',
    `${path}: its first line must be the key: 8 to 512 visible ASCII characters without spaces`,
  );
}
