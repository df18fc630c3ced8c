/** The passphrase of an encrypted store: from a file (or `/dev/fd/N`), never from a command line. */
import { open } from 'node:fs/promises';
import { abortable, type Clock, deadline } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';

const MAX_BYTES = 4096;
const MIN_CHARS = 8;
/** A pipe that nobody writes to would wait for ever. */
const READ_MS = 10_000;

/**
 * The first line of a file, without its line end.
 *
 * @throws MeshError `invalid_request` that names the file, never what is in it.
 */
export async function readPassphrase(clock: Clock, path: string): Promise<string> {
  const late = (): Error => new MeshError('invalid_request', `nothing comes from the passphrase file ${path}`);
  using bound = deadline(clock, READ_MS, late);
  let text: string;
  try {
    text = await abortable(readStart(path), bound.signal);
  } catch (cause) {
    if (cause instanceof MeshError) throw cause;
    const reason = (cause as NodeJS.ErrnoException).code ?? 'error';
    throw new MeshError('invalid_request', `cannot read the passphrase file ${path} (${reason})`);
  }
  return checkedPassphrase(text.split(/\r?\n/, 1)[0] ?? '', `the first line of ${path}`);
}

/** @throws MeshError `invalid_request` when it is too short to protect anything; it is not quoted. */
export function checkedPassphrase(passphrase: string, what: string): string {
  if ([...passphrase].length >= MIN_CHARS && Buffer.byteLength(passphrase) < MAX_BYTES) return passphrase;
  throw new MeshError('invalid_request', `${what} must be a passphrase of ${MIN_CHARS} characters or more`);
}

/** Where nobody can be asked. */
export function noPassphrase(): Promise<string> {
  return Promise.reject(
    new MeshError(
      'invalid_request',
      'the keys of this node are encrypted: give their passphrase with --passphrase-file FILE (or MESHNODE_PASSPHRASE_FILE)',
      { param: 'secrets.passphraseFile' },
    ),
  );
}

/** Up to `MAX_BYTES`, which pipes may hand over in pieces. */
async function readStart(path: string): Promise<string> {
  const file = await open(path, 'r');
  try {
    const buffer = Buffer.alloc(MAX_BYTES);
    let length = 0;
    while (length < MAX_BYTES && !buffer.subarray(0, length).includes('\n')) {
      const { bytesRead } = await file.read(buffer, length, MAX_BYTES - length);
      if (bytesRead === 0) break;
      length += bytesRead;
    }
    return buffer.toString('utf8', 0, length);
  } finally {
    await file.close();
  }
}
