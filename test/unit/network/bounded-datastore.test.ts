import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BoundedDatastore, type Datastore } from '../../../node/network/bounded-datastore.ts';

type Key = Parameters<Datastore['get']>[0];
/** All that the store uses of a datastore key. */
const key = (name: string): Key => ({ toString: () => name }) as Key;
const record = (model: string, peer: string): Key => key(`/dht/provider/${model}/${peer}`);
const value = new Uint8Array([1]);
const count = (store: BoundedDatastore, prefix: string): number => [...store.query({ prefix })].length;

test('of 20,000 provider records from one peer 256 are kept', () => {
  const store = new BoundedDatastore('self');
  for (let i = 0; i < 20_000; i += 1) store.put(record(`model${i}`, 'flooder'), value);
  assert.equal(store.providerRecords, 256);
  assert.equal(count(store, '/dht/provider'), 256);
  store.put(record('model1', 'honest'), value);
  assert.deepEqual(
    [...store.query({ prefix: '/dht/provider/model1' })].map(({ key: { toString: name } }) => name()),
    ['/dht/provider/model1/flooder', '/dht/provider/model1/honest'],
  );
});

test('many peers together are bounded too, and own records always fit', () => {
  const store = new BoundedDatastore('self', { recordsPerPeer: 10, records: 100 });
  for (let i = 0; i < 20_000; i += 1) store.put(record(`model${i % 7}`, `peer${i}`), value);
  assert.equal(store.providerRecords, 100);
  store.put(record('mine', 'self'), value);
  assert.equal(count(store, '/dht/provider/mine'), 1);
  assert.equal(store.providerRecords, 100);
});

test('deleted records make room, and rewriting one takes none', () => {
  const store = new BoundedDatastore('self', { recordsPerPeer: 1 });
  store.put(record('a', 'peer'), value);
  store.put(record('a', 'peer'), new Uint8Array([2]));
  assert.deepEqual(store.get(record('a', 'peer')), new Uint8Array([2]));
  store.put(record('b', 'peer'), value);
  assert.equal(store.has(record('b', 'peer')), false);
  store.delete(record('a', 'peer'));
  store.put(record('b', 'peer'), value);
  assert.equal(store.has(record('b', 'peer')), true);
  assert.equal(store.providerRecords, 1);
});

test('peers written longest ago are forgotten first', () => {
  const store = new BoundedDatastore('self', { peers: 2 });
  for (const name of ['/peers/a', '/peers/b', '/peers/a', '/peers/c']) store.put(key(name), value);
  assert.deepEqual([...store.queryKeys({ prefix: '/peers' })].map(String), ['/peers/a', '/peers/c']);
});

test('a missing entry is NotFoundError, which libp2p knows', () => {
  assert.throws(() => new BoundedDatastore('self').get(key('/peers/nobody')), { name: 'NotFoundError' });
});
