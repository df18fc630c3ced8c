/** Checks the signature of one request: written from the published scheme, shares nothing with the node's signer. */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { Problem } from './problem.ts';

export interface Keypair {
  readonly accessKey: string;
  readonly secretKey: string;
  /** Calls that the key may not make, as the first part of their path. Default: none. */
  readonly forbids?: readonly string[];
}

const MAX_SKEW_MS = 15 * 60_000;
const SHAPE = /^BackendAI signMethod=([A-Za-z0-9-]+), ?credential=([^:\s]+):([0-9a-f]{64})$/;

const unreadable = (msg: string): Problem =>
  new Problem(400, 'invalid-auth-params', 'Missing or invalid authorization parameters.', msg);
const refused = (msg: string): Problem => new Problem(401, 'auth-failed', 'Credential/signature mismatch.', msg);

/**
 * Whose request it is.
 *
 * @throws Problem: 400 for headers that cannot be read, 401 for an unknown key or a wrong signature, `skewStatus` for a
 *   clock that is off by more than 15 minutes.
 */
export function verified(
  request: IncomingMessage,
  known: ReadonlyMap<string, Keypair>,
  { nowMs, skewStatus }: { readonly nowMs: number; readonly skewStatus: 400 | 401 },
): Keypair {
  const { headers, method = '', url = '' } = request;
  const [, algorithm, accessKey = '', signature = ''] = SHAPE.exec(headers.authorization ?? '') ?? [];
  if (algorithm === undefined) throw unreadable('the Authorization header is missing or malformed');
  if (algorithm !== 'HMAC-SHA256') throw unreadable(`unsupported signature method ${algorithm}`);
  // As the real manager: a Date header beats the one of its own.
  const date = headers.date ?? one(headers['x-backendai-date']);
  const version = one(headers['x-backendai-version']);
  const at = Date.parse(date);
  if (Number.isNaN(at)) throw unreadable('the date is missing or malformed');
  if (!/^v\d+\.\d{8}$/.test(version)) throw unreadable('X-BackendAI-Version is missing or malformed');
  if (headers.host === undefined) throw unreadable('Host is missing');
  if (Math.abs(nowMs - at) > MAX_SKEW_MS) {
    throw new Problem(
      skewStatus,
      'invalid-auth-params',
      'Date/time sync error.',
      'the clocks differ by over 15 minutes',
    );
  }
  const keypair = known.get(accessKey);
  if (keypair === undefined) throw refused('Access key not found');
  const type = (headers['content-type'] ?? '').split(';')[0]?.trim() ?? '';
  const said = [
    method,
    url,
    date,
    `host:${headers.host}`,
    `content-type:${type}`,
    `x-backendai-version:${version}`,
    createHash('sha256').update('').digest('hex'),
  ].join('\n');
  const day = new Date(at).toISOString().slice(0, 10).replaceAll('-', '');
  const dayKey = createHmac('sha256', Buffer.from(keypair.secretKey, 'utf8')).update(day).digest();
  const hostKey = createHmac('sha256', dayKey).update(headers.host).digest();
  const expected = createHmac('sha256', hostKey).update(said, 'utf8').digest();
  if (!timingSafeEqual(expected, Buffer.from(signature, 'hex'))) throw refused('Signature mismatch');
  const [, first = ''] = url.split(/[/?]/);
  if (keypair.forbids?.includes(first) === true) {
    throw new Problem(
      403,
      'generic-forbidden',
      'You are not allowed to do this.',
      `the key has no access to /${first}`,
    );
  }
  return keypair;
}

const one = (value: string | string[] | undefined): string => (Array.isArray(value) ? (value[0] ?? '') : (value ?? ''));
