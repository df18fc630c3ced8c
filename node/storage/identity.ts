/** The node's Ed25519 key: its public half is the fingerprint that peers know it by. */
import { randomUUID } from 'node:crypto';
import { link, mkdir, open, readFile, stat, unlink } from 'node:fs/promises';
import path from 'node:path';
import { generateKeyPair, privateKeyFromProtobuf, privateKeyToProtobuf } from '@libp2p/crypto/keys';
import type { Ed25519PrivateKey } from '@libp2p/interface';
import { MeshError } from '../common/errors.ts';

const FILE_NAME = 'identity.key';

/**
 * Reads `<dataDir>/identity.key`, or makes it (0600) when there is none. Of several processes that make it at once all
 * get the same key.
 *
 * @throws MeshError `invalid_request` when others can read the file, or when it holds no Ed25519 key.
 */
export async function loadIdentity(dataDir: string): Promise<Ed25519PrivateKey> {
  const file = path.join(dataDir, FILE_NAME);
  try {
    return await readIdentity(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  await createIdentity(file);
  return await readIdentity(file);
}

async function readIdentity(file: string): Promise<Ed25519PrivateKey> {
  const { mode } = await stat(file);
  if (process.platform !== 'win32' && (mode & 0o077) !== 0) {
    throw new MeshError(
      'invalid_request',
      `Others can read the node's private key; run: chmod 600 ${file} (if somebody may have copied it, delete it and the node gets a new fingerprint).`,
    );
  }
  const bytes = await readFile(file);
  let key: ReturnType<typeof privateKeyFromProtobuf>;
  try {
    key = privateKeyFromProtobuf(bytes);
  } catch {
    throw brokenKey(file);
  }
  if (key.type !== 'Ed25519') throw brokenKey(file);
  return key;
}

function brokenKey(file: string): MeshError {
  return new MeshError(
    'invalid_request',
    `${file} holds no Ed25519 key; restore it from a backup, or delete it and the node gets a new fingerprint.`,
  );
}

/** Writes a new key aside and links it into place: the name appears with the whole key or not at all, and only once. */
async function createIdentity(file: string): Promise<void> {
  const aside = `${file}.${randomUUID()}`;
  const handle = await open(aside, 'wx', 0o600);
  try {
    await handle.writeFile(privateKeyToProtobuf(await generateKeyPair('Ed25519')));
    await handle.sync();
  } finally {
    await handle.close();
  }
  try {
    await link(aside, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    await unlink(aside);
  }
}
