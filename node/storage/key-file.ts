/** The content of `keys.json`: every field checked, for people may edit the file. */

export interface KeyLimits {
  /** Prompt and generated tokens together; null: no limit. */
  readonly tokensPerMinute: number | null;
  /** Requests at once; null: only the limit that every peer has. */
  readonly inFlight: number | null;
}

/** What may be shown of a key: never the key, nor its hash. */
export interface IssuedKeyView {
  /** First 8 hex digits of the hash. */
  readonly id: string;
  readonly name: string;
  /** May hold scopes of later versions. */
  readonly scopes: readonly string[];
  readonly limits: KeyLimits;
  /** Unix milliseconds, as are all times here. */
  readonly createdAt: number;
  readonly expiresAt: number | null;
  readonly revokedAt: number | null;
}

export interface KeyFileEntry extends IssuedKeyView {
  /** sha256 of the key: 32 bytes. */
  readonly hash: Buffer;
}

/** Many more than anybody hands out; revoked ones count. */
export const MAX_KEYS = 4096;

/**
 * The entries in the file's order. A key must not lose its limits, so one odd value condemns the file.
 *
 * @throws Error that does not quote the file.
 */
export function parseKeyFile(json: unknown): readonly KeyFileEntry[] {
  if (!isRecord(json) || json.version !== 1 || !Array.isArray(json.keys)) throw new Error('it is no list of keys');
  const entries: KeyFileEntry[] = [];
  for (const value of json.keys as unknown[]) {
    const entry = parseEntry(value);
    if (entry === null) throw new Error(`key number ${entries.length + 1} is damaged`);
    entries.push(entry);
  }
  return entries;
}

/** What `parseKeyFile` takes. */
export function formatKeyFile(entries: readonly KeyFileEntry[]): unknown {
  return { version: 1, keys: entries.map(({ hash, ...rest }) => ({ ...rest, sha256: hash.toString('hex') })) };
}

function parseEntry(value: unknown): KeyFileEntry | null {
  if (!isRecord(value) || !isRecord(value.limits)) return null;
  const { id, name, scopes, createdAt, expiresAt, revokedAt, sha256 } = value;
  const { tokensPerMinute, inFlight } = value.limits;
  if (typeof id !== 'string' || typeof name !== 'string' || !isStrings(scopes)) return null;
  if (typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256)) return null;
  if (typeof createdAt !== 'number' || !isNumberOrNull(expiresAt) || !isNumberOrNull(revokedAt)) return null;
  if (!isNumberOrNull(tokensPerMinute) || !isNumberOrNull(inFlight)) return null;
  const limits = { tokensPerMinute, inFlight };
  return { id, name, scopes, limits, createdAt, expiresAt, revokedAt, hash: Buffer.from(sha256, 'hex') };
}

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;
const isNumberOrNull = (value: unknown): value is number | null => value === null || typeof value === 'number';
const isStrings = (value: unknown): value is string[] =>
  Array.isArray(value) && value.every((item) => typeof item === 'string');
