import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../node/common/clock.ts';
import { lists, startTestNode, type TestNode } from '../support/swarm.ts';

const GAMMA = 'gamma-7b';

interface Outcome {
  readonly found: readonly string[];
  /** Whom provider records named during the lookup. */
  readonly named: readonly string[];
  readonly d: string;
  readonly listed: number;
}

/**
 * A and D both know B only: A has enough peers for its taste, so that hints are not dialled, and until the lookup it may
 * not dial D at all. What A finds then, it finds in the DHT.
 */
async function findAcross(dht: boolean): Promise<Outcome> {
  const nodes: TestNode[] = [];
  let apart = true;
  const start = async (options: Parameters<typeof startTestNode>[0]): Promise<TestNode> => {
    const node = await startTestNode({ ...options, dht });
    nodes.push(node);
    return node;
  };
  try {
    const b = await start({ name: 'b' });
    const d = await start({
      name: 'd',
      models: [GAMMA],
      peers: [b.address],
      targetPeers: 1,
      mayDial: (fingerprint) => !apart || fingerprint === b.fingerprint,
    });
    await lists(b, d.fingerprint, [GAMMA]);
    const a = await start({
      name: 'a',
      peers: [b.address],
      targetPeers: 1,
      mayDial: (fingerprint) => !apart || fingerprint === b.fingerprint,
    });
    await lists(a, b.fingerprint, []);
    await lists(b, a.fingerprint, []);
    if (dht) {
      await until(() => b.swarm.dht.heldRecords() > 0, 'the record of D at B');
      await until(() => a.swarm.dht.routingTableSize() > 0, 'B in the routing table of A');
    }
    assert.equal(a.swarm.isConnected(d.fingerprint), false);
    assert.equal(a.table.get(d.fingerprint), null);
    assert.deepEqual(a.index.holders(GAMMA), []);
    const named = recordProviders(a);
    apart = false;
    const found = await a.records.find(GAMMA, AbortSignal.timeout(20_000));
    return { found, named, d: d.fingerprint, listed: a.index.holders(GAMMA).length };
  } finally {
    await Promise.all(nodes.map((node) => node.stop()));
  }
}

/** Listens to what the DHT of a node answers. */
function recordProviders({ swarm }: TestNode): string[] {
  const named: string[] = [];
  const providers = swarm.dht.providers.bind(swarm.dht);
  swarm.dht.providers = async function* (...args) {
    for await (const provider of providers(...args)) {
      named.push(provider.fingerprint);
      yield provider;
    }
  };
  return named;
}

/** State of libp2p that has no event. */
async function until(condition: () => boolean, what: string): Promise<void> {
  const end = systemClock.now() + 20_000;
  while (!condition()) {
    if (systemClock.now() > end) throw new Error(`no ${what} within 20 s`);
    await new Promise((resolve) => systemClock.after(20, () => resolve(undefined)));
  }
}

test('a model of a node without connection is found by provider record and confirmed by that node', async () => {
  const { found, named, d, listed } = await findAcross(true);
  assert.deepEqual(named, [d]);
  assert.deepEqual(found, [d]);
  assert.equal(listed, 1);
});

test('with the DHT switched off the same lookup finds nothing', async () => {
  const { found, named, listed } = await findAcross(false);
  assert.deepEqual(named, []);
  assert.deepEqual(found, []);
  assert.equal(listed, 0);
});

test('a model that nobody has is found nowhere, and that is no error', async () => {
  const b = await startTestNode({ dht: true });
  const a = await startTestNode({ dht: true, peers: [b.address] });
  try {
    await lists(a, b.fingerprint, []);
    await until(() => a.swarm.dht.routingTableSize() > 0, 'B in the routing table of A');
    assert.deepEqual(await a.records.find('nobody-has-this', AbortSignal.timeout(20_000)), []);
  } finally {
    await Promise.all([a.stop(), b.stop()]);
  }
});
