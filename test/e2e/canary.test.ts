/** Plants secrets into real nodes, makes everything fail that can, and looks for them in all that comes out. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { privateKeyFromProtobuf } from '@libp2p/crypto/keys';
import { demoModelPath } from '../../node/backends/llama-cpp/demo/demo-model.ts';
import { Canaries } from '../support/canaries.ts';
import type { CliResult } from '../support/cli-process.ts';
import { signalQuietly } from '../support/node-process.ts';
import { delta, json, OpenAiServer, opened, streamed } from '../support/openai-server.ts';
import {
  API_KEY,
  echo,
  MISBEHAVIOURS,
  PASSPHRASE,
  PROMPT,
  processes,
  readQuietly,
  WatchedNode,
} from '../support/watched-node.ts';

const PEER_KEY = 'mk_peer+canary/8Jd=wQ5~';
const WRONG_PEER_KEY = 'mk_wrong+canary/3Rt=yU7~';
const HTTP_KEY = 'sk-http+canary/6Hb=nM1~';
const WRONG_API_KEY = 'sk-guess+canary/1Lp=cV4~';
const LINUX = process.platform === 'linux';

async function misbehave(node: WatchedNode, server: OpenAiServer): Promise<void> {
  for (const reply of MISBEHAVIOURS) {
    server.reply = reply;
    await node.chat('m');
    await node.chat('m', true);
  }
}

/** Kills an engine child in the middle of an answer. */
async function crashEngine(node: WatchedNode): Promise<void> {
  const asked = node.chat('meshnode-demo', true, { max_tokens: 400 });
  for (let tries = 0; tries < 200; tries += 1) {
    const engine = node.pids().find((pid) => readQuietly(`/proc/${pid}/cmdline`).includes('engine-child'));
    if (engine !== undefined) {
      node.say('ps', processes());
      signalQuietly(engine, 'SIGSEGV');
      break;
    }
    await setTimeout(20);
  }
  await asked;
}

/** Looks at the node in every way that it has. */
async function lookAround(node: WatchedNode): Promise<void> {
  const routes = ['/', '/health', '/metrics', '/v1/models', '/api/v1/node', '/api/v1/peers', '/api/v1/nowhere'];
  const pool = [
    'inference/status',
    'inference/models',
    'pool/distributed-status',
    'pool/routing-stats',
    'requests/try-1',
  ];
  for (const route of [...routes, ...pool.map((each) => `/api/v1/${each}`)]) await node.http(route);
  await node.http('/v1/models', undefined, WRONG_API_KEY);
  await node.http('/v1/chat/completions', `{"model":"m","messages":"${PROMPT}`);
  await node.http('/v1/chat/completions', JSON.stringify({ model: 'm', messages: [{ role: PROMPT, content: 1 }] }));
  await node.http(
    '/v1/chat/completions',
    JSON.stringify({ model: 'nowhere', messages: [{ role: 'user', content: PROMPT }] }),
  );
  const asking = ['--api-key-file', node.keyFile];
  await node.cli(['status', ...asking, '--json']);
  for (const words of [['status'], ['peers'], ['pool', 'stats'], ['explain', 'try-1']])
    await node.cli([...words, ...asking]);
  const others = [
    ['doctor'],
    ['config', 'show', '--json'],
    ['nodes', 'list'],
    ['keys', 'list'],
    ['secrets', 'status', '--json'],
  ];
  for (const words of others) await node.cli(words);
}

describe('secrets that were planted', () => {
  const canaries = new Canaries();
  const nodes: WatchedNode[] = [];
  const newNode = (): WatchedNode => {
    const node = new WatchedNode();
    nodes.push(node);
    return node;
  };
  after(() => Promise.all(nodes.map((node) => node.remove())));
  for (const [name, secret] of Object.entries({
    API_KEY,
    PEER_KEY,
    WRONG_PEER_KEY,
    HTTP_KEY,
    WRONG_API_KEY,
    PASSPHRASE,
    PROMPT,
  })) {
    canaries.add(name, secret);
  }

  test('are found in every form: the search bites', () => {
    for (const { name, form, text } of canaries.forms()) {
      const found = canaries.findIn(`{"line":"x${text}y"}`);
      assert.ok(
        found.some((what) => what.startsWith(name)),
        `${name} as ${form}`,
      );
    }
    const credentials = Buffer.from(`user:${HTTP_KEY}`).toString('base64');
    assert.ok(canaries.findIn(`Basic ${credentials}`).some((what) => what.startsWith('HTTP_KEY')));
    assert.deepEqual(canaries.findIn('nothing of the kind'), []);
  });

  test('come out nowhere, however much fails, in either format of the logs at level trace', async (t) => {
    const server = await OpenAiServer.start();
    t.after(() => server.stop());
    const far = newNode();
    await far.start(['--log-format', 'pretty', '--model', `far=${demoModelPath()}`]);
    const issued = JSON.parse((await far.cli(['keys', 'create', 'near', '--json'], '', true)).out) as { key: string };
    canaries.add('issued key', issued.key);
    const { fingerprint, multiaddrs } = await far.about();

    const node = newNode();
    const keyOfFar = (key: string): Promise<CliResult> =>
      node.cli(['peers', 'set', fingerprint, '--key-stdin'], `${key}\n`);
    await node.cli(['nodes', 'add', server.url, '--name', 'box', '--key-stdin'], `${HTTP_KEY}\n`);
    await keyOfFar(WRONG_PEER_KEY);
    await keyOfFar(`${WRONG_PEER_KEY} with a space`);
    await node.start(['--log-format', 'json', '--peer', multiaddrs[0] ?? '']);
    for (const each of [far, node]) {
      const { raw: key } = privateKeyFromProtobuf(readFileSync(path.join(each.dataDir, 'identity.key')));
      canaries.add('private key', key.subarray(0, 32));
    }
    const stopListening = node.listen();

    server.reply = streamed(['Hello']);
    await node.chatUntil('m', 200);
    assert.equal(server.inferences.at(-1)?.headers.authorization, `Bearer ${HTTP_KEY}`, 'the key does its work');
    assert.ok(server.inferences.at(-1)?.body.includes('prompt canary'));
    await node.chatUntil('far', 401);
    await keyOfFar(issued.key);
    await node.chatUntil('far', 200);
    await keyOfFar(PEER_KEY);

    await misbehave(node, server);
    server.reply = echo(401);
    server.models = echo(401);
    await node.cli(['nodes', 'test', 'box']);
    server.models = json(200, { object: 'list', data: [{ id: 'm' }] });
    await lookAround(node);
    if (LINUX) await crashEngine(node);
    node.say('ps', processes());
    await node.cli(['start', '--no-mdns', '--port', '0']);
    await stopListening();
    await node.stop();

    await node.start(['--log-format', 'pretty', '--peer', multiaddrs[0] ?? '']);
    await node.chatUntil('far', 401);
    await misbehave(node, server);
    server.reply = opened([delta('Hi')]);
    const cut = node.chat('m', true);
    if (LINUX) await crashEngine(node);
    await server.stop();
    await cut;
    await node.stop();
    await far.stop();
    for (const each of [node, far]) assert.deepEqual(each.leaks(canaries), []);
    assert.ok((node.outputs.get('node stderr') ?? '').length > 0, 'there were logs to look at');
    assert.match(readFileSync(path.join(node.dataDir, 'secrets.json'), 'utf8'), /"store": "encrypted"/);
  });

  test('are found when a node leaks one: through its name it reaches logs, HTTP and ps', async () => {
    const node = newNode();
    await node.start(['--log-format', 'json', '--name', HTTP_KEY]);
    node.say('ps', processes());
    await node.http('/api/v1/node');
    await node.cli(['status', '--api-key-file', node.keyFile]);
    await node.stop();
    const sources = new Set(node.leaks(canaries).map((leak) => / in (.*?):/.exec(leak)?.[1]));
    for (const source of [
      'node stdout',
      'HTTP /api/v1/node',
      'meshnode status --api-key-file',
      ...(LINUX ? ['ps'] : []),
    ]) {
      assert.ok(sources.has(source), `${source}: ${[...sources].join(', ')}`);
    }
  });
});
