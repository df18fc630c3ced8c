/** The fixed listen port: the wanted one when it is free, else the next free one. */
import { createServer } from 'node:net';
import { multiaddr } from '@multiformats/multiaddr';
import { MeshError } from '../common/errors.ts';
import { parseMultiaddr } from './address.ts';

/** How many ports after the wanted one are tried. */
const MAX_SHIFT = 20;

type Binding = 'free' | 'taken' | 'impossible';

/**
 * The addresses with their TCP ports moved up together by the smallest shift (at most 20) at which all are free. Addresses
 * that this machine cannot have (no IPv6) are dropped while another one is left. Port 0 stays 0.
 *
 * @throws MeshError `invalid_request` naming `--listen` for an address that is no `/ip4|ip6/…/tcp/N`, or when no port is free.
 */
export async function freeListenAddresses(wanted: readonly string[]): Promise<string[]> {
  for (let shift = 0; shift <= MAX_SHIFT; shift += 1) {
    const addresses = wanted.map((address) => shifted(address, shift));
    const bindings = await Promise.all(addresses.map(({ host, port }) => tryBind(host, port)));
    if (bindings.includes('taken')) continue;
    const possible = addresses.filter((_, index) => bindings[index] === 'free');
    if (possible.length > 0) return possible.map(({ text }) => text);
    throw listenError(
      `None of the listen addresses ${wanted.join(', ')} exists on this machine; name others with --listen.`,
    );
  }
  throw listenError(
    `The listen ports of ${wanted.join(', ')} and the ${MAX_SHIFT} after are taken; name another with --listen.`,
  );
}

const listenError = (message: string): MeshError => new MeshError('invalid_request', message, { param: 'listen' });

function shifted(text: string, shift: number): { text: string; host: string; port: number } {
  const components = parseMultiaddr(text)?.getComponents() ?? [];
  const [ip, tcp] = components;
  const literal = (ip?.name === 'ip4' || ip?.name === 'ip6') && tcp?.name === 'tcp' && components.length === 2;
  if (!literal || ip.value === undefined) {
    throw listenError(`The listen address ${text} is not of the form /ip4/ADDRESS/tcp/PORT; correct --listen.`);
  }
  const wantedPort = Number(tcp.value);
  const port = wantedPort === 0 ? 0 : wantedPort + shift;
  if (port > 65_535) throw listenError(`No free port after ${wantedPort}; name a lower one with --listen.`);
  return { text: multiaddr(`/${ip.name}/${ip.value}/tcp/${port}`).toString(), host: ip.value, port };
}

function tryBind(host: string, port: number): Promise<Binding> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => {
      resolve(error.code === 'EADDRINUSE' || error.code === 'EACCES' ? 'taken' : 'impossible');
    });
    server.listen({ host, port, ipv6Only: host.includes(':') }, () => server.close(() => resolve('free')));
  });
}
