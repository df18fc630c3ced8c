/** Several connections to one peer, of which some are dead without anybody having been told. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PeerBackend } from '../../node/backends/peer.ts';
import { systemClock } from '../../node/common/clock.ts';
import { MeshError } from '../../node/common/errors.ts';
import type { PeerStreams } from '../../node/network/peer-streams.ts';
import { PeerTable } from '../../node/network/peer-table.ts';
import { CATALOG_PROTOCOL, INFERENCE_PROTOCOL } from '../../protocols/protocol-id.ts';
import { libp2pPair } from '../support/libp2p-pair.ts';
import { freezableLink, lists, startTestNode, type TestNode } from '../support/swarm.ts';
import { askFor } from '../support/twin-mesh.ts';

/** Until the heartbeats of `peer`, on whichever connection, are the last thing heard: two of them. */
async function heartbeats(node: TestNode, peer: TestNode): Promise<void> {
  for (let beats = 0; beats < 2; beats++) {
    await new Promise<void>((resolve) => {
      const unsubscribe = node.table.onChange((change) => {
        if (change.kind !== 'load' || change.peer.fingerprint !== peer.fingerprint) return;
        unsubscribe();
        resolve();
      });
    });
  }
}

/** Two nodes, the newest of whose connections has just fallen silent. */
async function withSilentNewest(run: (a: TestNode, b: TestNode) => Promise<void>): Promise<void> {
  const a = await startTestNode({ models: ['alpha'] });
  const link = await freezableLink(a);
  const b = await startTestNode({ peers: [a.address] });
  try {
    await lists(b, a.fingerprint, ['alpha']);
    await b.swarm.dial(link.address, undefined, { force: true });
    link.freeze();
    await run(a, b);
  } finally {
    link.close();
    await Promise.all([a.stop(), b.stop()]);
  }
}

test('a stream opens on the connection that lives, not on a newer one that fell silent', async () => {
  await withSilentNewest(async (a, b) => {
    await heartbeats(b, a);
    const stream = await b.swarm.openStream(a.fingerprint, CATALOG_PROTOCOL, AbortSignal.timeout(450));
    stream.abort(new Error('enough'));
  });
});

test('when the newest connection dies before anything was heard on another, the stream opens on that one a little later', async () => {
  await withSilentNewest(async (a, b) => {
    const stream = await b.swarm.openStream(a.fingerprint, CATALOG_PROTOCOL);
    stream.abort(new Error('enough'));
  });
});

test('when all connections fell silent a new one is made for the stream', async () => {
  const a = await startTestNode({ models: ['alpha'] });
  const link = await freezableLink(a);
  let mayDial = true;
  const b = await startTestNode({ peers: [link.address], mayDial: () => mayDial });
  try {
    await lists(b, a.fingerprint, ['alpha']);
    // The dialer, which would make one too, is not to come first.
    mayDial = false;
    link.freeze();
    const silent = new Promise<void>((resolve) => {
      b.table.onChange(({ peer }) => peer.status === 'suspect' && resolve());
    });
    await silent;
    mayDial = true;
    const stream = await b.swarm.openStream(a.fingerprint, CATALOG_PROTOCOL);
    stream.abort(new Error('enough'));
  } finally {
    link.close();
    await Promise.all([a.stop(), b.stop()]);
  }
});

test('once a kept stream turns out to be dead, the others of that peer are given up before the next is asked for', async () => {
  const pair = await libp2pPair({ [INFERENCE_PROTOCOL]: async () => {} });
  try {
    const dead = await pair.open(INFERENCE_PROTOCOL);
    dead.abort(new Error('cut'));
    const calls: string[] = [];
    const streams = {
      acquire: async () => {
        calls.push('acquire');
        if (calls.length === 1) return { stream: dead, fresh: false };
        throw new MeshError('peer_unreachable', 'gone');
      },
      drop: () => calls.push('drop'),
    } as unknown as PeerStreams;
    const backend = new PeerBackend({ streams, peers: new PeerTable(), clock: systemClock }, 'peer');
    const answer = backend.infer(askFor(1), { signal: new AbortController().signal });
    await assert.rejects(answer.next(), { code: 'peer_unreachable' });
    assert.deepEqual(calls, ['acquire', 'drop', 'acquire']);
  } finally {
    await pair.stop();
  }
});
