/** The subnets this machine is on now: what mDNS and the order of dials depend on. */
import { networkInterfaces } from 'node:os';
import type { OwnSubnet } from './address.ts';

/** Subnets of all interfaces that are up, loopback and link-local IPv6 left out. */
export function ownSubnets(): OwnSubnet[] {
  const subnets: OwnSubnet[] = [];
  for (const addresses of Object.values(networkInterfaces())) {
    for (const address of addresses ?? []) {
      if (address.internal || address.cidr === null || address.address.startsWith('fe80:')) continue;
      subnets.push({ family: address.family === 'IPv4' ? 'ipv4' : 'ipv6', cidr: address.cidr });
    }
  }
  return subnets;
}

/** One text for the present interfaces; it differs when a link, an address or a device changed. */
export function interfacesKey(): string {
  const parts: string[] = [];
  for (const [name, addresses] of Object.entries(networkInterfaces())) {
    for (const { address, mac } of addresses ?? []) parts.push(`${name} ${address} ${mac}`);
  }
  return parts.sort().join('\n');
}
