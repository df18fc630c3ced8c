import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Candidate, leastLoaded, orderCandidates } from '../../../node/routing/candidate.ts';
import type { ModelState } from '../../../protocols/catalog/catalog.ts';

interface Sketch {
  id: string;
  state?: ModelState;
  suspect?: boolean;
  active?: number;
  reported?: number;
  asked?: number;
  slots?: number;
}

function candidate({
  id,
  state = 'resident',
  suspect = false,
  active = 0,
  reported = 0,
  asked = 0,
  slots = 4,
}: Sketch): Candidate {
  return {
    backend: { id, kind: 'peer', infer: () => assert.fail('not asked to infer') },
    entry: {
      id: 'm',
      digest: null,
      quantization: null,
      contextLength: 512,
      sizeBytes: 1,
      state,
      slots,
      tokensPerSecond: null,
    },
    suspect,
    load: { inFlight: reported, queued: 0, engineAgeMs: 0, draining: false },
    stats: { totalRequests: asked, successCount: 0, failureCount: 0, avgLatencyMs: 0, activeRequests: active },
  };
}

const order = (local: Sketch | null, peers: Sketch[]): string[] =>
  orderCandidates(local === null ? null : candidate(local), peers.map(candidate), leastLoaded).map((c) => c.backend.id);

test('a model that is loaded here is answered here', () => {
  assert.deepEqual(order({ id: 'here', active: 4 }, [{ id: 'a' }]), ['here', 'a']);
});

test('a model that is only on disk here yields to a peer that has it resident', () => {
  const peers: Sketch[] = [{ id: 'cold', state: 'on-disk' }, { id: 'warm' }];
  assert.deepEqual(order({ id: 'here', state: 'on-disk' }, peers), ['warm', 'here', 'cold']);
});

test('the fewest requests for its slots come first, whether we sent them or the peer reports them', () => {
  assert.deepEqual(
    order(null, [
      { id: 'busy', reported: 3 },
      { id: 'ours', active: 2 },
      { id: 'wide', active: 2, slots: 16 },
      { id: 'idle' },
    ]),
    ['idle', 'wide', 'ours', 'busy'],
  );
});

test('idle peers take turns', () => {
  assert.deepEqual(
    order(null, [
      { id: 'often', asked: 9 },
      { id: 'seldom', asked: 2 },
    ]),
    ['seldom', 'often'],
  );
});

test('a suspect peer is the last choice', () => {
  assert.deepEqual(
    order(null, [
      { id: 'late', suspect: true },
      { id: 'cold', state: 'on-disk' },
      { id: 'busy', active: 9 },
    ]),
    ['busy', 'cold', 'late'],
  );
});
