/** docs/backends/*.md: every block of commands is run as written, against servers that answer as the real ones do. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { describe, type TestContext, test } from 'node:test';
import { loadConfig } from '../../node/config.ts';
import { MESHNODE, spawnCli } from '../support/cli-process.ts';
import { json, OpenAiServer, type Reply, refusal } from '../support/openai-server.ts';

const DOCS = path.resolve(import.meta.dirname, '../../docs/backends');
const KEY = 'sk-guide-canary-0123456789';

/** A fenced block: what stands behind its fence, and its lines. */
interface Block {
  readonly info: string;
  readonly body: string;
}

async function blocksOf(page: string): Promise<readonly Block[]> {
  const markdown = await readFile(path.join(DOCS, page), 'utf8');
  return [...markdown.matchAll(/^```(.*)\n([\s\S]*?)^```$/gm)].map(([, info = '', body = '']) => ({ info, body }));
}

/** An empty home in which pages are run. */
interface Home {
  readonly env: Record<string, string>;
  readonly home: string;
  /** Addresses of the page with those of here. */
  translate(body: string): string;
  run(script: string): Promise<string>;
  start(command: string): Promise<void>;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}

async function emptyHome(t: TestContext, servers: Readonly<Record<string, string>>): Promise<Home> {
  const home = await mkdtemp(path.join(tmpdir(), 'meshnode-guide-'));
  const shim = path.join(home, 'meshnode');
  await writeFile(shim, `#!/bin/sh\nexec "${process.execPath}" "${MESHNODE}" "$@"\n`);
  await chmod(shim, 0o755);
  const port = await freePort();
  const env = {
    PATH: `${home}:${process.env['PATH']}`,
    HOME: home,
    MESHNODE_PORT: String(port),
    MESHNODE_NO_MDNS: '1',
    MESHNODE_LISTEN: '/ip4/127.0.0.1/tcp/0',
    VLLM_API_KEY: KEY,
    LLAMA_API_KEY: KEY,
    OPENAI_API_KEY: KEY,
    SERVICE_KEYS: JSON.stringify({ 'openai-production': KEY }),
  };
  let node: ChildProcess | null = null;
  t.after(async () => {
    if (node?.exitCode === null) {
      node.kill('SIGTERM');
      await once(node, 'exit');
    }
    await rm(home, { recursive: true, force: true });
  });
  const places = Object.entries({ ...servers, 'http://127.0.0.1:8642': `http://127.0.0.1:${port}` });
  return {
    home,
    env,
    translate: (body) => places.reduce((said, [from, to]) => said.replaceAll(from, to), body),
    async run(script) {
      const child = spawn('sh', ['-e', '-c', script], { cwd: home, env, stdio: ['ignore', 'pipe', 'pipe'] });
      const [out, err, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
      assert.equal(code, 0, `${script}\n${out}${err}`);
      assert.equal(`${out}${err}`.includes(KEY), false, 'no command shows a key');
      return out;
    },
    async start(command) {
      const [, ...words] = command.trim().split(' ');
      node = spawnCli([...words, '--log-format', 'json'], { home, env }, ['ignore', 'pipe', 'inherit']);
      for await (const piece of node.stdout ?? []) if (String(piece).includes('"ready"')) break;
      assert.equal(node.exitCode, null);
      node.stdout?.resume();
    },
  };
}

async function standIn(t: TestContext, models: Reply): Promise<OpenAiServer> {
  const server = await OpenAiServer.start();
  t.after(() => server.stop());
  server.models = models;
  const message = { role: 'assistant', content: 'Hello there' };
  server.reply = json(200, { choices: [{ index: 0, message, finish_reason: 'stop' }], usage: { total_tokens: 2 } });
  return server;
}

/** The output of each block in the order of the page; files are written, commands run, starts left running. */
async function runPage(page: string, home: Home): Promise<readonly string[]> {
  const said: string[] = [];
  const markdown = await readFile(path.join(DOCS, page), 'utf8');
  assert.match(markdown, /is run as written by `test\/integration\/backend-guides\.test\.ts`/, 'the page says so');
  for (const { info, body } of await blocksOf(page)) {
    const [language, rest = ''] = info.split(' ');
    const here = home.translate(body);
    if (language === 'json' && rest !== '') await writeFile(path.join(home.home, rest), here);
    else if (language === 'sh' && rest === 'start') await home.start(here);
    else if (language === 'sh') said.push(await home.run(here));
    else assert.equal(language, 'json', `${page}: a block of ${info} that nobody runs`);
  }
  return said;
}

const data = (...ids: readonly string[]): object => ({
  object: 'list',
  data: ids.map((id) => ({ id, object: 'model' })),
});

// Each page waits for processes most of the time.
describe('the guides of docs/backends', { concurrency: true }, () => {
  test('F-4 docs/backends/vllm.md works as written', async (t) => {
    const vllm = await standIn(t, (response, asked) => {
      if (asked.path === '/metrics') return void response.end('vllm:num_requests_waiting{model_name="qwen"} 0.0\n');
      return json(200, { data: [{ id: 'qwen', owned_by: 'vllm', max_model_len: 32_768 }] })(response, asked);
    });
    const home = await emptyHome(t, { 'http://127.0.0.1:8000': vllm.url });
    const [added, answered, keyed, shared] = await runPage('vllm.md', home);
    assert.match(added ?? '', /vllm: it answers with 1 model\n {2}qwen\n/);
    assert.match(answered ?? '', /Hello there/);
    assert.match(keyed ?? '', /vllm: it answers with 1 model/);
    assert.equal(
      vllm.asked.some(({ headers }) => headers.authorization === `Bearer ${KEY}`),
      true,
    );
    assert.match(shared ?? '', /priority 5, boundary mesh, shared with other nodes/);
    const [config] = (await blocksOf('vllm.md')).filter(({ info }) => info === 'json');
    const file = path.join(home.home, 'config.json');
    await writeFile(file, config?.body ?? '');
    const { upstreams } = loadConfig({
      ...{ flags: { config: [file] }, env: {}, cwd: home.home, home: home.home, hostName: 'x' },
    }).config;
    assert.deepEqual(upstreams, [
      { name: 'vllm', url: 'http://127.0.0.1:8000' },
      { name: 'big', url: 'http://127.0.0.1:8001', shared: true },
    ]);
  });

  test('F-4 docs/backends/ollama.md works as written', async (t) => {
    const ollama = await standIn(t, json(200, data('llama3.2:1b')));
    const home = await emptyHome(t, { 'http://127.0.0.1:11434': ollama.url });
    const [added, answered, shared] = await runPage('ollama.md', home);
    assert.match(added ?? '', /llama3\.2:1b/);
    assert.match(answered ?? '', /Hello there/);
    assert.match(shared ?? '', /shared with other nodes/);
  });

  test('F-4 docs/backends/llama-server.md works as written', async (t) => {
    const llama = await standIn(t, json(200, { data: [{ id: 'model.gguf', meta: { n_ctx: 4096 } }] }));
    const home = await emptyHome(t, { 'http://127.0.0.1:8080': llama.url });
    const [added, listed, named] = await runPage('llama-server.md', home);
    assert.match(added ?? '', /it answers with 1 model/);
    assert.match(listed ?? '', /model\.gguf/);
    assert.match(named ?? '', /\$LLAMA_API_KEY/);
  });

  test('F-5 F-18 docs/backends/openai.md works as written', async (t) => {
    const models = json(200, data('gpt-4o', 'gpt-4o-mini'));
    const openai = await standIn(t, (response, asked) => {
      const isRight = asked.headers.authorization === `Bearer ${KEY}`;
      return (isRight ? models : refusal(401, { message: 'no key' }))(response, asked);
    });
    const home = await emptyHome(t, { 'https://api.openai.com': openai.url });
    const [added, named, answered, limited, several] = await runPage('openai.md', home);
    assert.match(added ?? '', /it answers with 2 models/);
    assert.match(named ?? '', /it answers with 2 models/);
    assert.match(answered ?? '', /Hello there/);
    // The stand-in is on loopback, hence within the mesh; a public server is refused by backends-shared.test.ts.
    assert.match(limited ?? '', /Hello there|model_not_available/);
    assert.match(several ?? '', /its manifest names 1 live server with 2 models/);
  });
});
