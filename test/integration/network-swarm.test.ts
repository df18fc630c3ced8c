import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { after, test } from 'node:test';
import type { Stream } from '@libp2p/interface';
import { MeshError } from '../../node/common/errors.ts';
import { INFERENCE_PROTOCOL } from '../../protocols/protocol-id.ts';
import {
  freezableLink,
  lists,
  peerBecomes,
  startTestNode,
  type TestNode,
  type TestNodeOptions,
} from '../support/swarm.ts';

const rejections: unknown[] = [];
process.on('unhandledRejection', (reason) => rejections.push(reason));
after(() => assert.deepEqual(rejections, []));

/** Runs with nodes that are stopped whatever happens. */
async function withNodes(
  body: (start: (options?: TestNodeOptions) => Promise<TestNode>) => Promise<void>,
): Promise<void> {
  const nodes: TestNode[] = [];
  try {
    await body(async (options) => {
      const node = await startTestNode(options);
      nodes.push(node);
      return node;
    });
  } finally {
    await Promise.all(nodes.map((node) => node.stop()));
  }
}

const ids = (node: TestNode): string[] => node.index.models().map(({ entry }) => entry.id);

test('two nodes joined by one address list each other’s models', async () => {
  await withNodes(async (start) => {
    const a = await start({ name: 'a', models: ['alpha'] });
    const b = await start({ name: 'b', models: ['beta'], peers: [a.address] });
    const seenByA = await lists(a, b.fingerprint, ['beta']);
    await lists(b, a.fingerprint, ['alpha']);
    assert.equal(seenByA.name, 'b');
    assert.equal(a.index.holders('beta')[0]?.fingerprint, b.fingerprint);
    assert.deepEqual(a.index.holders('alpha'), []);
    const measured = await peerBecomes(a, b.fingerprint, ({ latencyMs, load }) => latencyMs !== null && load !== null);
    assert.equal(measured.load?.draining, false);
    assert.ok((await peerBecomes(a, b.fingerprint, ({ addresses }) => addresses.length > 0)).addresses.length > 0);
  });
});

test('a peer that the user named by host name, without its fingerprint, is joined', async () => {
  await withNodes(async (start) => {
    const a = await start({ models: ['alpha'] });
    const b = await start({ peers: [`/dns4/localhost/tcp/${a.swarm.listenPort}`] });
    await lists(b, a.fingerprint, ['alpha']);
  });
});

test('a node that is started before the peer it was told of joins once that is there', async () => {
  await withNodes(async (start) => {
    const early = await start({ models: ['alpha'] });
    const port = early.swarm.listenPort;
    await early.kill();
    const b = await start({ peers: [`/ip4/127.0.0.1/tcp/${port}`] });
    const a = await start({ models: ['alpha'], listen: [`/ip4/127.0.0.1/tcp/${port}`] });
    await lists(b, a.fingerprint, ['alpha']);
  });
});

test('five nodes that start together at one address all list one another', async () => {
  await withNodes(async (start) => {
    const first = await start({ models: ['m0'] });
    const others = await Promise.all([1, 2, 3, 4].map((i) => start({ models: [`m${i}`], peers: [first.address] })));
    const all = [first, ...others];
    for (const [i, node] of all.entries()) {
      for (const [j, other] of all.entries()) if (i !== j) await lists(node, other.fingerprint, [`m${j}`]);
    }
    assert.deepEqual(ids(first).sort(), ['m1', 'm2', 'm3', 'm4']);
  });
});

test('a changed catalog is seen by the peers', async () => {
  await withNodes(async (start) => {
    const a = await start({ models: ['one', 'two'] });
    const b = await start({ peers: [a.address] });
    await lists(b, a.fingerprint, ['one', 'two']);
    a.serve(['two', 'three']);
    await lists(b, a.fingerprint, ['two', 'three']);
    assert.deepEqual(ids(b).sort(), ['three', 'two']);
  });
});

test('a goodbye removes a node’s models and names the reason', async () => {
  await withNodes(async (start) => {
    const a = await start({ models: ['alpha'] });
    const b = await start({ peers: [a.address] });
    await lists(b, a.fingerprint, ['alpha']);
    const reasons: (string | undefined)[] = [];
    b.table.onChange(({ kind, reason }) => kind === 'down' && reasons.push(reason));
    await a.exchange.goodbye();
    await peerBecomes(b, a.fingerprint, ({ status }) => status === 'offline');
    assert.deepEqual(reasons, ['goodbye']);
    assert.deepEqual(ids(b), []);
    assert.equal(b.table.get(a.fingerprint)?.name, 'node');
  });
});

test('a node that ends without a goodbye is lost, and its successor with a later epoch replaces it', async () => {
  await withNodes(async (start) => {
    const a = await start({ models: ['old'], epoch: 1 });
    const b = await start({ peers: [a.address] });
    await lists(b, a.fingerprint, ['old']);
    const port = a.swarm.listenPort;
    await a.kill();
    const gone = await peerBecomes(b, a.fingerprint, ({ status }) => status === 'offline');
    assert.deepEqual(gone.models, []);
    const successor = await start({
      models: ['new'],
      epoch: 2,
      privateKey: a.privateKey,
      listen: [`/ip4/127.0.0.1/tcp/${port}`],
    });
    assert.equal(successor.fingerprint, a.fingerprint);
    const back = await lists(b, a.fingerprint, ['new']);
    assert.equal(back.epoch, 2);
  });
});

test('a peer whose heartbeats stop becomes suspect, then offline on an open connection, and comes back with them', async () => {
  await withNodes(async (start) => {
    const a = await start({ models: ['alpha'], mayDial: () => false });
    const link = await freezableLink(a);
    let frozen = false;
    // No second connection around the frozen link.
    const b = await start({ peers: [link.address], mayDial: () => !frozen });
    try {
      await lists(b, a.fingerprint, ['alpha']);
      const seen: string[] = [];
      b.table.onChange(({ kind, peer }) => kind !== 'load' && seen.push(`${kind} ${peer.status}`));
      frozen = true;
      link.freeze();
      await peerBecomes(b, a.fingerprint, ({ status }) => status === 'offline');
      assert.deepEqual(seen, ['status suspect', 'down offline']);
      assert.ok(b.swarm.isConnected(a.fingerprint));
      assert.ok(b.exchange.isSilent(a.fingerprint));
      assert.deepEqual(ids(b), []);
      link.thaw();
      await lists(b, a.fingerprint, ['alpha']);
      assert.equal(seen.at(-1), 'up online');
      assert.equal(b.exchange.isSilent(a.fingerprint), false);
    } finally {
      link.close();
    }
  });
});

test('a peer on a dead connection is reached again over a new one', async () => {
  await withNodes(async (start) => {
    const a = await start({ models: ['alpha'] });
    const link = await freezableLink(a);
    const b = await start({ peers: [link.address] });
    try {
      await lists(b, a.fingerprint, ['alpha']);
      link.freeze();
      await peerBecomes(b, a.fingerprint, ({ status }) => status === 'offline');
      await lists(b, a.fingerprint, ['alpha']);
      await lists(a, b.fingerprint, []);
    } finally {
      link.close();
    }
  });
});

test('a node learns of a third one from a peer’s hints', async () => {
  await withNodes(async (start) => {
    const b = await start({ name: 'b' });
    const c = await start({ name: 'c', models: ['gamma'], peers: [b.address] });
    await lists(b, c.fingerprint, ['gamma']);
    const a = await start({ name: 'a', peers: [b.address] });
    await lists(a, c.fingerprint, ['gamma']);
  });
});

test('a node that is there already learns of a newcomer from a peer’s hints', async () => {
  await withNodes(async (start) => {
    const b = await start({ name: 'b' });
    const a = await start({ name: 'a', peers: [b.address] });
    await lists(a, b.fingerprint, []);
    // The newcomer itself dials nobody but B: it is A that follows the hint.
    const c = await start({
      name: 'c',
      models: ['gamma'],
      peers: [b.address],
      mayDial: (fingerprint) => fingerprint === b.fingerprint,
    });
    await lists(a, c.fingerprint, ['gamma']);
  });
});

test('hints are not followed by a node that has peers enough', async () => {
  await withNodes(async (start) => {
    const b = await start({ name: 'b' });
    const onlyB = (fingerprint: string): boolean => fingerprint === b.fingerprint;
    const a = await start({ name: 'a', peers: [b.address], targetPeers: 1 });
    await lists(a, b.fingerprint, []);
    const c = await start({ name: 'c', models: ['one'], peers: [b.address], mayDial: onlyB });
    await lists(b, c.fingerprint, ['one']);
    const hinted = new Promise<void>((resolve) => {
      const hints = a.discovery.hints.bind(a.discovery);
      a.discovery.hints = (addresses) => {
        hints(addresses);
        if (addresses.some((address) => address.endsWith(c.fingerprint))) resolve();
      };
    });
    // Any change of B's hints says them all again.
    const d = await start({ name: 'd', peers: [b.address], mayDial: onlyB });
    await lists(b, d.fingerprint, []);
    await hinted;
    assert.deepEqual(a.swarm.connected(), [b.fingerprint]);
  });
});

test('after its goodbye a node says nothing to peers that connect', async () => {
  await withNodes(async (start) => {
    const a = await start({ models: ['alpha'] });
    await a.exchange.goodbye();
    const b = await start({ models: ['beta'], peers: [a.address] });
    await lists(a, b.fingerprint, ['beta']);
    assert.equal(b.table.get(a.fingerprint), null);
  });
});

test('a peer that may not be dialled is not dialled, whoever names it', async () => {
  await withNodes(async (start) => {
    const c = await start({ models: ['gamma'] });
    const a = await start({ mayDial: (fingerprint) => fingerprint !== c.fingerprint });
    await assert.rejects(a.swarm.dial(c.address), { code: 'peer_unreachable' });
    assert.equal(a.swarm.isConnected(c.fingerprint), false);
  });
});

test('a taken listen port moves on to the next free one', async () => {
  const blocker = createServer();
  blocker.listen(0, '127.0.0.1');
  await once(blocker, 'listening');
  const address = blocker.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  try {
    await withNodes(async (start) => {
      const node = await start({ listen: [`/ip4/127.0.0.1/tcp/${port}`] });
      const got = node.swarm.listenPort ?? 0;
      assert.ok(got > port && got <= port + 20, `${got} after ${port}`);
      assert.match(node.address, new RegExp(`/tcp/${got}/p2p/${node.fingerprint}$`));
    });
  } finally {
    blocker.close();
  }
});

test('a handler that fails resets its stream and nothing else', async () => {
  await withNodes(async (start) => {
    const failing = new Map([[INFERENCE_PROTOCOL, () => Promise.reject(new Error('broken handler'))]]);
    const a = await start({ models: ['alpha'], handlers: failing });
    const b = await start({ peers: [a.address] });
    await lists(b, a.fingerprint, ['alpha']);
    // The reset may come before the stream is even handed out.
    const stream = await b.swarm.openStream(a.fingerprint, INFERENCE_PROTOCOL).catch((error: unknown) => {
      assert.equal(error instanceof MeshError && error.code, 'peer_unreachable');
      return null;
    });
    if (stream?.status === 'open') await once(stream, 'close');
    assert.ok(b.swarm.isConnected(a.fingerprint));
    await lists(b, a.fingerprint, ['alpha']);
  });
});

test('a stream that was handed back carries the next request, and a lost peer empties the pool', async () => {
  await withNodes(async (start) => {
    const held: Stream[] = [];
    const keeping = new Map([[INFERENCE_PROTOCOL, async (stream: Stream) => void held.push(stream)]]);
    const a = await start({ handlers: keeping });
    const b = await start({ peers: [a.address] });
    await lists(b, a.fingerprint, []);
    const signal = AbortSignal.timeout(10_000);
    const first = await b.streams.acquire(a.fingerprint, signal);
    assert.equal(first.fresh, true);
    first.release?.();
    assert.equal(b.streams.idle(a.fingerprint), 1);
    const second = await b.streams.acquire(a.fingerprint, signal);
    assert.equal(second.fresh, false);
    assert.equal(second.stream, first.stream);
    second.release?.();
    b.swarm.disconnect(a.fingerprint);
    await peerBecomes(b, a.fingerprint, ({ status }) => status === 'offline');
    assert.equal(b.streams.idle(a.fingerprint), 0);
  });
});

test('a stream to a peer of which nothing is known fails as peer_unreachable', async () => {
  await withNodes(async (start) => {
    const a = await start();
    const stranger = await start();
    await assert.rejects(a.streams.acquire(stranger.fingerprint, AbortSignal.timeout(10_000)), {
      code: 'peer_unreachable',
    });
  });
});
