/** Which multiaddrs of other nodes we may dial, and in what order. Addresses come from strangers: everything is checked. */
import { BlockList, isIP } from 'node:net';
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr';

/** A dialable transport address: a literal IP, a TCP port. */
export interface TcpAddress {
  readonly family: 'ipv4' | 'ipv6';
  readonly host: string;
  readonly port: number;
  /** From a trailing `/p2p/…`; null without one. */
  readonly fingerprint: string | null;
}

/** One subnet that this machine is on. `cidr` as `os.networkInterfaces()` gives it, for example `192.168.1.7/24`. */
export interface OwnSubnet {
  readonly family: 'ipv4' | 'ipv6';
  readonly cidr: string;
}

const subnetList = (...cidrs: readonly string[]): BlockList => {
  const list = new BlockList();
  for (const cidr of cidrs) {
    const [net = '', bits = ''] = cidr.split('/');
    list.addSubnet(net, Number(bits), isIP(net) === 6 ? 'ipv6' : 'ipv4');
  }
  return list;
};

const LOOPBACK = subnetList('127.0.0.0/8', '::1/128');
/** Private use, carrier-grade NAT (overlay networks live there), link-local IPv4, unique-local IPv6. */
const PRIVATE = subnetList(
  '10.0.0.0/8',
  '172.16.0.0/12',
  '192.168.0.0/16',
  '100.64.0.0/10',
  '169.254.0.0/16',
  'fc00::/7',
);

/** Longest multiaddr that is looked at, characters. */
const MAX_ADDRESS_LENGTH = 256;

/** Parses any text as a multiaddr; null when it is none. */
export function parseMultiaddr(text: string): Multiaddr | null {
  if (text.length > MAX_ADDRESS_LENGTH) return null;
  try {
    return multiaddr(text);
  } catch {
    return null;
  }
}

/** The fingerprint that a multiaddr ends in, null without one. */
export function fingerprintOf(address: Multiaddr): string | null {
  const last = address.getComponents().at(-1);
  return last?.name === 'p2p' ? (last.value ?? null) : null;
}

/** Adds `/p2p/<fingerprint>` where an address lacks it. */
export function withFingerprint(address: string, fingerprint: string): string {
  const parsed = parseMultiaddr(address);
  return parsed === null || fingerprintOf(parsed) !== null ? address : `${address}/p2p/${fingerprint}`;
}

/** Exactly `/ip4|ip6/…/tcp/N[/p2p/…]`, else null: no names to resolve, no relays, no other transports. */
export function tcpAddress(address: Multiaddr): TcpAddress | null {
  const [ip, tcp, p2p, ...rest] = address.getComponents();
  if (rest.length > 0 || ip?.value === undefined || tcp?.name !== 'tcp') return null;
  if (p2p !== undefined && p2p.name !== 'p2p') return null;
  if (ip.name !== 'ip4' && ip.name !== 'ip6') return null;
  const port = Number(tcp.value);
  if (!(port > 0)) return null;
  const family = ip.name === 'ip4' ? 'ipv4' : 'ipv6';
  return { family, host: ip.value, port, fingerprint: p2p?.value ?? null };
}

/** Loopback addresses lead to this machine, whoever advertised them. */
export function isLoopback({ host, family }: TcpAddress): boolean {
  return LOOPBACK.check(host, family);
}

/** Does the address lead to the machine that reads it? */
export function leadsHere(address: Multiaddr): boolean {
  const tcp = tcpAddress(address);
  return tcp !== null && isLoopback(tcp);
}

/** May an address that a stranger named be dialled? Only literal private or loopback IPs over TCP. */
export function isLocalAddress(address: Multiaddr): boolean {
  const tcp = tcpAddress(address);
  return tcp !== null && (isLoopback(tcp) || PRIVATE.check(tcp.host, tcp.family));
}

/**
 * The addresses worth dialling out of what a stranger advertised, best first, at most `limit`: those of a subnet we are
 * on, then other private ones. Loopback only when nothing else was advertised: on another machine it leads to ourselves.
 */
export function dialableAddresses(
  advertised: readonly string[],
  subnets: readonly OwnSubnet[],
  limit: number = 8,
): string[] {
  const near: string[] = [];
  const far: string[] = [];
  const loopback: string[] = [];
  for (const text of new Set(advertised.slice(0, 64))) {
    const address = parseMultiaddr(text);
    if (address === null || !isLocalAddress(address)) continue;
    const tcp = tcpAddress(address);
    if (tcp === null) continue;
    if (isLoopback(tcp)) loopback.push(text);
    else if (onOwnSubnet(tcp, subnets)) near.push(text);
    else far.push(text);
  }
  const routable = [...near, ...far];
  return (routable.length > 0 ? routable : loopback).slice(0, limit);
}

function onOwnSubnet({ host, family }: TcpAddress, subnets: readonly OwnSubnet[]): boolean {
  return subnets.some((subnet) => subnet.family === family && subnetList(subnet.cidr).check(host, family));
}
