/** What may connect, in either direction: libp2p asks it before every dial and after every handshake. */
import type { ConnectionGater, PeerId } from '@libp2p/interface';
import type { Multiaddr } from '@multiformats/multiaddr';
import { isLocalAddress, tcpAddress } from './address.ts';

export interface DialGateOptions {
  /** False keeps this node from dialling a peer, whoever asks for it: discovery, a lookup, the DHT itself. */
  mayDial?(fingerprint: string): boolean;
}

/**
 * The connection gater of a node. Only Ed25519 identities (others cost much more to check, and no meshnode has one); only
 * literal private or loopback TCP addresses, except those that the user named.
 */
export class DialGate implements ConnectionGater {
  readonly #mayDial: (fingerprint: string) => boolean;
  readonly #trusted = new Set<string>();

  constructor(options: DialGateOptions = {}) {
    this.#mayDial = options.mayDial?.bind(options) ?? (() => true);
  }

  /** Lets an address through that the user named, be it public or a host name. */
  trust(address: Multiaddr): void {
    this.#trusted.add(withoutPeer(address));
  }

  denyDialPeer = (peer: PeerId): boolean => peer.type !== 'Ed25519' || !this.#mayDial(peer.toString());

  denyDialMultiaddr = (address: Multiaddr): boolean =>
    !isLocalAddress(address) && !this.#trusted.has(withoutPeer(address));

  denyInboundEncryptedConnection = (peer: PeerId): boolean => peer.type !== 'Ed25519';

  denyOutboundEncryptedConnection = (peer: PeerId): boolean =>
    peer.type !== 'Ed25519' || !this.#mayDial(peer.toString());

  /** What the peer store keeps of what peers say about each other. */
  filterMultiaddrForPeer = (_peer: PeerId, address: Multiaddr): boolean =>
    tcpAddress(address) !== null && !this.denyDialMultiaddr(address);
}

function withoutPeer(address: Multiaddr): string {
  return address.toString().replace(/\/p2p\/[^/]+$/, '');
}
