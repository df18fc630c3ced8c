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
  /** Where the page is that asks, as far as its browser tells. Default: it does not. */
  readonly referer?: string | null;
  /** Is the route one that asks for no key? Default no. */
  readonly isKeyless?: boolean;
}

/** Whom to let in; built once the port is known. */
export interface GuardRules {
  /** Exact `Host` values, lower case. */
  readonly hosts: ReadonlySet<string>;
  /** Names under which only routes without a key answer: the whole facade would stand open to wherever they lead. */
  readonly keylessHosts: ReadonlySet<string>;
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
  /** Where remote functions push to, `name` or `name:port`. It opens all routes only where a key is asked for. */
  readonly callbackHost?: string | null;
}): GuardRules {
  const hosts = new Set<string>();
  const bound = options.host.includes(':') && !options.host.startsWith('[') ? `[${options.host}]` : options.host;
  const names = WILDCARD_ADDRESSES.has(options.host) ? LOOPBACK_NAMES : [...LOOPBACK_NAMES, bound.toLowerCase()];
  for (const name of names) {
    hosts.add(`${name}:${options.port}`);
    if (options.port === 80) hosts.add(name);
  }
  const callbackHosts = options.callbackHost ? namesOf(options.callbackHost, options.port) : [];
  const allowed = options.allowHosts.flatMap((entry) => namesOf(entry, options.port));
  for (const name of [...allowed, ...(options.apiKey === null ? [] : callbackHosts)]) hosts.add(name);
  return {
    hosts,
    keylessHosts: new Set(callbackHosts),
    allowedOrigins: new Set(options.allowOrigins.map((origin) => origin.toLowerCase().replace(/\/$/, ''))),
    ownOrigins: new Set([...hosts].map((host) => `http://${host}`)),
    keyDigest: options.apiKey === null ? null : digest(options.apiKey),
  };
}

/** A bare name was allowed on purpose: with our port (direct) and without (behind a proxy). */
function namesOf(entry: string, port: number): string[] {
  const name = entry.toLowerCase();
  return /:\d+$/.test(name) ? [name] : [name, `${name}:${port}`];
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
  if (request.hosts.length !== 1 || host === undefined || !isOurs(host, request, rules)) {
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

function isOurs(host: string, { isKeyless = false }: RequestFacts, rules: GuardRules): boolean {
  return rules.hosts.has(host) || (isKeyless && rules.keylessHosts.has(host));
}

/**
 * The verdict on a request that changes something and that any page may send without a preflight: a form, or a POST of
 * nothing. `refusal` has seen what `Origin` says; some browsers send none, so that whatever else they tell counts too.
 */
export function pageRefusal(
  { origins, secFetchSite, referer = null }: RequestFacts,
  rules: GuardRules,
): MeshError | null {
  const page = referer === null ? null : (URL.parse(referer)?.origin ?? 'null');
  const isKnown = (origin: string): boolean => rules.allowedOrigins.has(origin) || rules.ownOrigins.has(origin);
  const isElsewhere = secFetchSite !== null && secFetchSite !== 'same-origin' && secFetchSite !== 'none';
  if (origins.length > 0 || (!isElsewhere && (page === null || isKnown(page)))) return null;
  return new MeshError('forbidden', 'Pages of other origins may not send this. Allow one with --allow-origin URL.');
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
  return encodingRefusal(contentEncoding);
}

/** The verdict on a body that may be compressed: nothing here is unpacked. */
export function encodingRefusal(contentEncoding: string | null): MeshError | null {
  if (contentEncoding === null || contentEncoding.toLowerCase() === 'identity') return null;
  return new MeshError('unsupported_media_type', 'Send the body without a Content-Encoding.');
}

function digest(secret: string): Buffer {
  return createHash('sha256').update(secret).digest();
}
