/** FIRST's fixtures, in all the shapes that they have had. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  mergeFixtures,
  NO_FIXTURES,
  readFixtures,
  withoutFixture,
  withSharing,
} from '../../../node/storage/fixtures/fixture-set.ts';
import { FixtureStore } from '../../../node/storage/fixtures/fixture-store.ts';
import { endpointSlug, slugify } from '../../../node/storage/fixtures/slug.ts';
import fc from '../../support/fc.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const UUID = (n: number): string => `5a1f9c3e-0000-4000-8000-${String(n).padStart(12, '0')}`;
const GLOBUS = 'resource_server_async.endpoints.globus_compute.GlobusComputeEndpoint';
const DIRECT = 'resource_server_async.endpoints.direct_api.DirectAPIEndpoint';

function endpoint(pk: unknown, fields: object = {}): Record<string, unknown> & { fields: Record<string, unknown> } {
  const config = { api_port: 8000, endpoint_uuid: UUID(1), function_uuid: UUID(2) };
  const named = { endpoint_slug: `slug-${pk}`, cluster: 'sophia', framework: 'vllm', model: `model-${pk}` };
  return {
    model: 'resource_server_async.endpoint',
    pk,
    fields: { ...named, endpoint_adapter: GLOBUS, config, ...fields },
  };
}

function federated(pk: unknown, targets: readonly object[], fields: object = {}): object {
  const named = {
    name: 'A model (Federated)',
    slug: `federated-${pk}`,
    target_model_name: `any-${pk}`,
    description: '',
  };
  return { model: 'resource_server.federatedendpoint', pk, fields: { ...named, targets, ...fields } };
}

const refusal = (entries: readonly unknown[]): string => {
  try {
    readFixtures(entries, 'endpoints.json');
  } catch (error) {
    assert.equal((error as { code: string }).code, 'invalid_request');
    return (error as Error).message;
  }
  return 'none';
};

test('a current endpoint is read with its defaults', () => {
  const [read] = readFixtures([endpoint(1)], 'f').fixtures.endpoints;
  assert.deepEqual(read, {
    ...{ pk: 1, slug: 'slug-1', cluster: 'sophia', framework: 'vllm', model: 'model-1', kind: 'globus' },
    globus: { endpointUuid: UUID(1), functionUuid: UUID(2), apiPort: 8000 },
    ...{ tpmModel: 100_000, tpmUser: 60_000, allowedGroups: [], allowedDomains: [] },
  });
});

test('a legacy flat endpoint means the same as a current one', () => {
  const { config, endpoint_adapter: _, ...flat } = endpoint(1).fields;
  const legacy = {
    model: 'resource_server.endpoint',
    pk: 1,
    fields: {
      ...flat,
      ...(config as object),
      batch_endpoint_uuid: '',
      batch_function_uuid: '',
      allowed_globus_groups: '',
    },
  };
  const current = readFixtures([endpoint(1)], 'f').fixtures;
  assert.deepEqual(readFixtures([legacy], 'f').fixtures, current);
  const grouped = { ...legacy, fields: { ...legacy.fields, allowed_globus_groups: 'alcf:1, staff:2' } };
  assert.deepEqual(readFixtures([grouped], 'f').fixtures.endpoints[0]?.allowedGroups, ['alcf:1', 'staff:2']);
});

test('an endpoint without a slug gets the one that FIRST makes', () => {
  assert.equal(
    endpointSlug('sophia', 'vllm', 'meta-llama/Meta-Llama-3.1-70B-Instruct'),
    'sophia-vllm-meta-llamameta-llama-31-70b-instruct',
  );
  assert.equal(slugify(' Crème  brûlée_v2.0 -- (ß) '), 'creme-brulee_v20');
  const model = 'mistralai/Mixtral-8x22B-Instruct-v0.1';
  const [read] = readFixtures([endpoint(1, { endpoint_slug: undefined, model })], 'f').fixtures.endpoints;
  assert.equal(read?.slug, 'sophia-vllm-mistralaimixtral-8x22b-instruct-v01');
});

test('slugs are made of letters, digits, - and _, and making one of a slug changes nothing', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      const slug = slugify(text);
      assert.match(slug, /^([a-z0-9]([a-z0-9_-]*[a-z0-9])?)?$/);
      assert.equal(slugify(slug), slug);
    }),
  );
});

test('a direct endpoint takes the base of its API, also where one call of it was given', () => {
  const direct = (apiUrl: string): unknown => {
    const config = { api_url: apiUrl, api_key_env_name: 'OPENAI_KEY', api_request_timeout: 30 };
    return readFixtures([endpoint(1, { endpoint_adapter: DIRECT, config })], 'f').fixtures.endpoints[0]?.direct;
  };
  const expected = { apiKeyEnvName: 'OPENAI_KEY', timeoutMs: 30_000 };
  for (const url of ['', '/', '/chat/completions', '/embeddings/', '/completions']) {
    assert.deepEqual(direct(`https://api.example.org/v1${url}`), {
      ...expected,
      apiUrl: 'https://api.example.org/v1',
      boundary: 'public',
    });
  }
  assert.deepEqual(direct('https://api.example.org/api/paas/v4/chat/completions'), {
    ...expected,
    apiUrl: 'https://api.example.org/api/paas/v4',
    boundary: 'public',
  });
  assert.deepEqual(direct('http://10.0.0.5:8000/openai/v1/'), {
    ...expected,
    apiUrl: 'http://10.0.0.5:8000/openai/v1',
    boundary: 'mesh',
  });
});

test('clusters are read with their queue function, in the list and in the older shape of endpoints', () => {
  const cluster = (fields: object): unknown => ({
    model: 'resource_server_async.cluster',
    pk: 7,
    fields: {
      cluster_name: 'sophia',
      cluster_adapter: 'resource_server_async.clusters.globus_compute.GlobusComputeCluster',
      frameworks: ['vllm', 'api'],
      config: { qstat_endpoint_uuid: UUID(3).toUpperCase(), qstat_function_uuid: UUID(4) },
      ...fields,
    },
  });
  const read = (fields: object): unknown => readFixtures([cluster(fields)], 'f').fixtures.clusters[0];
  const expected = {
    ...{ pk: 7, name: 'sophia', kind: 'globus', frameworks: ['vllm', 'api'], statusUrl: null },
    ...{ openaiEndpoints: ['chat/completions', 'embeddings'], allowedGroups: [], allowedDomains: [] },
    qstat: { endpointUuid: UUID(3), functionUuid: UUID(4) },
  };
  assert.deepEqual(read({ openai_endpoints: ['chat/completions', '/embeddings/'] }), expected);
  const older = { chat: '/vllm/v1/chat/completions/', embedding: '/vllm/v1/embeddings/' };
  assert.deepEqual(read({ openai_endpoints: older }), expected);
});

test('a federated endpoint brings the endpoints of its targets, unless they have fixtures of their own', () => {
  const target = (n: number, more: object = {}): object => ({
    ...{ cluster: 'c', framework: 'vllm', model: `m-${n}`, endpoint_slug: `c-vllm-m-${n}` },
    ...{ endpoint_uuid: UUID(n), function_uuid: UUID(20), api_port: 8001, ...more },
  });
  const own = endpoint(5, { endpoint_slug: 'c-vllm-m-2' });
  const targets = [target(1, { allowed_globus_groups: 'a,b' }), target(2), target(3, { allowed_globus_groups: 7 })];
  const { fixtures } = readFixtures([federated(1, targets), own], 'f');
  assert.deepEqual(
    fixtures.federated[0]?.targets.map((each) => [each.endpointSlug, each.allowedGroups]),
    [
      ['c-vllm-m-1', ['a', 'b']],
      ['c-vllm-m-2', []],
      ['c-vllm-m-3', null],
    ],
    'groups that cannot be understood are nobody',
  );
  assert.deepEqual(
    fixtures.endpoints.map((each) => [each.slug, each.globus?.apiPort, each.allowedGroups]),
    [
      ['c-vllm-m-2', 8000, []],
      ['c-vllm-m-1', 8001, ['a', 'b']],
    ],
  );
});

test('what is wrong is told with its file, entry and field, and without its value', () => {
  const cases: readonly (readonly [entry: unknown, expected: RegExp])[] = [
    [7, /^endpoints\.json: entry 1 is no object$/],
    [{ model: 'auth.user', pk: 1, fields: {} }, /entry 1 \(auth\.user 1\): model is neither/],
    [{ model: 'x.endpoint', pk: 2 }, /entry 1 \(x\.endpoint 2\): fields is missing/],
    [endpoint(2, { cluster: undefined }), /entry 1 \(resource_server_async\.endpoint 2\): fields\.cluster is missing/],
    [
      endpoint(2, { endpoint_adapter: 'a.b.SlurmEndpoint' }),
      /fields\.endpoint_adapter names a class .*GlobusComputeEndpoint/,
    ],
    [
      endpoint(2, { config: { api_port: 8000, endpoint_uuid: 'sk-SECRET', function_uuid: UUID(1) } }),
      /fields\.config\.endpoint_uuid is no UUID$/,
    ],
    [
      endpoint(2, { config: { api_port: 0, endpoint_uuid: UUID(1), function_uuid: UUID(1) } }),
      /fields\.config\.api_port is no whole number/,
    ],
    [endpoint(2, { config: '{"api_port":' }), /fields\.config is no object/],
    [endpoint(2, { tpm_user: -1 }), /fields\.tpm_user is no whole number/],
    [endpoint(2, { allowed_globus_groups: [7] }), /fields\.allowed_globus_groups is neither/],
    [endpoint(2, { endpoint_slug: 'a b' }), /fields\.endpoint_slug has other characters/],
    [endpoint(2, { model: 'a\u001b[31m' }), /fields\.model is not 1 to/],
    [endpoint([]), /entry 1.*: pk is neither/],
    [endpoint(1), /entry 1: pk is that of entry 0 as well/],
    [endpoint(2, { endpoint_slug: 'slug-1' }), /entry 1: fields\.endpoint_slug is that of entry 0 as well/],
    [
      endpoint(2, { endpoint_adapter: DIRECT, config: { api_url: 'http://169.254.169.254/v1' } }),
      /fields\.config\.api_url cannot be used \(169\.254/,
    ],
    [
      endpoint(2, { endpoint_adapter: DIRECT, config: { api_url: 'https://u:SECRET@host/v1' } }),
      /fields\.config\.api_url cannot be used/,
    ],
    [
      endpoint(2, { endpoint_adapter: DIRECT, config: { api_url: 'https://h/v1', api_key_env_name: 'sk-SECRET' } }),
      /api_key_env_name is no name of an environment variable$/,
    ],
    [
      endpoint(2, { endpoint_adapter: DIRECT, config: { api_url: 'https://h' } }),
      /fields\.config\.api_url has no path/,
    ],
    [federated(2, [{ cluster: 'c', framework: 'f' }]), /fields\.targets\[0\]\.model is missing/],
    [federated(2, [], { targets: 'none' }), /fields\.targets is no list/],
  ];
  for (const [entry, expected] of cases) {
    const message = refusal([endpoint(1), entry]);
    assert.match(message, expected);
    assert.match(message, /^endpoints\.json/);
    assert.doesNotMatch(message, /SECRET/);
  }
  assert.match(
    refusal([federated(1, []), federated(2, [], { target_model_name: 'any-1' })]),
    /target_model_name is that of entry 0/,
  );
  assert.throws(() => readFixtures({}, 'endpoints.json'), { message: 'endpoints.json is no list of fixture entries' });
});

test('an endpoint is shared with other nodes only where its owner said so', () => {
  const target = {
    cluster: 'c',
    framework: 'f',
    model: 'm',
    endpoint_uuid: UUID(1),
    function_uuid: UUID(2),
    api_port: 1,
  };
  const shared = (json: unknown): unknown => readFixtures(json, 'f').fixtures.endpoints.map((each) => each.shared);
  const entries = [endpoint(1), federated(2, [target])];
  assert.deepEqual(shared(entries), [undefined, undefined]);
  assert.deepEqual(shared(withSharing(entries)), [true, true]);
  assert.match(refusal([{ ...endpoint(1), meshnode: { shared: 'yes' } }]), /meshnode\.shared is neither/);
});

test('loading twice changes nothing; the same key or slug is replaced in its place', () => {
  const first = readFixtures([endpoint(1), endpoint(2), endpoint(3)], 'f');
  const { set, change } = mergeFixtures(NO_FIXTURES, first);
  assert.deepEqual(change, { added: ['slug-1', 'slug-2', 'slug-3'], replaced: [], unchanged: [] });
  assert.deepEqual(mergeFixtures(set, first), {
    set,
    change: { added: [], replaced: [], unchanged: ['slug-1', 'slug-2', 'slug-3'] },
  });
  const renamed = readFixtures([endpoint(2, { endpoint_slug: 'slug-3' })], 'f');
  const merged = mergeFixtures(set, renamed);
  assert.deepEqual(merged.change, { added: [], replaced: ['slug-3'], unchanged: [] });
  assert.deepEqual(
    merged.set.fixtures.endpoints.map(({ pk, slug }) => [pk, slug]),
    [
      [1, 'slug-1'],
      [2, 'slug-3'],
    ],
  );
  assert.deepEqual(
    withoutFixture(set, 'slug-2').fixtures.endpoints.map(({ slug }) => slug),
    ['slug-1', 'slug-3'],
  );
});

test('any sequence of loads leaves each key and each slug once', () => {
  const entry = fc.record({ pk: fc.nat(4), slug: fc.nat(4) });
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 20 }), (loads) => {
      let set = NO_FIXTURES;
      for (const { pk, slug } of loads) {
        set = mergeFixtures(set, readFixtures([endpoint(pk, { endpoint_slug: `s-${slug}` })], 'f')).set;
        const { endpoints } = set.fixtures;
        assert.equal(new Set(endpoints.map((each) => each.pk)).size, endpoints.length);
        assert.equal(new Set(endpoints.map((each) => each.slug)).size, endpoints.length);
        assert.ok(endpoints.some((each) => each.pk === pk && each.slug === `s-${slug}`));
      }
    }),
  );
});

test('what was loaded is kept as it came, followed, and stays in force when its file turns bad', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'fixtures-'));
  const path = join(dataDir, 'fixtures.json');
  const clock = new ManualClock();
  const warnings: string[] = [];
  let warned = (): void => {};
  const warn = (message: string): void => {
    warnings.push(message);
    warned();
  };
  const store = new FixtureStore({ clock, warn }, { dataDir });
  try {
    await store.start();
    await store.merge(readFixtures([endpoint(1)], 'f'));
    assert.deepEqual(JSON.parse(await readFile(path, 'utf8')), [endpoint(1)]);
    const before = store.current();

    const bad = new Promise<void>((resolve) => {
      warned = resolve;
    });
    await writeFile(path, JSON.stringify([endpoint(1, { cluster: 7 })]));
    clock.advance(1000);
    await bad;
    assert.match(warnings[0] ?? '', /fixtures\.json: entry 0 .*fields\.cluster is no text/);
    assert.equal(store.current(), before);

    const changed = new Promise<void>((resolve) => {
      store.onChange(resolve);
    });
    await writeFile(path, JSON.stringify([endpoint(1), endpoint(2)]));
    clock.advance(1000);
    await changed;
    assert.deepEqual(
      store.current().endpoints.map(({ slug }) => slug),
      ['slug-1', 'slug-2'],
    );
    await store.remove('slug-1');
    await assert.rejects(store.remove('slug-1'), { code: 'not_found', message: /there are: slug-2/ });
  } finally {
    await store.stop();
    await rm(dataDir, { recursive: true });
  }
});
