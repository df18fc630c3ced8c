import assert from 'node:assert/strict';
import { test } from 'node:test';
import { orderCandidates } from '../../../node/routing/candidate.ts';
import { type Sketch, sketched } from '../../support/sketched-candidate.ts';

/** In the order given within a class, so that only the classes show. */
const order = (sketches: Sketch[], unauthorized: string[] = []): string[] =>
  orderCandidates(sketches.map(sketched), {
    strategy: (members) => members,
    isUnauthorized: (id) => unauthorized.includes(id),
  }).map(({ backend }) => backend.id);

test('D-3 D-4 D-50 a model that is loaded here is answered here, however busy', () => {
  assert.deepEqual(order([{ id: 'a' }, { id: 'here', kind: 'engine', active: 4 }]), ['here', 'a']);
});

test('a model that is only on disk here yields to a peer that has it resident', () => {
  const here: Sketch = { id: 'here', kind: 'engine', state: 'on-disk' };
  assert.deepEqual(order([here, { id: 'cold', state: 'on-disk' }, { id: 'warm' }]), ['warm', 'here', 'cold']);
});

test('a model that is being loaded here is waited for here', () => {
  assert.deepEqual(order([{ id: 'a' }, { id: 'here', kind: 'engine', state: 'loading' }]), ['here', 'a']);
});

test('suspect ones come after every healthy one, and those that refuse our key last', () => {
  const peers: Sketch[] = [
    { id: 'refuses' },
    { id: 'late', suspect: true },
    { id: 'cold', state: 'on-disk' },
    { id: 'warm', active: 9 },
  ];
  assert.deepEqual(order(peers, ['refuses']), ['warm', 'cold', 'late', 'refuses']);
});
