/** docs/backends/first.md: its files are written and its commands run as they stand, against a stand-in for Globus. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { GlobusStandIn } from '../support/globus-stand-in.ts';
import { firstFunction, qstatFunction } from '../support/globus-stand-in-functions.ts';
import { completion } from '../support/globus-stand-in-requests.ts';
import { ACCOUNT, ENDPOINT, FUNCTION, MODEL } from '../support/globus-stand-in-site.ts';
import { json, OpenAiServer } from '../support/openai-server.ts';
import { RunnablePage } from '../support/runnable-page.ts';

const QSTAT = { endpoint: '5a1f9c3e-0000-4000-8000-00000000e00a', function: '5a1f9c3e-0000-4000-8000-00000000f00a' };
const CLOUD_KEY = 'sk-cloud-canary-0123';

let globus: GlobusStandIn;
/** The model server beside the Globus endpoint, and the one of the direct endpoint. */
let vllm: OpenAiServer;
let cloud: OpenAiServer;
let page: RunnablePage;

before(async () => {
  [globus, vllm, cloud] = await Promise.all([GlobusStandIn.start(), OpenAiServer.start(), OpenAiServer.start()]);
  vllm.reply = json(200, completion('from the cluster'));
  globus.accounts.set(ACCOUNT.id, ACCOUNT.secret);
  globus.endpoints.set(ENDPOINT, { status: 'online', managers: 1, allowed: [FUNCTION] });
  globus.endpoints.set(QSTAT.endpoint, { status: 'online', managers: 1, allowed: [QSTAT.function] });
  globus.functions.set(FUNCTION, firstFunction());
  const jobs = {
    running: [{ Models: MODEL, 'Model Status': 'running' }],
    queued: [],
    cluster_status: { free_nodes: 2 },
  };
  globus.functions.set(
    QSTAT.function,
    qstatFunction(() => jobs),
  );
  page = await RunnablePage.open('backends/first.md', {
    places: { '"api_port": 8000': `"api_port": ${new URL(vllm.url).port}`, 'http://127.0.0.1:8001': cloud.url },
    env: {
      MESHNODE_SECRETS_STORE: 'plain',
      GLOBUS_SDK_SERVICE_URL_AUTH: globus.hosts.authUrl,
      GLOBUS_SDK_SERVICE_URL_COMPUTE: globus.hosts.computeUrl,
      GLOBUS_CLIENT_ID: ACCOUNT.id,
      GLOBUS_SECRET: ACCOUNT.secret,
      CLOUD_KEY,
    },
    secrets: [ACCOUNT.secret, CLOUD_KEY],
    serves: MODEL,
  });
});

after(async () => {
  await page?.close();
  await Promise.all([globus?.stop(), vllm?.stop(), cloud?.stop()]);
});

test('F-17 F-18 F-20 the page on fixtures works as written', async () => {
  const [loaded = '', account = '', used = '', bounded = '', direct = ''] = await page.follow();
  assert.match(loaded, /2 added, 0 replaced, 0 unchanged \(nothing was done: --dry-run\)/);
  assert.match(loaded, /globus +sophia-vllm-meta-llamameta-llama-31-8b-instruct +sophia +meta-llama/);
  assert.match(account, /Kept: the credentials of every Globus cluster\.\nGlobus takes them\./);
  assert.match(used, /globus:sophia-vllm|sophia-vllm-meta-llamameta/);
  assert.match(used, /from the cluster/);
  assert.match(bounded, /not available within the boundary/);
  assert.match(direct, /127\.0\.0\.1:\d+ is shown the key in \$CLOUD_KEY/);
  assert.match(direct, /Kept: the credentials of cloud-api-gpt-4o-mini\./);
});

test('F-5 F-20 a direct endpoint that is loaded while the node runs is used with the key of the store', async () => {
  cloud.reply = json(200, completion('from the cloud'));
  const bound = AbortSignal.timeout(30_000);
  for (;;) {
    const response = await fetch(`${page.api}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'gpt-4o-mini', messages: [{ role: 'user', content: 'Hi' }] }),
    });
    const body = await response.text();
    if (response.status === 200) {
      assert.match(body, /from the cloud/);
      assert.equal(response.headers.get('x-meshnode-node'), 'direct:cloud-api-gpt-4o-mini');
      break;
    }
    bound.throwIfAborted();
    await setTimeout(100);
  }
  assert.equal(cloud.inferences.at(-1)?.headers.authorization, `Bearer ${CLOUD_KEY}`);
});

test('F-17 what is wrong with a file is told in one line, and nothing of it is loaded', async () => {
  const refused = 'code=0; meshnode fixtures load endpoints.json bad.json || code=$?; echo "code $code"';
  const bad = path.join(page.home, 'bad.json');
  writeFileSync(bad, '[{"model": "x.endpoint", "pk": 9, "fields": {"cluster": 7}}]');
  const wrongField = 'meshnode: bad.json: entry 0 (x.endpoint 9): fields.cluster is no text\ncode 2\n';
  assert.equal(await page.run(refused), wrongField);
  writeFileSync(bad, '[\n{"model": 1,,}\n]');
  assert.equal(await page.run(refused), 'meshnode: bad.json is no JSON, line 2\ncode 2\n');
  const wrong = 'printf wrong | meshnode fixtures credentials --id 5a1f --key-stdin --json || true';
  assert.match(await page.run(wrong), /"problem":"Globus Auth does not know this service account/);
  const removed = await page.run('meshnode fixtures credentials --remove; meshnode fixtures remove sophia');
  assert.match(removed, /Forgotten: .*\nsophia is forgotten\.\n/);
});
