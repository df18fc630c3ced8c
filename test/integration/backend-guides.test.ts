/** docs/backends/*.md: every block of commands is run as written, against servers that answer as the real ones do. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { loadConfig } from '../../node/config.ts';
import { json, OpenAiServer, type Reply, refusal } from '../support/openai-server.ts';
import { openPage, type RunnablePage } from '../support/runnable-page.ts';

const KEY = 'sk-guide-canary-0123456789';

/** The page, with addresses of stand-ins in place of those that it names. */
const guide = (t: TestContext, name: string, places: Readonly<Record<string, string>>): Promise<RunnablePage> =>
  openPage(t, `backends/${name}.md`, {
    places,
    env: { VLLM_API_KEY: KEY, LLAMA_API_KEY: KEY, OPENAI_API_KEY: KEY },
    secrets: [KEY],
  });

async function standIn(t: TestContext, models: Reply): Promise<OpenAiServer> {
  const server = await OpenAiServer.start();
  t.after(() => server.stop());
  server.models = models;
  const message = { role: 'assistant', content: 'Hello there' };
  server.reply = json(200, { choices: [{ index: 0, message, finish_reason: 'stop' }], usage: { total_tokens: 2 } });
  return server;
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
    const page = await guide(t, 'vllm', { 'http://127.0.0.1:8000': vllm.url });
    const [added, answered, keyed, shared] = await page.follow();
    assert.match(added ?? '', /vllm: it answers with 1 model\n {2}qwen\n/);
    assert.match(answered ?? '', /Hello there/);
    assert.match(keyed ?? '', /vllm: it answers with 1 model/);
    assert.equal(
      vllm.asked.some(({ headers }) => headers.authorization === `Bearer ${KEY}`),
      true,
    );
    assert.match(shared ?? '', /priority 5, boundary mesh, shared with other nodes/);
    const config = page.fences.find(({ info }) => info === 'json');
    const file = path.join(page.home, 'config.json');
    await writeFile(file, config?.body ?? '');
    const { upstreams } = loadConfig({
      ...{ flags: { config: [file] }, env: {}, cwd: page.home, home: page.home, hostName: 'x' },
    }).config;
    assert.deepEqual(upstreams, [
      { name: 'vllm', url: 'http://127.0.0.1:8000' },
      { name: 'big', url: 'http://127.0.0.1:8001', shared: true },
    ]);
  });

  test('F-4 docs/backends/ollama.md works as written', async (t) => {
    const ollama = await standIn(t, json(200, data('llama3.2:1b')));
    const page = await guide(t, 'ollama', { 'http://127.0.0.1:11434': ollama.url });
    const [added, answered, shared] = await page.follow();
    assert.match(added ?? '', /llama3\.2:1b/);
    assert.match(answered ?? '', /Hello there/);
    assert.match(shared ?? '', /shared with other nodes/);
  });

  test('F-4 docs/backends/llama-server.md works as written', async (t) => {
    const llama = await standIn(t, json(200, { data: [{ id: 'model.gguf', meta: { n_ctx: 4096 } }] }));
    const page = await guide(t, 'llama-server', { 'http://127.0.0.1:8080': llama.url });
    const [added, listed, named] = await page.follow();
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
    const page = await guide(t, 'openai', { 'https://api.openai.com': openai.url });
    const [added, named, answered, limited, several] = await page.follow();
    assert.match(added ?? '', /it answers with 2 models/);
    assert.match(named ?? '', /it answers with 2 models/);
    assert.match(answered ?? '', /Hello there/);
    // The stand-in is on loopback, hence within the mesh; a public server is refused by backends-shared.test.ts.
    assert.match(limited ?? '', /Hello there|model_not_available/);
    assert.match(several ?? '', /its manifest names 1 live server with 2 models/);
  });
});
