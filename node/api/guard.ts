/**
 * May this request be looked at? Web pages can reach localhost, so every request must prove by its headers that it was
 * meant for this node: an exact `Host`, no foreign `Origin`, a content type that a page cannot send without asking.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { MeshError } from '../common/errors.ts';

/** The headers that decide, each with every value that was sent. */
export interface RequestFacts {
  /** Request target as it came. */
  readonly url: string;
  readonly hosts: readonly string[];
  readonly origins: readonly string[];
  readonly secFetchSite: string | null;
  readonly authorization: string | null;
}

/** Whom to let in; built once the port is known. */
export interface GuardRules {
  /** Exact `Host` values, lower case. */
  readonly hosts: ReadonlySet<string>;
  /** Exact `Origin` values that the owner allowed: these get CORS headers. */
  readonly allowedOrigins: ReadonlySet<string>;
  /** Our own pages: an `Origin` of one of our own names. */
  readonly ownOrigins: ReadonlySet<string>;
  /** sha256 of the bearer key, or null when none is asked for. */
  readonly keyDigest: Buffer | null;
}

const LOOPBACK_NAMES = ['localhost', '127.0.0.1', '[::1]'];
const WILDCARD_ADDRESSES = new Set(['0.0.0.0', '::', '[::]']);
const JSON_TYPE = /^application\/json(?:; ?charset=(?:utf-8|"utf-8"))?$/i;
const OPEN_PATHS = new Set(['/', '/health']);

/** The rules for a facade that listens on `port`. */
export function guardRules(options: {
  readonly host: string;
  readonly port: number;
  readonly apiKey: string | null;
  readonly allowHosts: readonly string[];
  readonly allowOrigins: readonly string[];
}): GuardRules {
  const hosts = new Set<string>();
  const bound = options.host.includes(':') && !options.host.startsWith('[') ? `[${options.host}]` : options.host;
  const names = WILDCARD_ADDRESSES.has(options.host) ? LOOPBACK_NAMES : [...LOOPBACK_NAMES, bound.toLowerCase()];
  for (const name of names) {
    hosts.add(`${name}:${options.port}`);
    if (options.port === 80) hosts.add(name);
  }
  for (const entry of options.allowHosts) {
    const name = entry.toLowerCase();
    hosts.add(name);
    // A bare name was allowed on purpose: with our port (direct) and without (behind a proxy).
    if (!/:\d+$/.test(name)) hosts.add(`${name}:${options.port}`);
  }
  return {
    hosts,
    allowedOrigins: new Set(options.allowOrigins.map((origin) => origin.toLowerCase().replace(/\/$/, ''))),
    ownOrigins: new Set([...hosts].map((host) => `http://${host}`)),
    keyDigest: options.apiKey === null ? null : digest(options.apiKey),
  };
}

/**
 * The verdict on who asks and from where: null to let it in.
 * An allowed origin may be cross-site; everything else that a browser marks so is refused.
 */
export function refusal(request: RequestFacts, rules: GuardRules): MeshError | null {
  if (!request.url.startsWith('/') && request.url !== '*') {
    return new MeshError('forbidden', 'Send the path only in the request line: this node is not a proxy.');
  }
  const host = request.hosts[0]?.toLowerCase();
  if (request.hosts.length !== 1 || host === undefined || !rules.hosts.has(host)) {
    return new MeshError('forbidden', 'The Host header does not name this node. Allow a name with --allow-host NAME.');
  }
  const origin = request.origins[0]?.toLowerCase();
  const allowed = origin !== undefined && rules.allowedOrigins.has(origin);
  if (request.origins.length > 1 || (origin !== undefined && !allowed && !rules.ownOrigins.has(origin))) {
    return new MeshError(
      'forbidden',
      'Web pages of this origin may not use the node. Allow it with --allow-origin URL.',
    );
  }
  if (request.secFetchSite === 'cross-site' && !allowed) {
    return new MeshError('forbidden', 'Other web sites may not use the node. Allow one with --allow-origin URL.');
  }
  return null;
}

/** The verdict on the key, in constant time; `/` and `/health` are open. */
export function keyRefusal(request: RequestFacts, rules: GuardRules): MeshError | null {
  const path = request.url.split('?', 1)[0] ?? '';
  if (rules.keyDigest === null || OPEN_PATHS.has(path)) return null;
  const given = /^Bearer +(\S+)$/i.exec(request.authorization ?? '')?.[1];
  if (given !== undefined && timingSafeEqual(digest(given), rules.keyDigest)) return null;
  return new MeshError('unauthorized', 'This node asks for its API key: send "Authorization: Bearer KEY".');
}

/** The verdict on a body's declared form: anything but plain JSON could be sent by a page without a preflight. */
export function bodyRefusal(contentTypes: readonly string[], contentEncoding: string | null): MeshError | null {
  if (contentTypes.length !== 1 || !JSON_TYPE.test(contentTypes[0] ?? '')) {
    return new MeshError('unsupported_media_type', 'Send the body as "Content-Type: application/json".');
  }
  if (contentEncoding !== null && contentEncoding.toLowerCase() !== 'identity') {
    return new MeshError('unsupported_media_type', 'Send the body without a Content-Encoding.');
  }
  return null;
}

function digest(secret: string): Buffer {
  return createHash('sha256').update(secret).digest();
}
