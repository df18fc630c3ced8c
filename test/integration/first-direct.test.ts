/** Direct endpoints of FIRST's fixtures, whose cluster has a status manifest. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readFixtures } from '../../node/storage/fixtures/fixture-set.ts';
import { StandInSite } from '../support/globus-stand-in-site.ts';
import { json, OpenAiServer } from '../support/openai-server.ts';

const MODELS = ['live', 'stopped', 'maintained', 'unlisted'];

function clusterOf(statusUrl: string): object {
  return {
    model: 'resource_server_async.cluster',
    pk: 1,
    fields: {
      ...{ cluster_name: 'cloud', frameworks: ['api'], openai_endpoints: ['chat/completions'] },
      ...{ cluster_adapter: 'x.DirectAPICluster', config: { status_url: statusUrl } },
    },
  };
}

function endpointOf(model: string, apiUrl: string): object {
  return {
    model: 'resource_server_async.endpoint',
    pk: model,
    fields: {
      ...{ endpoint_slug: `cloud-${model}`, cluster: 'cloud', framework: 'api', model },
      endpoint_adapter: 'resource_server_async.endpoints.direct_api.DirectAPIEndpoint',
      config: { api_url: apiUrl, api_key_env_name: null },
    },
  };
}

test('F-18 F-32 the status manifest of a direct cluster says which of its models take requests', async (t) => {
  const server = await OpenAiServer.start();
  const entry = (status: string, experts: readonly string[]): object => ({
    ...{ status, model: 'x', description: '', url: `${server.url}/v1`, endpoint_id: 'e', experts },
  });
  const manifest = {
    a: entry('Live', ['live']),
    b: entry('Stopped', ['stopped', 'live']),
    c: entry('Maintenance', ['maintained']),
  };
  server.models = (response, asked) =>
    asked.path === '/status'
      ? json(200, manifest)(response, asked)
      : json(200, { object: 'list', data: MODELS.map((id) => ({ id, object: 'model' })) })(response, asked);
  const entries = () => [
    clusterOf(`${server.url}/status`),
    ...MODELS.map((model) => endpointOf(model, `${server.url}/v1`)),
  ];
  const site = await StandInSite.start({ entries });
  t.after(async () => {
    await site.stop();
    await server.stop();
  });
  const stateOf = (model: string): string => site.sites.stateOf(`cloud-${model}`).state;
  await site.until(() => MODELS.every((model) => stateOf(model) !== 'unknown') && stateOf('stopped') !== 'running');
  assert.deepEqual(MODELS.map(stateOf), ['running', 'stopped', 'queued', 'running']);
  assert.deepEqual(
    MODELS.filter((model) => site.sites.holders(model).length > 0),
    ['live', 'unlisted'],
  );
  const views = new Map(site.sites.list().map((view) => [view.name, view]));
  assert.equal(views.get('cloud-maintained')?.problem, 'the status manifest of its cluster says Maintenance');
  assert.deepEqual(views.get('cloud-stopped')?.models, []);
  assert.equal(server.asked.filter(({ path }) => path === '/status').length, 1, 'one question for all of them');
});

test('F-18 a status URL is no file, and leads to no metadata address', () => {
  for (const url of ['/etc/passwd', 'file:///etc/passwd', 'http://169.254.169.254/status']) {
    assert.throws(() => readFixtures([clusterOf(url)], 'f.json'), /fields\.config\.status_url cannot be used/);
  }
});
