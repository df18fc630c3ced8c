/** Which addresses the owner of a node may register as remote nodes, and how far away each is taken to be. */
import { BlockList, isIP } from 'node:net';
import type { Boundary } from '../../protocols/inference/events.ts';
import { MeshError } from '../common/errors.ts';

const MAX_URL_LENGTH = 2048;

/** Link-local networks and the addresses at which clouds hand out credentials: never a model server. */
const FORBIDDEN = blockList(
  ['169.254.0.0/16', '100.100.100.200/32', '192.0.0.192/32', '0.0.0.0/32', '224.0.0.0/4', '255.255.255.255/32'],
  ['fe80::/10', 'fd00:ec2::254/128', 'fd20:ce::254/128', '64:ff9b::a9fe:0/112', '::/128', 'ff00::/8'].concat(
    // Older ways to write an IPv4 address as an IPv6 one: 6to4, compatible, translated.
    ['2002:a9fe::/32', '::a9fe:0/112', '::ffff:0:a9fe:0/112'],
  ),
);
const FORBIDDEN_NAMES = new Set(['metadata', 'metadata.google.internal', 'metadata.goog', 'instance-data']);
const NEARBY = blockList(
  ['127.0.0.0/8', '10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10'],
  ['::1/128', 'fc00::/7'],
);
/** Endings that public DNS never resolves. */
const NEARBY_NAME = /^[^.]+$|\.(local|lan|home|internal|localhost|home\.arpa)$/;

/** May a connection go to this literal IP address? Asked again for what a name resolves to. */
export function isForbiddenAddress(address: string): boolean {
  return isListed(FORBIDDEN, address);
}

/**
 * The URL as it is kept: without trailing slash and without `/v1`.
 *
 * @throws MeshError `invalid_request` with a sentence that says what is wrong; it never quotes credentials.
 */
export function parseNodeUrl(text: string): URL {
  const refuse = (problem: string): never => {
    throw new MeshError('invalid_request', `${problem}: give a URL such as http://192.168.1.20:8000`, { param: 'url' });
  };
  if (text.length > MAX_URL_LENGTH) refuse(`The URL is longer than ${MAX_URL_LENGTH} characters`);
  const url = URL.parse(text.trim());
  if (url === null) return refuse('This is no URL');
  if (url.protocol !== 'http:' && url.protocol !== 'https:') refuse('Only http and https URLs can be registered');
  if (url.username !== '' || url.password !== '') refuse('A URL must not hold credentials; keys are given on stdin');
  if (url.search !== '' || url.hash !== '') refuse('A URL of a node has neither a query nor a fragment');
  const host = hostOf(url);
  if (isForbiddenAddress(host) || FORBIDDEN_NAMES.has(host)) {
    refuse(`${host} is a link-local, multicast or metadata address`);
  }
  url.pathname = url.pathname.replace(/\/+$/, '').replace(/\/v1$/, '');
  return url;
}

/**
 * Where a status manifest is: as `parseNodeUrl`, but any path and query.
 *
 * @throws MeshError `invalid_request`; never quotes credentials.
 */
export function parseManifestUrl(text: string): URL {
  const url = URL.parse(text.trim());
  if (url === null) throw new MeshError('invalid_request', 'A manifest is a file or a URL', { param: 'manifest' });
  const place = parseNodeUrl(`${url.protocol}//${authorityOf(url)}`);
  place.pathname = url.pathname;
  place.search = url.search;
  return place;
}

/** `mesh` for loopback, private networks and names that only a local network resolves; otherwise `public`. */
export function boundaryOf(url: URL): Boundary {
  const host = hostOf(url);
  const isNear = isIP(host) === 0 ? NEARBY_NAME.test(host) : isNearbyAddress(host);
  return isNear ? 'mesh' : 'public';
}

/** Is this literal IP address on loopback or in a private network? */
export function isNearbyAddress(address: string): boolean {
  return isListed(NEARBY, address);
}

const authorityOf = ({ username, password, host }: URL): string =>
  username === '' && password === '' ? host : `x:x@${host}`;

/** Without the brackets of IPv6 and the dot of a full name. */
export function hostOf(url: URL): string {
  return url.hostname.replace(/^\[|\]$/g, '').replace(/\.$/, '');
}

function isListed(list: BlockList, scoped: string): boolean {
  const address = scoped.replace(/%.*$/, '');
  const family = isIP(address);
  if (family === 0) return false;
  // BlockList sees through IPv4-mapped IPv6 addresses.
  return list.check(address, family === 4 ? 'ipv4' : 'ipv6');
}

function blockList(ipv4: readonly string[], ipv6: readonly string[]): BlockList {
  const list = new BlockList();
  const add = (subnet: string, family: 'ipv4' | 'ipv6'): void => {
    const [network = '', bits = ''] = subnet.split('/');
    list.addSubnet(network, Number(bits), family);
  };
  for (const subnet of ipv4) add(subnet, 'ipv4');
  for (const subnet of ipv6) add(subnet, 'ipv6');
  return list;
}
