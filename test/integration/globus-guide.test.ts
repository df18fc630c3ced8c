/** docs/backends/first.md: its files are written and its commands run as they stand, against a stand-in for Globus. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { MESHNODE } from '../support/cli-process.ts';
import { GlobusStandIn } from '../support/globus-stand-in.ts';
import { firstFunction, qstatFunction } from '../support/globus-stand-in-functions.ts';
import { completion } from '../support/globus-stand-in-requests.ts';
import { ACCOUNT, ENDPOINT, FUNCTION, MODEL } from '../support/globus-stand-in-site.ts';
import { NodeProcess, temporaryDir } from '../support/node-process.ts';
import { json, OpenAiServer } from '../support/openai-server.ts';

const PAGE = path.join(import.meta.dirname, '../../docs/backends/first.md');
const QSTAT = { endpoint: '5a1f9c3e-0000-4000-8000-00000000e00a', function: '5a1f9c3e-0000-4000-8000-00000000f00a' };
const CLOUD_KEY = 'sk-cloud-canary-0123';

let globus: GlobusStandIn;
/** The model server beside the Globus endpoint, and the one of the direct endpoint. */
let vllm: OpenAiServer;
let cloud: OpenAiServer;
let node: NodeProcess | null = null;
const home = temporaryDir();
const dataDir = path.join(home, 'data');

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
  writeFileSync(path.join(home, 'meshnode'), `#!/bin/sh\nexec "${process.execPath}" "${MESHNODE}" "$@"\n`);
  chmodSync(path.join(home, 'meshnode'), 0o755);
});

after(async () => {
  await node?.kill();
  await Promise.all([globus?.stop(), vllm?.stop(), cloud?.stop()]);
});

const environment = (): Record<string, string> => ({
  PATH: `${home}:${process.env['PATH']}`,
  HOME: home,
  MESHNODE_DATA_DIR: dataDir,
  MESHNODE_SECRETS_STORE: 'plain',
  GLOBUS_SDK_SERVICE_URL_AUTH: globus.hosts.authUrl,
  GLOBUS_SDK_SERVICE_URL_COMPUTE: globus.hosts.computeUrl,
  GLOBUS_CLIENT_ID: ACCOUNT.id,
  GLOBUS_SECRET: ACCOUNT.secret,
  CLOUD_KEY,
});

/** Fenced blocks of the page in order: what stands behind the fence, and the lines. */
function blocks(): readonly (readonly [info: string, body: string])[] {
  return [...readFileSync(PAGE, 'utf8').matchAll(/^```(.*)\n([\s\S]*?)^```$/gm)].map(([, info = '', body = '']) => [
    info,
    body,
  ]);
}

/** What the commands print, errors too; no secret is in it. */
async function run(script: string, api: string): Promise<string> {
  const line = script.replaceAll('http://127.0.0.1:8642', api);
  const { stdout, stderr } = await promisify(execFile)('sh', ['-e', '-c', line], { cwd: home, env: environment() });
  for (const secret of [ACCOUNT.secret, CLOUD_KEY]) assert.ok(!`${stdout}${stderr}`.includes(secret), line);
  return `${stdout}${stderr}`;
}

/** A node of this home, once the model is there. */
async function started(): Promise<string> {
  node = new NodeProcess({
    dataDir,
    flags: ['--port', '0', '--listen', '/ip4/127.0.0.1/tcp/0', '--no-mdns', '--no-dht', '--gpu', 'off'],
    env: environment(),
  });
  const { api } = await node.ready();
  const bound = AbortSignal.timeout(30_000);
  while (!JSON.stringify(await (await fetch(`${api}/v1/models`)).json()).includes(MODEL)) {
    bound.throwIfAborted();
    await setTimeout(50);
  }
  return api;
}

test('F-17 F-18 F-20 the page on fixtures works as written', async () => {
  const said: string[] = [];
  let api = '';
  for (const [info, body] of blocks()) {
    const [language, rest] = info.split(' ');
    const port = new URL(vllm.url).port;
    const here = body
      .replaceAll('"api_port": 8000', `"api_port": ${port}`)
      .replaceAll('http://127.0.0.1:8001', cloud.url);
    if (language === 'json') writeFileSync(path.join(home, rest ?? ''), here);
    else if (rest === 'start') api = await started();
    else said.push(await run(here, api));
  }
  const [loaded = '', account = '', used = '', bounded = '', direct = ''] = said;
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
  const api = (await node?.ready())?.api ?? '';
  const bound = AbortSignal.timeout(30_000);
  for (;;) {
    const response = await fetch(`${api}/v1/chat/completions`, {
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
  writeFileSync(path.join(home, 'bad.json'), '[{"model": "x.endpoint", "pk": 9, "fields": {"cluster": 7}}]');
  await assert.rejects(
    run('meshnode fixtures load endpoints.json bad.json', ''),
    (error: { code: number; stderr: string }) => {
      assert.equal(error.code, 2);
      assert.equal(error.stderr, 'meshnode: bad.json: entry 0 (x.endpoint 9): fields.cluster is no text\n');
      return true;
    },
  );
  writeFileSync(path.join(home, 'bad.json'), '[\n{"model": 1,,}\n]');
  await assert.rejects(run('meshnode fixtures load bad.json', ''), {
    stderr: /^meshnode: bad\.json is no JSON, line 2\n$/,
  });
  const wrong = 'printf wrong | meshnode fixtures credentials --id 5a1f --key-stdin --json';
  assert.match(await run(wrong, ''), /"problem":"Globus Auth does not know this service account/);
  const removed = await run('meshnode fixtures credentials --remove; meshnode fixtures remove sophia', '');
  assert.match(removed, /Forgotten: .*\nsophia is forgotten\.\n/);
});
