import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ModelIndex } from '../../../node/network/model-index.ts';
import { PeerTable } from '../../../node/network/peer-table.ts';
import type { NodeHello } from '../../../protocols/catalog/catalog.ts';
import { catalogEntry } from '../../support/swarm.ts';

const hello = (overrides: Partial<NodeHello> = {}): NodeHello => ({
  version: '0.1.0',
  name: 'peer',
  epoch: 1,
  engineBuild: 'b1',
  peerHints: [],
  ...overrides,
});
const load = { inFlight: 1, queued: 0, engineAgeMs: 0, draining: false };

function harness(dropped: ReadonlySet<string> = new Set()) {
  let wall = 1;
  const table = new PeerTable({ offlineLimit: 2, wallClock: () => wall++ });
  const index = new ModelIndex({ table });
  const seen: string[] = [];
  table.onChange(({ kind, peer, reason }) => {
    seen.push([kind, peer.fingerprint, peer.status, ...(reason === undefined ? [] : [reason])].join(' '));
    // The index is already right when anybody hears of a change.
    const expected = peer.status === 'offline' ? [] : peer.models.map(({ id }) => id);
    const indexed = index.models().flatMap((model) => (model.fingerprint === peer.fingerprint ? [model.entry.id] : []));
    assert.deepEqual(
      indexed,
      expected.filter((id) => !dropped.has(id)),
    );
  });
  const idsOf = (fingerprint: string): string[] =>
    index.models().flatMap((model) => (model.fingerprint === fingerprint ? [model.entry.id] : []));
  const join = (fingerprint: string, ...models: string[]): void => {
    table.hello(fingerprint, hello());
    table.snapshot(
      fingerprint,
      models.map((id) => catalogEntry(id)),
    );
  };
  return { table, index, seen, join, idsOf };
}

test('a peer is online with its first snapshot, not with its hello', () => {
  const { table, seen } = harness();
  table.snapshot('P', [catalogEntry('ignored')]);
  assert.equal(table.get('P'), null);
  table.hello('P', hello());
  table.alive('P');
  assert.equal(table.get('P')?.status, 'offline');
  assert.deepEqual(table.list(), []);
  table.snapshot('P', [catalogEntry('m')]);
  assert.equal(table.get('P')?.status, 'online');
  assert.deepEqual(seen, ['up P online']);
});

test('a suspect peer is the last choice, a lost one none, and both come back with what they had', () => {
  const { table, index, seen, join, idsOf } = harness();
  join('P', 'm');
  join('Q', 'm');
  table.suspect('P');
  assert.deepEqual(
    index.holders('m').map(({ fingerprint }) => fingerprint),
    ['Q', 'P'],
  );
  table.lost('P');
  assert.deepEqual(idsOf('P'), []);
  assert.deepEqual(table.get('P')?.models, []);
  table.lost('P');
  table.suspect('P');
  table.alive('P');
  assert.deepEqual(idsOf('P'), ['m']);
  assert.deepEqual(seen.slice(2), ['status P suspect', 'down P offline lost', 'up P online']);
});

test('after a goodbye only a new snapshot brings a peer back', () => {
  const { table, seen, join } = harness();
  join('P', 'm');
  table.goodbye('P');
  table.alive('P');
  table.delta('P', [catalogEntry('n')], []);
  assert.equal(table.get('P')?.status, 'offline');
  join('P', 'n');
  assert.deepEqual(seen, ['up P online', 'down P offline goodbye', 'up P online']);
});

test('a later epoch voids what was said before, an earlier one is not believed', () => {
  const { table, join, idsOf } = harness();
  join('P', 'old');
  table.hello('P', hello({ epoch: 2, name: 'reborn' }));
  assert.deepEqual(idsOf('P'), []);
  table.alive('P');
  assert.equal(table.get('P')?.status, 'offline');
  table.snapshot('P', [catalogEntry('new')]);
  table.hello('P', hello({ epoch: 1, name: 'ghost' }));
  assert.equal(table.get('P')?.name, 'reborn');
  assert.deepEqual(idsOf('P'), ['new']);
});

test('a peer that was gone is believed although its clock was set back', () => {
  const { table, join, idsOf } = harness();
  join('P', 'old');
  table.hello('P', hello({ epoch: 9 }));
  table.lost('P');
  table.hello('P', hello({ epoch: 3, name: 'reborn' }));
  table.snapshot('P', [catalogEntry('new')]);
  assert.deepEqual([table.get('P')?.name, ...idsOf('P')], ['reborn', 'new']);
});

test('deltas add, replace and remove', () => {
  const { table, join, index, idsOf } = harness();
  join('P', 'a', 'b');
  table.delta('P', [catalogEntry('b', { slots: 9 }), catalogEntry('c')], ['a']);
  assert.deepEqual(idsOf('P'), ['b', 'c']);
  assert.equal(index.holders('b')[0]?.entry.slots, 9);
});

test('an unchanged load is no change', () => {
  const { table, seen, join } = harness();
  join('P');
  table.load('P', load);
  table.load('P', { ...load });
  table.load('P', { ...load, queued: 1 });
  assert.deepEqual(seen, ['up P online', 'load P online', 'load P online']);
  assert.equal(table.get('P')?.load?.queued, 1);
});

test('round trips are smoothed', () => {
  const { table, join } = harness();
  join('P');
  assert.equal(table.get('P')?.latencyMs, null);
  table.roundTrip('P', 10);
  table.roundTrip('P', 20);
  assert.equal(table.get('P')?.latencyMs, 12);
});

test('offline peers stay listed up to the bound, those seen longest ago go', () => {
  const { table, join } = harness();
  for (const name of ['A', 'B', 'C']) {
    join(name);
    table.lost(name);
  }
  assert.deepEqual(
    table.list().map(({ fingerprint, status }) => `${fingerprint} ${status}`),
    ['B offline', 'C offline'],
  );
});

test('an entry that the peer refused is gone until the peer speaks about its models again', () => {
  const dropped = new Set<string>();
  const { table, index, join, idsOf } = harness(dropped);
  join('P', 'm', 'n');
  join('Q', 'm');
  dropped.add('m');
  index.drop('P', 'm');
  assert.deepEqual(
    index.holders('m').map(({ fingerprint }) => fingerprint),
    ['Q'],
  );
  table.load('P', load);
  assert.deepEqual(idsOf('P'), ['n']);
  dropped.clear();
  table.delta('P', [catalogEntry('n', { slots: 1 })], []);
  assert.deepEqual(idsOf('P'), ['m', 'n']);
});

test('a peer that fell silent is awaited for four seconds, for the models that it had; one that said goodbye is not', () => {
  let now = 0;
  const table = new PeerTable({ wallClock: () => now });
  const index = new ModelIndex({ table });
  for (const fingerprint of ['P', 'Q']) {
    table.hello(fingerprint, hello());
    table.snapshot(fingerprint, [catalogEntry(`of-${fingerprint}`)]);
  }
  assert.equal(index.isAwaited('of-P'), false, 'it is there');
  table.lost('P');
  table.goodbye('Q');
  assert.deepEqual(
    ['of-P', 'of-Q', 'other'].map((id) => index.isAwaited(id)),
    [true, false, false],
  );
  now = 3999;
  assert.equal(index.isAwaited('of-P'), true);
  now = 4000;
  assert.equal(index.isAwaited('of-P'), false);
  table.alive('P');
  now = 5000;
  table.hello('P', hello({ epoch: 2 }));
  assert.equal(index.isAwaited('of-P'), false, 'another life: nobody knows what it will have');
});
