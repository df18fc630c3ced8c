import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Backend } from '../../../node/backends/backend.ts';
import { FederatedGateway } from '../../../node/routing/federated-gateway.ts';
import { DEFAULT_FEDERATION, Federation, type FederationOptions, pinOf } from '../../../node/routing/federation.ts';
import type { InferenceEvent, InferenceRequest } from '../../../protocols/inference/events.ts';
import {
  FirstParts,
  federatedEndpoint,
  fixtureCluster,
  fixtureEndpoint,
  type Held,
  HeldGateway,
  targetOf,
} from '../../support/first-parts.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const SOPHIA = fixtureEndpoint('sophia', 'llama');
const POLARIS = fixtureEndpoint('polaris', 'llama-8b');
const END: InferenceEvent = {
  type: 'end',
  finishReasons: ['stop'],
  usage: { promptTokens: 7, completionTokens: 3, cachedTokens: 0 },
  timings: { promptMs: 1, predictedMs: 1 },
};
const REQUEST: InferenceRequest = {
  requestId: '0'.repeat(32),
  kind: 'chat',
  model: 'meta/llama',
  body: Buffer.from('{"messages":[],"model":"meta/llama","seed":12345678901234567890}'),
  seed: 1,
};

function answering(id: string, asked: InferenceRequest[] = []): Backend {
  return {
    id,
    kind: 'http',
    async *infer(request) {
      asked.push(request);
      yield END;
    },
  };
}

function bench(held: readonly Held[], options: Partial<FederationOptions> = {}) {
  const parts = new FirstParts({
    clusters: [fixtureCluster('sophia'), fixtureCluster('polaris')],
    endpoints: [SOPHIA, POLARIS],
    federated: [federatedEndpoint('meta/llama', [targetOf(SOPHIA), targetOf(POLARIS), targetOf(SOPHIA)])],
  });
  const clock = new ManualClock();
  const gateway = new HeldGateway(held);
  const federation = new Federation({ fixtures: parts, states: parts, clock }, { ...DEFAULT_FEDERATION, ...options });
  return { parts, clock, gateway, federated: new FederatedGateway({ gateways: gateway, federation }) };
}

const BOTH: readonly Held[] = [
  { backend: answering(`globus:${SOPHIA.slug}`), model: 'llama' },
  { backend: answering(`direct:${POLARIS.slug}`), model: 'llama-8b' },
];

const shown = (federated: FederatedGateway, model: string): unknown[] =>
  federated
    .holders(model)
    .map(({ backend, entry, rank, suspect }) => [backend.id, entry.id, entry.state, rank, suspect]);

test('F-16 holders of a federated model are its targets once each, with the ranks of their states', () => {
  const { parts, federated } = bench(BOTH);
  parts.states.set(SOPHIA.slug, { state: 'cold', freeNodes: 2 });
  assert.deepEqual(shown(federated, 'meta/llama'), [
    [`globus:${SOPHIA.slug}`, 'meta/llama', 'on-disk', 2, false],
    [`direct:${POLARIS.slug}`, 'meta/llama', 'resident', 0, false],
  ]);
  parts.states.set(SOPHIA.slug, { state: 'unknown', freeNodes: null });
  assert.deepEqual(shown(federated, 'meta/llama')[0], [`globus:${SOPHIA.slug}`, 'meta/llama', 'on-disk', 4, true]);
  assert.equal(federated.holders('meta/llama')[0]?.place?.boundary, 'private-cluster');
});

test('F-16 what its gateway suspects of having failed stays suspect while it runs, and a cold one is not suspect as well', () => {
  const more = { suspect: true };
  const { parts, federated } = bench(BOTH.map((held) => ({ ...held, more })));
  parts.states.set(SOPHIA.slug, { state: 'cold', freeNodes: null });
  assert.deepEqual(
    federated.holders('meta/llama').map(({ rank, suspect }) => [rank, suspect]),
    [
      [3, false],
      [0, true],
    ],
  );
});

test('F-21 a pinned id is answered by its endpoint alone, whatever others list', () => {
  const pin = pinOf(SOPHIA);
  const { federated } = bench([...BOTH, { backend: answering('api:liar'), model: pin }]);
  assert.deepEqual(shown(federated, pin), [[`globus:${SOPHIA.slug}`, pin, 'resident', undefined, false]]);
});

test('F-15 a server registered by hand under an endpoint’s name is no endpoint, and joins in by its model', () => {
  const other: Held = { backend: answering(`api:${SOPHIA.slug}`), model: 'meta/llama' };
  const { federated } = bench([...BOTH, other], { maintenance: ['sophia'] });
  assert.deepEqual(
    federated.holders('meta/llama').map(({ backend, rank }) => [backend.id, rank]),
    [
      [`direct:${POLARIS.slug}`, 0],
      [`api:${SOPHIA.slug}`, undefined],
    ],
  );
});

test('F-16 F-36 models lists a federated model at its usable targets, and no endpoint that callers may not use', () => {
  const { parts, federated } = bench(BOTH, { groups: ['guests'] });
  const listed = (): string[] => federated.models().map(({ fingerprint, entry }) => `${fingerprint} ${entry.id}`);
  assert.deepEqual(listed(), [
    `globus:${SOPHIA.slug} llama`,
    `direct:${POLARIS.slug} llama-8b`,
    `globus:${SOPHIA.slug} meta/llama`,
    `direct:${POLARIS.slug} meta/llama`,
  ]);
  parts.change({ endpoints: [{ ...SOPHIA, allowedGroups: ['staff'] }, POLARIS] });
  assert.deepEqual(listed(), [`direct:${POLARIS.slug} llama-8b`, `direct:${POLARIS.slug} meta/llama`]);
  assert.deepEqual(federated.holders('llama'), []);
});

test('F-16 a target gets the request under its own model name, every other byte as it came', async () => {
  const asked: InferenceRequest[] = [];
  const { federated } = bench([{ backend: answering(`globus:${SOPHIA.slug}`, asked), model: 'llama' }]);
  const [holder] = federated.holders('meta/llama');
  assert.ok(holder);
  for await (const _ of holder.backend.infer(REQUEST, { signal: new AbortController().signal }));
  assert.equal(asked[0]?.model, 'llama');
  assert.equal(Buffer.from(asked[0].body).toString(), '{"messages":[],"model":"llama","seed":12345678901234567890}');
});

test('F-35 a target whose tokens of the minute are used up refuses without being asked', async () => {
  const asked: InferenceRequest[] = [];
  const { parts, clock, federated } = bench([{ backend: answering(`globus:${SOPHIA.slug}`, asked), model: 'llama' }]);
  parts.change({ endpoints: [{ ...SOPHIA, tpmModel: 10 }, POLARIS] });
  const ask = async (): Promise<void> => {
    const [holder] = federated.holders('meta/llama');
    assert.ok(holder);
    for await (const _ of holder.backend.infer(REQUEST, { signal: new AbortController().signal }));
  };
  await ask();
  clock.advance(20_000);
  await assert.rejects(ask, (error: Error & { code?: string; facts?: { retryAfterMs?: number } }) => {
    assert.equal(error.code, 'rate_limited');
    assert.equal(error.facts?.retryAfterMs, 40_000);
    return error.message.includes('10 of 10 tokens');
  });
  assert.equal(asked.length, 1);
  clock.advance(40_000);
  await ask();
});

test('what an endpoint says it does not serve is dropped under its own model name', () => {
  const { gateway, federated } = bench(BOTH);
  federated.drop(`globus:${SOPHIA.slug}`, 'meta/llama');
  federated.drop('api:other', 'meta/llama');
  assert.deepEqual(gateway.dropped, [`globus:${SOPHIA.slug} llama`, 'api:other meta/llama']);
});

test('F-20 a change of the fixtures is told to whoever follows the models', () => {
  const { parts, federated } = bench(BOTH);
  let changes = 0;
  const off = federated.onChange(() => {
    changes += 1;
  });
  parts.change({ federated: [] });
  assert.equal(changes, 1);
  assert.deepEqual(federated.holders('meta/llama'), []);
  off();
  parts.change({ federated: [] });
  assert.equal(changes, 1);
});
