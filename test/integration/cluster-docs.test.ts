/** docs/cluster.md and the scenario pages, every command as it is written, against a stand-in cluster. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { ClusterManager, KEYPAIR } from '../support/cluster-manager/manager.ts';
import { json, OpenAiServer } from '../support/openai-server.ts';
import { openPage, type PageOptions } from '../support/runnable-page.ts';

const MODEL = 'llama-3-70b';

async function managerFor(context: TestContext): Promise<ClusterManager> {
  const manager = await ClusterManager.start();
  context.after(() => manager.stop());
  return manager;
}

async function runs(
  context: TestContext,
  page: string,
  { url }: ClusterManager,
  { env = {}, ...options }: PageOptions = {},
): Promise<readonly string[]> {
  const opened = await openPage(context, page, {
    env: { CLUSTER_URL: url, CLUSTER_ACCESS_KEY: KEYPAIR.accessKey, CLUSTER_SECRET_KEY: KEYPAIR.secretKey, ...env },
    ...options,
    secrets: [KEYPAIR.secretKey],
  });
  return await opened.follow();
}

test('C-1 the page on clusters runs as written', async (context) => {
  const manager = await managerFor(context);
  manager.addService('llama-svc', MODEL);
  const places = { 'https://api.my-cluster.ai': manager.url };
  const env = { ACCESS_KEY: KEYPAIR.accessKey, SECRET_KEY: KEYPAIR.secretKey };
  const [, , running = ''] = await runs(context, 'cluster.md', manager, { env, places, serves: MODEL });
  assert.match(running, /"id":"company".*"status":"connected"/);
  assert.equal(manager.app.asked.filter(({ method }) => method === 'POST').length, 0, 'nobody was asked anything');
});

test('C-1 C-14 the page "small here, large there" runs as written', async (context) => {
  const manager = await managerFor(context);
  await runs(context, 'scenarios/small-here-large-there.md', manager);
  assert.equal(manager.sessions.all[0]?.states.at(-1)?.startsWith('TERMINAT'), true);
  assert.equal(manager.services.all[0]?.desired, 1);
});

test('C-16 the page "sensitive data" runs as written, and the prompt reaches the internet only where it may', async (context) => {
  const cloud = await OpenAiServer.start();
  context.after(() => cloud.stop());
  cloud.models = json(200, { object: 'list', data: [{ id: MODEL, object: 'model' }] });
  const choice = { index: 0, message: { role: 'assistant', content: 'Hello' }, finish_reason: 'stop' };
  const usage = { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 };
  cloud.reply = json(200, { id: 'c', object: 'chat.completion', choices: [choice], usage });
  const manager = await managerFor(context);
  manager.addService('their-llama', MODEL);
  const env = { PUBLIC_URL: cloud.url, PUBLIC_KEY: 'sk-stand-in' };
  await runs(context, 'scenarios/sensitive-data.md', manager, { env });
  const told = cloud.asked.filter(({ body }) => body.includes('Patient 4711'));
  assert.equal(told.length, 1, 'the one without a limit');
});

test('C-15 the page "batch on the cluster" runs as written', async (context) => {
  const manager = await managerFor(context);
  await runs(context, 'scenarios/batch-on-the-cluster.md', manager);
  assert.equal(manager.app.asked.filter(({ method }) => method === 'POST').length, 20);
  assert.equal(manager.services.all[0]?.desired, 0);
});
