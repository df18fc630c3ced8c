/**
 * A page of the documentation whose blocks are run as they stand, in an empty home and one shell, so that what one
 * block exports or leaves running is there for the next. What stands behind a fence says what becomes of the block:
 *
 * - `sh`: run; a command that fails ends the page.
 * - `sh start`: left running, until it says that it is ready.
 * - `text`: lines that the block before must have printed; `…` stands for anything.
 * - `json NAME`, `jsonl NAME`: written to that file. `json` and `text example` are only read.
 *
 * Two things differ from what a reader types: `meshnode` is this checkout's and adds `--allow-http` to `cluster add`,
 * as a stand-in has no certificate, and `MESHNODE_…` variables keep the node off the network.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { MESHNODE } from './cli-process.ts';
import { signalQuietly } from './node-process.ts';
import { type Fence, fencesOf, shows } from './page-fences.ts';

const DOCS = path.resolve(import.meta.dirname, '../../docs');
const USUAL_API = 'http://127.0.0.1:8642';
const MARK = '@@block ended@@';
/** For one block. */
const PATIENCE_MS = 90_000;
/** Stops what the page left running, as a user would. */
const SETUP = `set -eu
exec 2>&1
finish() { code=$?; for pid in $(jobs -p); do kill "$pid" 2>/dev/null || true; done; wait; exit "$code"; }
trap finish EXIT
`;
const SHIM = `#!/bin/sh
[ "\${1-} \${2-}" = "cluster add" ] && set -- "$@" --allow-http
exec "${process.execPath}" "${MESHNODE}" "$@"
`;

export interface PageOptions {
  /** What is replaced on the page, for example the address of a server by that of its stand-in. */
  readonly places?: Readonly<Record<string, string>>;
  readonly env?: Readonly<Record<string, string>>;
  /** No command may print these. */
  readonly secrets?: readonly string[];
  /** A node that runs already; by default one that the page starts, on a free port. */
  readonly api?: string;
  /** A model that must be listed before `sh start` is over. */
  readonly serves?: string;
}

export class RunnablePage {
  /** The empty home, where commands run. */
  readonly home: string;
  /** The node's address. */
  readonly api: string;
  readonly fences: readonly Fence[];
  readonly #options: PageOptions;
  readonly #shell: ChildProcess;
  #said = '';
  #isClosed = false;
  /** Resolves when more was said, or the shell closed. */
  #heard = Promise.withResolvers<void>();

  private constructor(home: string, api: string, fences: readonly Fence[], options: PageOptions) {
    this.home = home;
    this.api = api;
    this.fences = fences;
    this.#options = options;
    this.#shell = spawn('bash', [], {
      cwd: home,
      env: {
        PATH: `${home}${path.delimiter}${process.env['PATH']}`,
        HOME: home,
        MESHNODE_PORT: new URL(api).port,
        MESHNODE_NO_MDNS: 'true',
        MESHNODE_LISTEN: '/ip4/127.0.0.1/tcp/0',
        MESHNODE_LOG_FORMAT: 'json',
        ...options.env,
      },
      stdio: ['pipe', 'pipe', 'inherit'],
      detached: true,
    });
    this.#shell.stdout?.setEncoding('utf8').on('data', (piece: string) => {
      this.#said += piece;
      this.#tell();
    });
    this.#shell.once('close', () => {
      this.#isClosed = true;
      this.#tell();
    });
    this.#shell.stdin?.on('error', () => {}).write(SETUP);
  }

  /** @param page below docs/, for example `backends/vllm.md`. */
  static async open(page: string, options: PageOptions = {}): Promise<RunnablePage> {
    const fences = fencesOf(await readFile(path.join(DOCS, page), 'utf8'));
    const home = await mkdtemp(path.join(tmpdir(), 'meshnode-page-'));
    await writeFile(path.join(home, 'meshnode'), SHIM);
    await chmod(path.join(home, 'meshnode'), 0o755);
    const api = options.api ?? `http://127.0.0.1:${await freePort()}`;
    return new RunnablePage(home, api, fences, options);
  }

  /** Follows the page to its end. Returns what each `sh` block printed, both streams. */
  async follow(): Promise<readonly string[]> {
    const outputs: string[] = [];
    for (const { info, body } of this.fences) {
      const [language, rest = ''] = info.split(' ');
      if (language === 'sh' && rest === 'start') await this.#start(body);
      else if (language === 'sh') outputs.push(await this.run(body));
      else if (language === 'text' && rest === '') this.#expect(body, outputs.at(-1) ?? '');
      else if (language === 'json' || language === 'jsonl') {
        if (rest !== '') await writeFile(path.join(this.home, rest), this.#translated(body));
      } else assert.equal(info, 'text example', `a block of "${info}" that nobody runs`);
    }
    assert.ok(outputs.length > 0, 'the page has commands');
    return outputs;
  }

  /** Runs commands in the page's shell; both streams. A failure is an assertion error that ends the page. */
  async run(script: string): Promise<string> {
    const here = this.#translated(script);
    const bound = setTimeout(() => this.#kill(), PATIENCE_MS);
    // Commands that read their input must not read the rest of the page.
    this.#shell.stdin?.write(`{\n${here}\n} < /dev/null\necho "${MARK}"\n`);
    while (!this.#said.includes(MARK) && !this.#isClosed) await this.#heard.promise;
    clearTimeout(bound);
    assert.ok(this.#said.includes(MARK), `failed, or not over after ${PATIENCE_MS / 1000} s:\n${here}\n${this.#said}`);
    const [output = '', rest = ''] = this.#said.split(`${MARK}\n`);
    this.#said = rest;
    for (const secret of this.#options.secrets ?? []) assert.ok(!output.includes(secret), `a secret after\n${here}`);
    return output;
  }

  /** Stops what the page left running and removes the home. */
  async close(): Promise<void> {
    this.#shell.stdin?.end();
    const bound = setTimeout(() => this.#kill(), PATIENCE_MS);
    while (!this.#isClosed) await this.#heard.promise;
    clearTimeout(bound);
    await rm(this.home, { recursive: true, force: true, maxRetries: 3 });
  }

  async #start(command: string): Promise<void> {
    const { serves } = this.#options;
    await this.run(`${command.trim()} > node.log 2>&1 &
until grep -qs '"event":"ready"' node.log; do kill -0 $! || { cat node.log; false; }; sleep 0.1; done`);
    if (serves !== undefined)
      await this.run(`until curl -s ${this.api}/v1/models | grep -q '${serves}'; do sleep 0.1; done`);
  }

  #expect(lines: string, output: string): void {
    for (const line of lines.split('\n')) assert.ok(shows(output, line), `"${line}" is not in\n${output}`);
  }

  #translated(text: string): string {
    const places = Object.entries({ ...this.#options.places, [USUAL_API]: this.api });
    return places.reduce((said, [from, to]) => said.replaceAll(from, to), text);
  }

  #tell(): void {
    this.#heard.resolve();
    this.#heard = Promise.withResolvers<void>();
  }

  #kill(): void {
    if (this.#shell.pid !== undefined) signalQuietly(-this.#shell.pid, 'SIGKILL');
  }
}

/** A page that is closed with its test. */
export async function openPage(context: TestContext, page: string, options: PageOptions = {}): Promise<RunnablePage> {
  const opened = await RunnablePage.open(page, options);
  context.after(() => opened.close());
  return opened;
}

/** Free a moment ago: a page's node must be told a port. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}
