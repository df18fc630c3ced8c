/** The scenario pages, every command as it is written, against a stand-in cluster. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { type TestContext, test } from 'node:test';
import { COMMANDS } from '../../cli/main.ts';
import { ClusterManager, KEYPAIR } from '../support/cluster-manager/manager.ts';
import { runPage } from '../support/cluster-manager/runnable-page.ts';
import { json, OpenAiServer } from '../support/openai-server.ts';

const MODEL = 'llama-3-70b';
const PAGES = new URL('../../docs/scenarios/', import.meta.url).pathname;

/** Free a moment ago: a page's node must be told a port. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}

async function runs(context: TestContext, page: string, env: Record<string, string> = {}): Promise<ClusterManager> {
  const manager = await ClusterManager.start();
  context.after(() => manager.stop());
  if (page === 'sensitive-data') manager.addService('their-llama', MODEL);
  const { exitCode, blocks } = await runPage(`${PAGES}${page}.md`, {
    CLUSTER_URL: manager.url,
    CLUSTER_ACCESS_KEY: KEYPAIR.accessKey,
    CLUSTER_SECRET_KEY: KEYPAIR.secretKey,
    MESHNODE_PORT: String(await freePort()),
    MESHNODE_NO_MDNS: 'true',
    MESHNODE_LISTEN: '/ip4/127.0.0.1/tcp/0',
    ...env,
  });
  const all = blocks.map(({ output }) => output).join('\n');
  assert.equal(exitCode, 0, all);
  assert.ok(blocks.length > 1);
  for (const { code, expected, output } of blocks) {
    for (const line of expected) assert.ok(output.includes(line), `"${line}" after\n${code}\nin\n${output}`);
  }
  assert.ok(!all.includes(KEYPAIR.secretKey), 'the secret is shown nowhere');
  return manager;
}

test('C-1 C-14 the page "small here, large there" runs as written', async (context) => {
  const manager = await runs(context, 'small-here-large-there');
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
  await runs(context, 'sensitive-data', { PUBLIC_URL: cloud.url, PUBLIC_KEY: 'sk-stand-in' });
  const told = cloud.asked.filter(({ body }) => body.includes('Patient 4711'));
  assert.equal(told.length, 1, 'the one without a limit');
});

test('C-15 the page "batch on the cluster" runs as written', async (context) => {
  if (!COMMANDS.some(({ name }) => name === 'batch')) return context.skip('there is no `meshnode batch` yet');
  const manager = await runs(context, 'batch-on-the-cluster');
  assert.equal(manager.app.asked.filter(({ method }) => method === 'POST').length, 20);
  assert.equal(manager.services.all[0]?.desired, 0);
});
