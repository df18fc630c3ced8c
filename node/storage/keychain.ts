/**
 * The keychain of the operating system: Secret Service, macOS Keychain, Windows Credential Manager. Asked in a process
 * of its own, because its native calls block: a D-Bus that hangs, or a locked keychain that waits for its owner, must
 * not stop the node.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import type { Clock } from '../common/clock.ts';
import { MeshError } from '../common/errors.ts';

export interface KeychainRequest {
  readonly op: 'get' | 'set' | 'delete';
  readonly service: string;
  readonly account: string;
  /** Of a `set`. */
  readonly secret?: string;
}

/** What the child says: the secret of a `get` (null: there is none), null of the others; or why not. */
export type KeychainAnswer = { readonly secret: string | null } | { readonly problem: string };

/** Where one key for each data dir lies. Every failure is a MeshError `invalid_request` that says why and what to do. */
export interface Keychain {
  /** Null when there is none of this name. */
  get(account: string): Promise<string | null>;
  set(account: string, secret: string): Promise<void>;
  /** One that is not there is fine. */
  delete(account: string): Promise<void>;
  /** Writes, reads and deletes an entry of its own: null when that works, else why not. Within `probeMs`. Never rejects. */
  probe(): Promise<string | null>;
}

export interface OsKeychainComponents {
  readonly clock: Clock;
}

export interface OsKeychainOptions {
  /** What the entries are filed under. Default `meshnode`. */
  readonly service?: string;
  /** For one call: its owner may have to type a password. Default 20,000 ms. */
  readonly callMs?: number;
  /** Default 2,000 ms. */
  readonly probeMs?: number;
  /** Whose session it is. Default: this process's. */
  readonly env?: NodeJS.ProcessEnv;
}

/** What finding the session needs, and what lets the keychain's owner be asked for its password. */
const NEEDED = [
  ...['PATH', 'HOME', 'USER', 'LOGNAME', 'LANG', 'DBUS_SESSION_BUS_ADDRESS', 'XDG_RUNTIME_DIR', 'DISPLAY'],
  ...['WAYLAND_DISPLAY', 'XAUTHORITY', 'XDG_DATA_HOME', 'SystemRoot', 'windir', 'USERPROFILE', 'APPDATA'],
  ...['LOCALAPPDATA', 'TEMP', 'TMP'],
];
const MAX_PROBLEM_CHARS = 200;

export class OsKeychain implements Keychain {
  readonly #clock: Clock;
  readonly #service: string;
  readonly #callMs: number;
  readonly #probeMs: number;
  readonly #env: NodeJS.ProcessEnv;

  constructor({ clock }: OsKeychainComponents, options: OsKeychainOptions = {}) {
    const { service = 'meshnode', callMs = 20_000, probeMs = 2_000, env = process.env } = options;
    this.#clock = clock;
    this.#service = service;
    this.#callMs = callMs;
    this.#probeMs = probeMs;
    this.#env = Object.fromEntries(Object.entries(env).filter(([name]) => NEEDED.includes(name)));
  }

  async get(account: string): Promise<string | null> {
    return (await this.#ask([{ op: 'get', service: this.#service, account }], this.#callMs))[0] ?? null;
  }

  async set(account: string, secret: string): Promise<void> {
    await this.#ask([{ op: 'set', service: this.#service, account, secret }], this.#callMs);
  }

  async delete(account: string): Promise<void> {
    await this.#ask([{ op: 'delete', service: this.#service, account }], this.#callMs);
  }

  async probe(): Promise<string | null> {
    const [account, secret] = [`probe/${randomBytes(8).toString('hex')}`, randomBytes(16).toString('hex')];
    const about = { service: this.#service, account };
    try {
      const calls = [{ op: 'set', ...about, secret } as const, { op: 'get', ...about } as const];
      const [, found] = await this.#ask([...calls, { op: 'delete', ...about }], this.#probeMs);
      return found === secret ? null : 'it does not give back what was put into it';
    } catch (error) {
      return (error as Error).message;
    }
  }

  /** One child for all of `requests`, in turn; it is gone when this settles. */
  async #ask(requests: readonly KeychainRequest[], boundMs: number): Promise<(string | null)[]> {
    // The entry is this file's neighbour, TypeScript in a checkout and JavaScript in the package.
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
    const entry = fileURLToPath(new URL(`./keychain-child.${extension}`, import.meta.url));
    const child = fork(entry, [], { env: this.#env, execArgv: [], stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
    const answers: (string | null)[] = [];
    const giveUpAt = this.#clock.now() + boundMs;
    try {
      for (const request of requests) {
        const answer = await answerOf(child, request, this.#clock, giveUpAt);
        if ('problem' in answer) throw refused(answer.problem);
        answers.push(answer.secret);
      }
      return answers;
    } finally {
      child.kill('SIGKILL');
    }
  }
}

function answerOf(
  child: ChildProcess,
  request: KeychainRequest,
  clock: Clock,
  giveUpAt: number,
): Promise<KeychainAnswer> {
  return new Promise((resolve) => {
    const settle = (answer: KeychainAnswer): void => {
      cancel();
      child.removeAllListeners('message');
      resolve(answer);
    };
    const cancel = clock.after(Math.max(0, giveUpAt - clock.now()), () =>
      settle({ problem: 'it did not answer in time: it may be locked, or wait for its owner' }),
    );
    child.on('message', (answer) => settle(answer as KeychainAnswer));
    child.on('error', (error) => settle({ problem: error.message }));
    child.once('exit', () => settle({ problem: 'the process that asks it ended early' }));
    child.send(request, (error) => {
      if (error !== null) settle({ problem: 'the process that asks it ended early' });
    });
  });
}

function refused(problem: string): MeshError {
  return new MeshError('invalid_request', problem.replace(/\s+/g, ' ').slice(0, MAX_PROBLEM_CHARS));
}
