/** What FIRST's fixtures mean here, in FIRST's own names and numbers. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readFixtures } from '../../node/storage/fixtures/fixture-set.ts';
import { slugify } from '../../node/storage/fixtures/slug.ts';

function endpoint(adapter: string, config: object): object {
  const fields = {
    endpoint_slug: 'a',
    cluster: 'cloud',
    framework: 'api',
    model: 'm',
    endpoint_adapter: adapter,
    config,
  };
  return { model: 'resource_server_async.endpoint', pk: 1, fields };
}

const DIRECT = 'resource_server_async.endpoints.direct_api.DirectAPIEndpoint';

test('F-37 slugs are those that Django makes', () => {
  const name = 'sophia vllm meta-llama/Meta-Llama-3.1-70B-Instruct';
  assert.equal(slugify(name), 'sophia-vllm-meta-llamameta-llama-31-70b-instruct');
});

test('F-41 the last part of an adapter’s path says what it is, and an unknown one is an error that names it', () => {
  const [read] = readFixtures([endpoint(DIRECT, { api_url: 'https://host.example/v1' })], 'f.json').fixtures.endpoints;
  assert.equal(read?.kind, 'direct');
  assert.throws(
    () => readFixtures([endpoint('a.b.SpaceshipEndpoint', {})], 'f.json'),
    /f\.json: entry 0 .*endpoint_adapter/,
  );
});

test('F-42 a direct endpoint has 120 s to answer unless its fixture says otherwise', () => {
  const timeouts = [{}, { api_request_timeout: 30 }].map(
    (more) =>
      readFixtures([endpoint(DIRECT, { api_url: 'https://host.example/v1', ...more })], 'f.json').fixtures.endpoints[0]
        ?.direct?.timeoutMs,
  );
  assert.deepEqual(timeouts, [120_000, 30_000]);
});
