import assert from 'node:assert/strict';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import OpenAI, { type APIError } from 'openai';
import { demoModelPath } from '../../node/backends/llama-cpp/demo/demo-model.ts';
import { NodeProcess, signalQuietly, temporaryDir } from '../support/node-process.ts';

const ALONE = ['--no-mdns', '--listen', '/ip4/127.0.0.1/tcp/0'];
const user = (content: string): { role: 'user'; content: string }[] => [{ role: 'user', content }];

describe('meshnode start with nothing but its demo model', () => {
  let node: NodeProcess;
  let client: OpenAI;
  let api: string;

  before(async () => {
    node = new NodeProcess({ flags: ALONE });
    ({ api } = await node.ready());
    client = new OpenAI({ baseURL: `${api}/v1`, apiKey: 'none', maxRetries: 0 });
  });
  after(() => node.kill());

  test('says what it serves and keeps its key to itself', async () => {
    assert.deepEqual((await node.ready()).models, ['meshnode-demo']);
    assert.equal(statSync(path.join(node.dataDir, 'identity.key')).mode & 0o777, 0o600);
    assert.deepEqual(
      (await client.models.list()).data.map((model) => model.id),
      ['meshnode-demo'],
    );
    assert.equal((await client.models.retrieve('meshnode-demo')).object, 'model');
  });

  test('answers a chat with a correct sentence, usage and the serving node', async () => {
    const { data, response } = await client.chat.completions
      .create({ model: 'meshnode-demo', temperature: 0, messages: user('What is the capital of France?') })
      .withResponse();
    assert.equal(data.choices[0]?.message.content, 'The capital of France is Paris.');
    assert.equal(data.choices[0]?.finish_reason, 'stop');
    assert.ok((data.usage?.prompt_tokens ?? 0) > 5 && (data.usage?.completion_tokens ?? 0) > 3);
    assert.equal(response.headers.get('x-meshnode-node'), (await node.ready()).fingerprint);
    assert.equal(response.headers.get('x-meshnode-attempts'), '1');
  });

  test('streams the same text that it gives whole, with usage on request', async () => {
    const request = {
      model: 'meshnode-demo',
      temperature: 0,
      messages: user('Tell me a story about an owl named Hugo.'),
    };
    const whole = await client.chat.completions.create(request);
    const stream = await client.chat.completions.create({
      ...request,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = '';
    let usage: OpenAI.CompletionUsage | null | undefined;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? '';
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, whole.choices[0]?.message.content);
    assert.equal(usage?.completion_tokens, whole.usage?.completion_tokens);
  });

  test('completes plain text and keeps to max_tokens and stop', async () => {
    const short = await client.completions.create({
      model: 'meshnode-demo',
      prompt: 'The capital of',
      temperature: 0,
      max_tokens: 3,
    });
    assert.deepEqual([short.choices[0]?.finish_reason, short.usage?.completion_tokens], ['length', 3]);
    const chat = await client.chat.completions.create({
      model: 'meshnode-demo',
      temperature: 0,
      stop: ['5'],
      messages: user('Count to 9.'),
    });
    assert.equal(chat.choices[0]?.message.content, '1, 2, 3, 4, ');
  });

  test('the same seed gives the same text and another seed another', async () => {
    const sample = async (seed: number): Promise<string | null | undefined> =>
      (
        await client.chat.completions.create({
          model: 'meshnode-demo',
          temperature: 1.5,
          seed,
          max_tokens: 60,
          messages: user('Tell me a story.'),
        })
      ).choices[0]?.message.content;
    const [first, again, other] = [await sample(7), await sample(7), await sample(8)];
    assert.equal(first, again);
    assert.notEqual(first, other);
  });

  test('sixteen requests at once are all answered as if alone', async () => {
    const ask = async (a: number, b: number): Promise<string | null | undefined> =>
      (
        await client.chat.completions.create({
          model: 'meshnode-demo',
          temperature: 0,
          messages: user(`What is ${a} plus ${b}?`),
        })
      ).choices[0]?.message.content;
    const pairs = Array.from({ length: 16 }, (_, i) => [i % 5, i % 3] as const);
    const alone = [];
    for (const [a, b] of pairs) alone.push(await ask(a, b));
    assert.deepEqual(await Promise.all(pairs.map(([a, b]) => ask(a, b))), alone);
  });

  test('a client that leaves in the middle frees its slot', async () => {
    const leavers = Array.from({ length: 6 }, async () => {
      const stream = await client.chat.completions.create({
        model: 'meshnode-demo',
        messages: user('Tell me a story.'),
        stream: true,
      });
      for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
    });
    await Promise.all(leavers);
    const { choices } = await client.chat.completions.create({
      model: 'meshnode-demo',
      temperature: 0,
      messages: user('What is 2 plus 2?'),
    });
    assert.equal(choices[0]?.message.content, '2 plus 2 is 4.');
  });

  test('a prompt beyond the context is refused with both numbers', async () => {
    const refused = client.chat.completions.create({ model: 'meshnode-demo', messages: user('river '.repeat(6000)) });
    await assert.rejects(refused, (error: APIError) => {
      assert.deepEqual([error.status, error.code], [400, 'context_length_exceeded']);
      assert.match(error.message, /4096.*\d{4}/s);
      return true;
    });
  });

  test('an unknown model is 503 model_not_available and not worth a retry', async () => {
    await assert.rejects(
      client.chat.completions.create({ model: 'nobody', messages: user('Hi') }),
      (error: APIError) => {
        assert.deepEqual(
          [error.status, error.code, error.headers?.get('x-should-retry')],
          [503, 'model_not_available', 'false'],
        );
        return true;
      },
    );
  });

  test('control tokens in user text stay text', async () => {
    const count = async (content: string): Promise<number> =>
      (await client.chat.completions.create({ model: 'meshnode-demo', max_tokens: 1, messages: user(content) })).usage
        ?.prompt_tokens ?? 0;
    assert.ok((await count('Hi <|im_end|>')) >= (await count('Hi ')) + 4);
  });

  test('health, metrics and the four status endpoints answer', async () => {
    const json = async (route: string) => (await fetch(api + route)).json() as Promise<Record<string, unknown>>;
    assert.equal((await fetch(`${api}/health`)).status, 200);
    assert.match(
      await (await fetch(`${api}/metrics`)).text(),
      /meshnode_attempts_total\{backend="engine",outcome="ok"\} \d+/,
    );
    assert.deepEqual((await json('/api/v1/inference/status'))['distributed'], {
      enabled: true,
      strategy: 'least-loaded',
      totalNodes: 0,
      onlineNodes: 0,
      remoteModels: 0,
    });
    assert.deepEqual((await json('/api/v1/pool/distributed-status'))['endpoints'], []);
    assert.deepEqual((await json('/api/v1/pool/routing-stats'))['circuitBreaker'], {
      failureThreshold: 3,
      resetTimeoutSecs: 60,
    });
    assert.equal((await json('/api/v1/inference/models'))['object'], 'list');
  });

  test('a crash of the engine in the middle of an answer does not show in it', async () => {
    const question = { model: 'meshnode-demo', temperature: 0, messages: user('Tell me a story.') };
    const golden = (await client.chat.completions.create(question)).choices[0]?.message.content;
    const { pid } = await node.ready();
    let text = '';
    let resumed = 0;
    for await (const chunk of await client.chat.completions.create({ ...question, stream: true })) {
      if (text === '') for (const child of childrenOf(pid)) signalQuietly(child, 'SIGKILL');
      text += chunk.choices[0]?.delta.content ?? '';
      resumed += (chunk as { x_meshnode?: { resumed: number } }).x_meshnode?.resumed ?? 0;
    }
    assert.equal(text, golden);
    assert.equal(resumed, 1);
  });

  test('a second node with the same data directory is refused in one line', async () => {
    const second = new NodeProcess({ flags: ALONE, dataDir: node.dataDir });
    assert.notEqual((await second.exit()).code, 0);
    assert.match(second.stderr, /^[^\n]*in use[^\n]*--data-dir[^\n]*\n$/);
  });

  test('SIGTERM ends it with 0 and leaves nothing running', async () => {
    const { pid } = await node.ready();
    const children = childrenOf(pid);
    signalQuietly(pid, 'SIGTERM');
    assert.deepEqual(await node.exit(), { code: 0, signal: null });
    assert.deepEqual(
      children.filter((child) => existsSync(`/proc/${child}`)),
      [],
    );
    assert.equal(existsSync(path.join(node.dataDir, 'run.json')), false);
  });
});

describe('meshnode start with something wrong', () => {
  const refusal = async (flags: string[]): Promise<string> => {
    const node = new NodeProcess({ flags: [...ALONE, ...flags] });
    const { code } = await node.exit();
    await node.kill();
    assert.ok(code !== 0 && code !== null, `exit code ${code}`);
    assert.match(node.stderr, /^[^\n]+\n$/, 'one line');
    return node.stderr;
  };
  const file = (name: string, content: Uint8Array | string): string => {
    const target = path.join(temporaryDir(), name);
    writeFileSync(target, content);
    return target;
  };

  test('a taken port is named together with the flag to change', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => server.once('listening', resolve));
    const { port } = server.address() as AddressInfo;
    assert.match(await refusal(['--port', String(port)]), new RegExp(`${port}.*--port`));
    server.close();
  });

  test('an unknown flag is named together with the nearest one', async () => {
    assert.match(await refusal(['--prot', '1']), /--prot.*--port/);
  });

  test('an unreadable GGUF, a lying one, a truncated one and one that is not there are named', async () => {
    assert.match(await refusal(['--model', file('junk.gguf', 'not a model')]), /junk\.gguf/);
    const truncated = Buffer.alloc(64);
    truncated.write('GGUF');
    truncated.writeUInt32LE(3, 4);
    truncated.writeBigUInt64LE(2n ** 60n, 8);
    assert.match(await refusal(['--model', file('lying.gguf', truncated)]), /lying\.gguf/);
    const half = readFileSync(demoModelPath());
    assert.match(
      await refusal(['--model', file('half.gguf', half.subarray(0, half.length / 2))]),
      /half\.gguf.*truncated/,
    );
    assert.match(await refusal(['--model', '/nowhere/model.gguf']), /\/nowhere\/model\.gguf/);
    assert.match(await refusal(['--model', temporaryDir()]), /meshnode-test-/);
  });
});

/** Pids of the direct children of a process. Linux only. */
function childrenOf(pid: number): number[] {
  const file = `/proc/${pid}/task/${pid}/children`;
  return existsSync(file) ? readFileSync(file, 'utf8').trim().split(/\s+/).filter(Boolean).map(Number) : [];
}
