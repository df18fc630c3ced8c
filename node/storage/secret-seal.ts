/** Encryption of one secret at a time, and the key that a passphrase makes. Pure but for the randomness of a nonce. */
import { createCipheriv, createDecipheriv, randomBytes, scrypt } from 'node:crypto';
import { MeshError } from '../common/errors.ts';

/** What scrypt was told; kept beside what is sealed. */
export interface ScryptCost {
  /** Power of two from 2^14 to 2^18: memory is 1 KiB × N × p at r = 8. */
  readonly n: number;
  readonly r: number;
  readonly p: number;
}

export const SEAL_KEY_BYTES = 32;
/** 128 MiB and some tenths of a second: what a guess costs. */
export const SCRYPT_COST: ScryptCost = { n: 2 ** 17, r: 8, p: 1 };
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const CIPHER = 'aes-256-gcm';

/** AES-256-GCM as base64url of nonce, ciphertext and tag. It opens under the same `name` only. */
export function seal(key: Uint8Array, name: string, text: string): string {
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES }).setAAD(Buffer.from(name));
  return Buffer.concat([nonce, cipher.update(text, 'utf8'), cipher.final(), cipher.getAuthTag()]).toString('base64url');
}

/** What was sealed; null for another key, another name, or a changed text. */
export function unseal(key: Uint8Array, name: string, sealed: string): string | null {
  const bytes = Buffer.from(sealed, 'base64url');
  if (bytes.length < NONCE_BYTES + TAG_BYTES) return null;
  const nonce = bytes.subarray(0, NONCE_BYTES);
  const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES }).setAAD(Buffer.from(name));
  decipher.setAuthTag(bytes.subarray(-TAG_BYTES));
  try {
    const text = decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES));
    return Buffer.concat([text, decipher.final()]).toString('utf8');
  } catch {
    return null;
  }
}

/** Is it a cost that we would pay? A file must not be able to ask for all memory, nor for a key that is cheap to guess. */
export function isScryptCost({ n, r, p }: ScryptCost): boolean {
  const powers = [14, 15, 16, 17, 18].map((power) => 2 ** power);
  return powers.includes(n) && r === 8 && Number.isInteger(p) && p >= 1 && p <= 4;
}

/** The key of a passphrase (compared by its Unicode NFC form), off the event loop. @throws MeshError `invalid_request`. */
export function keyOfPassphrase(passphrase: string, salt: Uint8Array, cost: ScryptCost): Promise<Buffer> {
  if (!isScryptCost(cost)) throw new MeshError('invalid_request', 'a scrypt cost out of bounds');
  const { n: N, r, p } = cost;
  return new Promise((resolve, reject) => {
    scrypt(passphrase.normalize('NFC'), salt, SEAL_KEY_BYTES, { N, r, p, maxmem: 256 * N * r }, (error, key) => {
      if (error === null) resolve(key);
      else reject(error);
    });
  });
}
