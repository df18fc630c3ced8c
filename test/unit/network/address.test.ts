import assert from 'node:assert/strict';
import { test } from 'node:test';
import { peerIdFromString } from '@libp2p/peer-id';
import {
  dialableAddresses,
  fingerprintOf,
  isLocalAddress,
  parseMultiaddr,
  withFingerprint,
} from '../../../node/network/address.ts';
import { DialGate } from '../../../node/network/dial-gate.ts';
import fc from '../../support/fc.ts';

const FP = '12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp';
const local = (text: string): boolean => {
  const address = parseMultiaddr(text);
  return address !== null && isLocalAddress(address);
};

test('only literal private or loopback TCP addresses may be dialled on a stranger’s word', () => {
  const yes = [
    '/ip4/192.168.1.4/tcp/8643',
    '/ip4/10.0.0.1/tcp/1',
    '/ip4/100.64.0.3/tcp/8643',
    '/ip4/127.0.0.1/tcp/8643',
    '/ip6/::1/tcp/8643',
    `/ip6/fd00::1/tcp/8643/p2p/${FP}`,
  ];
  const no = [
    '/ip4/8.8.8.8/tcp/8643',
    '/ip6/2001:db8::1/tcp/8643',
    '/ip6/fe80::1/tcp/8643',
    '/dns4/router.local/tcp/80',
    '/dnsaddr/example.org',
    '/ip4/192.168.1.4/udp/8643',
    '/ip4/192.168.1.4/tcp/8643/ws',
    '/ip4/192.168.1.4/tcp/0',
    '/ip4/0.0.0.0/tcp/8643',
    `/ip4/192.168.1.4/tcp/8643/p2p/${FP}/p2p-circuit`,
    `/p2p/${FP}`,
    'nonsense',
    '',
  ];
  assert.deepEqual(
    yes.map(local),
    yes.map(() => true),
  );
  assert.deepEqual(
    no.map(local),
    no.map(() => false),
  );
});

test('addresses of an own subnet come first, and loopback only when there is nothing else', () => {
  const advertised = ['/ip4/127.0.0.1/tcp/1', '/ip4/172.17.0.1/tcp/1', '/ip4/192.168.1.9/tcp/1', '/ip4/1.1.1.1/tcp/1'];
  const subnets = [{ family: 'ipv4', cidr: '192.168.1.7/24' }] as const;
  assert.deepEqual(dialableAddresses(advertised, subnets), ['/ip4/192.168.1.9/tcp/1', '/ip4/172.17.0.1/tcp/1']);
  assert.deepEqual(dialableAddresses(['/ip4/127.0.0.1/tcp/1'], subnets), ['/ip4/127.0.0.1/tcp/1']);
  assert.deepEqual(dialableAddresses(advertised, subnets, 1), ['/ip4/192.168.1.9/tcp/1']);
});

test('any text is parsed or refused, never thrown upon', () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(fc.string(), fc.constant('/ip4/10.0.0.1/tcp/5'))), (texts) => {
      const addresses = dialableAddresses(texts, []);
      assert.ok(addresses.every((text) => text === '/ip4/10.0.0.1/tcp/5') && addresses.length <= 1);
    }),
  );
});

test('a fingerprint is added once', () => {
  const once = withFingerprint('/ip4/10.0.0.1/tcp/5', FP);
  assert.equal(once, `/ip4/10.0.0.1/tcp/5/p2p/${FP}`);
  assert.equal(withFingerprint(once, 'other'), once);
  const parsed = parseMultiaddr(once);
  assert.equal(parsed === null ? null : fingerprintOf(parsed), FP);
});

test('the gate lets a public address through only when the user named it', () => {
  const gate = new DialGate();
  const address = parseMultiaddr('/dns4/gpu.example.org/tcp/8643');
  assert.ok(address);
  assert.equal(gate.denyDialMultiaddr(address), true);
  gate.trust(address);
  assert.equal(gate.denyDialMultiaddr(address), false);
  assert.equal(gate.denyDialMultiaddr(address.encapsulate(`/p2p/${FP}`)), false);
});

test('the gate refuses identities that are not Ed25519, and dials that are not wished for', () => {
  const rsa = peerIdFromString('QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n');
  const ours = peerIdFromString(FP);
  const open = new DialGate();
  assert.deepEqual([open.denyDialPeer(rsa), open.denyInboundEncryptedConnection(rsa)], [true, true]);
  assert.deepEqual([open.denyDialPeer(ours), open.denyInboundEncryptedConnection(ours)], [false, false]);
  const closed = new DialGate({ mayDial: (fingerprint) => fingerprint !== FP });
  assert.equal(closed.denyDialPeer(ours), true);
  assert.equal(closed.denyOutboundEncryptedConnection(ours), true);
  assert.equal(closed.denyInboundEncryptedConnection(ours), false);
});
