/** Plants secrets into real nodes, makes everything fail that can, and looks for them in all that comes out. */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { privateKeyFromProtobuf } from '@libp2p/crypto/keys';
import { demoModelPath } from '../../node/backends/llama-cpp/demo/demo-model.ts';
import { Canaries } from '../support/canaries.ts';
import { type CliResult, runCli, spawnCli } from '../support/cli-process.ts';
import { signalQuietly } from '../support/node-process.ts';
import { delta, json, OpenAiServer, opened, type Reply, raw, reset, streamed } from '../support/openai-server.ts';

const API_KEY = 'api+canary/Zq9=vT2~kX';
const PEER_KEY = 'mk_peer+canary/8Jd=wQ5~';
const WRONG_PEER_KEY = 'mk_wrong+canary/3Rt=yU7~';
const HTTP_KEY = 'sk-http+canary/6Hb=nM1~';
const WRONG_API_KEY = 'sk-guess+canary/1Lp=cV4~';
const PASSPHRASE = 'a passphrase canary: gün & moon';
const PROMPT = 'The prompt canary sings at “dusk” over & over.';
const LINUX = process.platform === 'linux';
const ALONE = ['--no-mdns', '--port', '0', '--listen', '/ip4/127.0.0.1/tcp/0'];

/** A node and all that it ever said. */
class WatchedNode {
  readonly home = mkdtempSync(path.join(tmpdir(), 'canary-'));
  readonly keyFile = path.join(mkdtempSync(path.join(tmpdir(), 'canary-keys-')), 'key');
  readonly passphraseFile = `${this.keyFile}.passphrase`;
  readonly outputs = new Map<string, string>();
  child: ChildProcess | null = null;
  api = '';

  constructor() {
    writeFileSync(this.keyFile, `${API_KEY}\n`, { mode: 0o600 });
    writeFileSync(this.passphraseFile, `${PASSPHRASE}\n`, { mode: 0o600 });
  }

  get dataDir(): string {
    return path.join(this.home, 'data');
  }

  async start(flags: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<void> {
    const common = ['--data-dir', this.dataDir, '--api-key-file', this.keyFile, '--log-level', 'debug'];
    const child = spawnCli(['start', ...ALONE, ...common, ...flags], { home: this.home, env: this.env(env) });
    this.child = child;
    for (const name of ['stdout', 'stderr'] as const) {
      child[name]?.setEncoding('utf8').on('data', (text: string) => this.say(`node ${name}`, text));
    }
    this.api = '';
    const before = this.outputs.get('node stdout')?.length ?? 0;
    while (this.api === '') {
      const said = (this.outputs.get('node stdout') ?? '').slice(before);
      this.api = /http:\/\/127\.0\.0\.1:\d+/.exec(said)?.[0] ?? '';
      if (child.exitCode !== null) throw new Error(`the node ended: ${this.outputs.get('node stderr')}`);
      await setTimeout(20);
    }
  }

  env(more: Readonly<Record<string, string>> = {}): Record<string, string> {
    return { MESHNODE_SECRETS_STORE: 'encrypted', MESHNODE_PASSPHRASE_FILE: this.passphraseFile, ...more };
  }

  say(source: string, text: string): void {
    this.outputs.set(source, (this.outputs.get(source) ?? '') + text);
  }

  /** A command beside it. What it prints is kept, unless it is there to print a secret. */
  async cli(args: readonly string[], stdin = '', isSecret = false): Promise<CliResult> {
    const result = await runCli([...args, '--data-dir', this.dataDir], { home: this.home, env: this.env(), stdin });
    if (!isSecret) this.say(`meshnode ${args.slice(0, 2).join(' ')}`, result.out + result.err);
    return result;
  }

  /** Status, headers and body; a broken connection is an answer too. */
  async http(route: string, body?: string, key = API_KEY): Promise<number> {
    const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json', 'x-request-id': 'try-1' };
    const init = body === undefined ? { headers } : { method: 'POST', headers, body };
    try {
      const response = await fetch(this.api + route, { ...init, signal: AbortSignal.timeout(30_000) });
      this.say(`HTTP ${route}`, JSON.stringify([...response.headers]));
      this.say(`HTTP ${route}`, await response.text());
      return response.status;
    } catch (error) {
      this.say(`HTTP ${route}`, String(error));
      return 0;
    }
  }

  chat(model: string, stream = false, more: object = {}): Promise<number> {
    const body = { model, stream, max_tokens: 8, messages: [{ role: 'user', content: PROMPT }], ...more };
    return this.http('/v1/chat/completions', JSON.stringify(body));
  }

  /** Asks until it answers so: peers and keys take a moment to be known. */
  async chatUntil(model: string, status: number): Promise<void> {
    let last = 0;
    for (let tries = 0; tries < 200; tries += 1) {
      last = await this.chat(model);
      if (last === status) return;
      await setTimeout(50);
    }
    throw new Error(`${model} is answered with ${last}, not ${status}`);
  }

  async about(): Promise<{ readonly fingerprint: string; readonly multiaddrs: readonly string[] }> {
    const answer = await fetch(`${this.api}/api/v1/node`, { headers: { authorization: `Bearer ${API_KEY}` } });
    return (await answer.json()) as { fingerprint: string; multiaddrs: string[] };
  }

  /** Keeps its events; returns what ends that. */
  listen(): () => Promise<void> {
    const end = new AbortController();
    const headers = { authorization: `Bearer ${API_KEY}` };
    const listening = fetch(`${this.api}/api/v1/mesh/events`, { signal: end.signal, headers })
      .then(async ({ body }) => {
        for await (const piece of body ?? []) this.say('events', Buffer.from(piece).toString('utf8'));
      })
      .catch(() => {});
    return () => {
      end.abort();
      return listening;
    };
  }

  /** Its processes, itself first. */
  pids(): number[] {
    const note = JSON.parse(readFileSync(path.join(this.dataDir, 'run.json'), 'utf8')) as { pid: number };
    return [note.pid, ...childrenOf(note.pid)];
  }

  async stop(): Promise<void> {
    const { child } = this;
    if (child === null || child.exitCode !== null) return;
    const closed = new Promise((resolve) => child.once('close', resolve));
    child.kill('SIGTERM');
    await closed;
  }

  async remove(): Promise<void> {
    this.child?.kill('SIGKILL');
    for (const dir of [this.home, path.dirname(this.keyFile)])
      rmSync(dir, { recursive: true, force: true, maxRetries: 3 });
  }
}

function childrenOf(pid: number): number[] {
  if (!LINUX) return [];
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
  const children = text
    .split(' ')
    .filter((word) => word !== '')
    .map(Number);
  return [...children, ...children.flatMap(childrenOf)];
}

/** Command lines and environments of every process of this machine: what `ps` shows, and to its owner `ps e`. */
function processes(): string {
  if (!LINUX) return '';
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.flatMap((pid) => ['cmdline', 'environ'].map((file) => readQuietly(`/proc/${pid}/${file}`))).join('\n');
}

function readQuietly(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}

/** Everything below a directory, as text and as bytes. */
function filesOf(dir: string, except: readonly string[]): [string, string][] {
  return readdirSync(dir, { recursive: true, encoding: 'utf8' })
    .filter((name) => !except.includes(name) && statSync(path.join(dir, name)).isFile())
    .flatMap((name) => {
      const bytes = readFileSync(path.join(dir, name));
      return [[`file ${name}`, `${bytes.toString('utf8')}\n${bytes.toString('latin1')}`] as [string, string]];
    });
}

const echo =
  (status: number): Reply =>
  (response, asked) => {
    const { authorization = '' } = asked.headers;
    const key = authorization.replace('Bearer ', '');
    const error = {
      message: `Incorrect API key provided: ${key} (header ${authorization})`,
      type: key,
      code: key,
      param: key,
    };
    return json(status, { error }, { 'x-echo': authorization, 'www-authenticate': authorization })(response, asked);
  };

/** What upstream servers do to whoever trusts them with a key. */
const MISBEHAVIOURS: readonly Reply[] = [
  echo(401),
  echo(400),
  echo(500),
  (response, asked) => json(502, `<html>${asked.headers.authorization}</html>`)(response, asked),
  (response, asked) =>
    raw([delta('Hi'), `data: {"error":{"message":"${asked.headers.authorization}"}}\n\n`])(response, asked),
  (response, asked) => raw([delta('Hi'), `data: ${asked.headers.authorization} is no JSON\n\n`])(response, asked),
  (response, asked) => {
    response.writeHead(302, {
      location: `http://127.0.0.1:1/${encodeURIComponent(asked.headers.authorization ?? '')}`,
    });
    response.end();
  },
  reset(),
  reset([delta('Hi')]),
];

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
  const leaksOf = (node: WatchedNode, except: readonly string[]): string[] =>
    [...node.outputs, ...filesOf(node.dataDir, except)].flatMap(([source, text]) =>
      canaries.findIn(text).map((what) => `${what} in ${source}: ${near(text, canaries, what)}`),
    );

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

  test('come out nowhere, however much fails, in either format of the logs at level debug', async (t) => {
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
    await node.cli(['start', ...ALONE]);
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
    for (const each of [node, far]) assert.deepEqual(leaksOf(each, ['identity.key']), []);
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
    const sources = new Set(leaksOf(node, ['identity.key']).map((leak) => / in (.*?):/.exec(leak)?.[1]));
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

/** Some characters around a find, for whoever has to stop the leak. */
function near(text: string, canaries: Canaries, what: string): string {
  const form = canaries
    .forms()
    .find(({ name, form, text: wanted }) => `${name} (${form})` === what && text.includes(wanted));
  const at = form === undefined ? 0 : text.indexOf(form.text);
  return text.slice(Math.max(0, at - 120), at + 60);
}
