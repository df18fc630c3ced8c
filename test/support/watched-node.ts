/** A node of which everything is kept that comes out, and servers that repeat what they were trusted with. */
import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout } from 'node:timers/promises';
import type { Canaries } from './canaries.ts';
import { type CliResult, runCli, spawnCli } from './cli-process.ts';
import { delta, json, type Reply, raw, reset } from './openai-server.ts';

export const API_KEY = 'api+canary/Zq9=vT2~kX';
export const PASSPHRASE = 'a passphrase canary: gün & moon';
export const PROMPT = 'The prompt canary sings at “dusk” over & over.';
const LINUX = process.platform === 'linux';
const ALONE = ['--no-mdns', '--listen', '/ip4/127.0.0.1/tcp/0'];

export interface WatchedOptions {
  /** Default: any free one. */
  readonly port?: number;
  /** Of the node and of the commands beside it. */
  readonly env?: Readonly<Record<string, string>>;
}

/** A node and all that it ever said. */
export class WatchedNode {
  readonly home = mkdtempSync(path.join(tmpdir(), 'canary-'));
  readonly keyFile = path.join(mkdtempSync(path.join(tmpdir(), 'canary-keys-')), 'key');
  readonly passphraseFile = `${this.keyFile}.passphrase`;
  readonly outputs = new Map<string, string>();
  child: ChildProcess | null = null;
  api = '';

  readonly #options: WatchedOptions;

  constructor(options: WatchedOptions = {}) {
    this.#options = options;
    writeFileSync(this.keyFile, `${API_KEY}\n`, { mode: 0o600 });
    writeFileSync(this.passphraseFile, `${PASSPHRASE}\n`, { mode: 0o600 });
  }

  get dataDir(): string {
    return path.join(this.home, 'data');
  }

  async start(flags: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<void> {
    const { port = 0 } = this.#options;
    const common = ['--port', String(port), '--data-dir', this.dataDir, '--api-key-file', this.keyFile];
    const child = spawnCli(['start', ...ALONE, ...common, '--log-level', 'trace', ...flags], {
      home: this.home,
      env: this.env(env),
    });
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
    const store = { MESHNODE_SECRETS_STORE: 'encrypted', MESHNODE_PASSPHRASE_FILE: this.passphraseFile };
    return { ...store, ...this.#options.env, ...more };
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

  /** What comes out as JSON, and is kept as well. */
  async jsonOf<T>(route: string, init: RequestInit = {}): Promise<T> {
    const headers = { authorization: `Bearer ${API_KEY}`, ...(init.headers as Record<string, string> | undefined) };
    const response = await fetch(this.api + route, { ...init, headers, signal: AbortSignal.timeout(30_000) });
    const text = await response.text();
    this.say(`HTTP ${route}`, text);
    return JSON.parse(text) as T;
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

  /** What of the canaries is in its outputs and in the files of its data directory, those aside that are `except`. */
  leaks(canaries: Canaries, except: readonly string[] = ['identity.key']): string[] {
    return [...this.outputs, ...filesOf(this.dataDir, except)].flatMap(([source, text]) =>
      canaries.findIn(text).map((what) => `${what} in ${source}: ${near(text, canaries, what)}`),
    );
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
export function processes(files: readonly string[] = ['cmdline', 'environ']): string {
  if (!LINUX) return '';
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name));
  return pids.flatMap((pid) => files.map((file) => readQuietly(`/proc/${pid}/${file}`))).join('\n');
}

export function readQuietly(file: string): string {
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

export const echo =
  (status: number): Reply =>
  (response, asked) => {
    const { authorization = '' } = asked.headers;
    const key = authorization.replace('Bearer ', '');
    const bytes = Buffer.from(key);
    const forms = [
      bytes.toString('base64'),
      bytes.toString('base64url'),
      bytes.toString('hex'),
      encodeURIComponent(key),
    ];
    const error = {
      message: `Incorrect API key provided: ${key} (header ${authorization}, ${forms.join(' ')}, ${btoa(`user:${key}`)})`,
      type: key,
      code: key,
      param: key,
    };
    return json(status, { error }, { 'x-echo': authorization, 'www-authenticate': authorization })(response, asked);
  };

/** What upstream servers do to whoever trusts them with a key. */
export const MISBEHAVIOURS: readonly Reply[] = [
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

/** Some characters around a find, for whoever has to stop the leak. */
function near(text: string, canaries: Canaries, what: string): string {
  const form = canaries
    .forms()
    .find(({ name, form, text: wanted }) => `${name} (${form})` === what && text.includes(wanted));
  const at = form === undefined ? 0 : text.indexOf(form.text);
  return text.slice(Math.max(0, at - 120), at + 60);
}
