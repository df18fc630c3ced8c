import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Stream } from '@libp2p/interface';
import { systemClock } from '../../node/common/clock.ts';
import type { MeshError } from '../../node/common/errors.ts';
import type { CatalogEntry, NodeHello } from '../../protocols/catalog/catalog.ts';
import { CatalogPublisher, type CatalogPublisherOptions } from '../../protocols/catalog/client.ts';
import { encodeDelta, encodeHello, encodeSnapshot } from '../../protocols/catalog/messages.ts';
import { type CatalogServerLimits, type CatalogSink, serveCatalog } from '../../protocols/catalog/server.ts';
import { encodeFrames } from '../../protocols/framing.ts';
import { CATALOG_PROTOCOL } from '../../protocols/protocol-id.ts';
import { type Libp2pPair, libp2pPair } from '../support/libp2p-pair.ts';
import { until, watchRejections } from '../support/wire-mesh.ts';

const LOAD = { inFlight: 0, queued: 0, engineAgeMs: 0, draining: false };

function entry(id: string, slots = 1): CatalogEntry {
  return {
    id,
    digest: null,
    quantization: null,
    contextLength: 1,
    sizeBytes: 1,
    state: 'resident',
    slots,
    tokensPerSecond: null,
  };
}

/** What a sink was told, and what it makes of it. */
class Heard implements CatalogSink {
  readonly log: string[] = [];
  readonly models = new Map<string, CatalogEntry>();
  heartbeats = 0;
  name = '';
  endings: (MeshError | null)[] = [];
  hello(_: string, hello: NodeHello): void {
    this.name = hello.name;
    this.log.push('hello');
  }
  snapshot(_: string, entries: readonly CatalogEntry[]): void {
    this.models.clear();
    for (const each of entries) this.models.set(each.id, each);
    this.log.push(`snapshot ${entries.length}`);
  }
  delta(_: string, upsert: readonly CatalogEntry[], remove: readonly string[]): void {
    for (const each of upsert) this.models.set(each.id, each);
    for (const id of remove) this.models.delete(id);
    this.log.push(`delta +${upsert.length} -${remove.length}`);
  }
  heartbeat(): void {
    this.heartbeats++;
  }
  goodbye(): void {
    this.log.push('goodbye');
  }
  ended(_: string, error: MeshError | null): void {
    this.endings.push(error);
  }
}

interface CatalogMesh {
  readonly pair: Libp2pPair;
  readonly heard: Heard;
  readonly hello: { name: string };
  entries: CatalogEntry[];
  publisher(options?: CatalogPublisherOptions): CatalogPublisher;
}

async function catalogMesh(t: TestContext, limits: Partial<CatalogServerLimits> = {}): Promise<CatalogMesh> {
  watchRejections(t);
  const heard = new Heard();
  const pair = await libp2pPair({
    [CATALOG_PROTOCOL]: (stream, from) => serveCatalog(stream, from, heard, { clock: systemClock, limits }),
  });
  t.after(() => pair.stop());
  const mesh: CatalogMesh = {
    pair,
    heard,
    hello: { name: 'desk' },
    entries: [entry('a')],
    publisher: (options = {}) =>
      new CatalogPublisher(
        {
          clock: systemClock,
          open: (signal) => pair.open(CATALOG_PROTOCOL, signal),
          hello: () => ({ version: '1', epoch: 1, engineBuild: 'b', peerHints: [], ...mesh.hello }),
          entries: () => mesh.entries,
          load: () => LOAD,
        },
        { heartbeatMs: 20, ...options },
      ),
  };
  return mesh;
}

test('N-7 N-8 a publisher says hello, its catalog, its changes and goodbye', { timeout: 10_000 }, async (t) => {
  const mesh = await catalogMesh(t);
  const trips: number[] = [];
  const publisher = mesh.publisher({ onRoundTrip: (ms) => trips.push(ms) });
  const running = publisher.run(new AbortController().signal);
  await until(() => mesh.heard.models.has('a') && trips.length >= 3);
  mesh.entries = [entry('b'), entry('c')];
  publisher.changed();
  await until(() => mesh.heard.models.size === 2);
  mesh.hello.name = 'lap';
  publisher.changed();
  await until(() => mesh.heard.name === 'lap');
  await publisher.goodbye();
  await running;
  assert.deepEqual(mesh.heard.log, ['hello', 'snapshot 1', 'delta +2 -1', 'hello', 'goodbye']);
  await until(() => mesh.heard.endings.length === 1 && mesh.pair.openStreams(CATALOG_PROTOCOL) === 0);
  assert.deepEqual(mesh.heard.endings, [null]);
  assert.ok(trips.every((ms) => ms >= 0));
});

test('many changes at once become few deltas that end in the same catalog', { timeout: 10_000 }, async (t) => {
  const mesh = await catalogMesh(t);
  const publisher = mesh.publisher();
  const stop = new AbortController();
  const running = publisher.run(stop.signal);
  await until(() => mesh.heard.models.has('a'));
  for (let n = 1; n <= 500; n++) {
    mesh.entries = [entry('a', n)];
    publisher.changed();
  }
  await until(() => mesh.heard.models.get('a')?.slots === 500);
  assert.ok(mesh.heard.log.length <= 5, mesh.heard.log.join());
  stop.abort();
  await running;
  await until(() => mesh.heard.endings.length === 1);
  assert.equal(mesh.heard.endings[0]?.code, 'peer_unreachable');
});

test('a catalog of 4,096 models arrives whole, with changes and heartbeats behind it', {
  timeout: 20_000,
}, async (t) => {
  const mesh = await catalogMesh(t);
  mesh.entries = Array.from({ length: 4096 }, (_, n) => entry(`model-${n}`.padEnd(250, 'x')));
  const publisher = mesh.publisher();
  const stop = new AbortController();
  const running = publisher.run(stop.signal);
  setImmediate(() => {
    mesh.entries = mesh.entries.slice(1);
    publisher.changed();
  });
  await until(() => mesh.heard.models.size > 0 && mesh.heard.heartbeats > 2);
  publisher.changed();
  await until(() => mesh.heard.models.size === 4095);
  stop.abort();
  await running;
});

test('a publisher whose stream is reset says so, and can run again', { timeout: 10_000 }, async (t) => {
  const mesh = await catalogMesh(t);
  const publisher = mesh.publisher();
  for (let round = 1; round <= 2; round++) {
    const running = publisher.run(new AbortController().signal);
    await until(() => mesh.heard.log.filter((line) => line === 'snapshot 1').length === round);
    for (const { streams } of mesh.pair.serving.getConnections()) {
      for (const stream of streams) if (stream.protocol === CATALOG_PROTOCOL) stream.abort(new Error('reset'));
    }
    await assert.rejects(running, { code: 'peer_unreachable' });
  }
  await until(() => mesh.heard.endings.length === 2);
});

test('a lost connection ends both halves as unreachable', { timeout: 10_000 }, async (t) => {
  const mesh = await catalogMesh(t);
  const running = mesh.publisher().run(new AbortController().signal);
  await until(() => mesh.heard.heartbeats > 0);
  mesh.pair.connection.abort(new Error('cable cut'));
  await assert.rejects(running, { code: 'peer_unreachable' });
  await until(() => mesh.heard.endings.length === 1);
  assert.equal(mesh.heard.endings[0]?.code, 'peer_unreachable');
});

test('a publisher that falls silent is ended', { timeout: 10_000 }, async (t) => {
  const mesh = await catalogMesh(t, { silenceMs: 100 });
  const running = mesh.publisher({ heartbeatMs: 60_000 }).run(new AbortController().signal);
  await assert.rejects(running, { code: 'peer_unreachable' });
  assert.equal(mesh.heard.endings[0]?.code, 'peer_unreachable');
});

test('a stream that never opens is given up', { timeout: 10_000 }, async (t) => {
  watchRejections(t);
  const nothing = new CatalogPublisher(
    {
      clock: systemClock,
      open: () => new Promise<Stream>(() => {}),
      hello: () => ({ version: '1', name: 'n', epoch: 1, engineBuild: 'b', peerHints: [] }),
      entries: () => [],
      load: () => LOAD,
    },
    { openMs: 20 },
  );
  await assert.rejects(nothing.run(new AbortController().signal), { code: 'peer_unreachable' });
});

const hello = encodeHello({ version: '1', name: 'n', epoch: 1, engineBuild: 'b', peerHints: [] });
const gap = encodeDelta({ upsert: [entry('b')], remove: [] }, 5);
const ATTACKS: Record<string, () => Uint8Array> = {
  'a length prefix of 4 GiB': () => Buffer.from('ffffffff0f', 'hex'),
  'a snapshot before HELLO': () => encodeFrames(encodeSnapshot([], 0)),
  'a gap in the sequence': () => encodeFrames([hello, ...encodeSnapshot([entry('a')], 0), ...gap]),
  'a thousand hellos': () => encodeFrames(new Array(1000).fill(hello)),
};
for (const [name, bytes] of Object.entries(ATTACKS)) {
  test(`${name} resets the stream, and another one serves on`, { timeout: 10_000 }, async (t) => {
    const mesh = await catalogMesh(t);
    const stream = await mesh.pair.open(CATALOG_PROTOCOL);
    stream.send(bytes());
    await until(() => stream.status === 'reset');
    await until(() => mesh.heard.endings.length === 1);
    assert.equal(mesh.heard.endings[0]?.code, 'protocol_violation');
    const publisher = mesh.publisher();
    const running = publisher.run(new AbortController().signal);
    await until(() => mesh.heard.models.has('a') && mesh.heard.heartbeats > 1);
    await publisher.goodbye();
    await running;
  });
}

test('a publisher that never takes its echoes is ended', { timeout: 20_000 }, async (t) => {
  const mesh = await catalogMesh(t, { drainMs: 150, framesPerSecond: 1e9, frameBurst: 1e9 });
  const stream = await mesh.pair.open(CATALOG_PROTOCOL);
  stream.pause();
  stream.send(encodeFrames([hello, ...encodeSnapshot([], 0)]));
  const beats = encodeFrames(
    Array.from({ length: 500 }, () => ({ type: 0x24, head: { n: 9_000_000_000_000, load: LOAD } })),
  );
  const flood = setInterval(() => stream.status === 'open' && !stream.writableNeedsDrain && stream.send(beats), 1);
  t.after(() => clearInterval(flood));
  await until(() => mesh.heard.endings.length === 1);
  assert.equal(mesh.heard.endings[0]?.code, 'peer_unreachable');
});
