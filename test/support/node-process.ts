/** A real `meshnode start` in a process of its own, its events as they come, and its end. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { NodeEvent } from '../../node/node-event.ts';

const BIN = path.resolve(import.meta.dirname, '../../cli/meshnode.js');
/** Long enough for a busy machine; only a hang reaches it. */
const PATIENCE_MS = 60_000;

type Ready = Extract<NodeEvent, { event: 'ready' }>;

export interface StartOptions {
  /** Flags after `start`; `--log-format json`, `--data-dir` and `--port 0` are added where absent. */
  readonly flags?: readonly string[];
  /** Runs the node elsewhere, for example in a network namespace. */
  readonly on?: readonly string[];
  /** Reuses a data directory; the caller removes it. */
  readonly dataDir?: string;
  /** The bin to run, when not the checkout's. */
  readonly bin?: string;
  /** Added to an otherwise empty environment. */
  readonly env?: Readonly<Record<string, string>>;
}

/** An empty directory below the system's temporary one. */
export const temporaryDir = (): string => mkdtempSync(path.join(tmpdir(), 'meshnode-test-'));

export class NodeProcess {
  readonly child: ChildProcess;
  readonly dataDir: string;
  readonly events: NodeEvent[] = [];
  stderr = '';
  readonly #ownsDir: boolean;
  readonly #watchers = new Set<() => void>();
  readonly #exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  #exit: { code: number | null; signal: NodeJS.Signals | null } | null = null;

  constructor({ flags = [], on = [], dataDir, bin = BIN, env = {} }: StartOptions = {}) {
    this.#ownsDir = dataDir === undefined;
    this.dataDir = dataDir ?? temporaryDir();
    const given = (flag: string): boolean => flags.includes(flag);
    const defaults = [
      ...(given('--log-format') ? [] : ['--log-format', 'json']),
      ...(given('--port') ? [] : ['--port', '0']),
    ];
    const line = [...on, process.execPath, bin, 'start', '--data-dir', this.dataDir, ...defaults, ...flags];
    this.child = spawn(line[0] ?? '', line.slice(1), {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: process.env['PATH'], HOME: this.dataDir, ...env },
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    if (this.child.stdout !== null) createInterface(this.child.stdout).on('line', (text) => this.#said(text));
    this.#exited = once(this.child, 'exit').then(([code, signal]) => {
      this.#exit = { code: code as number | null, signal: signal as NodeJS.Signals | null };
      for (const watcher of this.#watchers) watcher();
      return this.#exit;
    });
  }

  /** The `ready` event. Throws with the node's stderr when it exits before. */
  ready(): Promise<Ready> {
    return this.event((event): event is Ready => event.event === 'ready');
  }

  /** The first event (past or future) that `wanted` accepts. */
  event<E extends NodeEvent>(wanted: (event: NodeEvent) => event is E, from?: number): Promise<E>;
  event(wanted: (event: NodeEvent) => boolean, from?: number): Promise<NodeEvent>;
  event(wanted: (event: NodeEvent) => boolean, from = 0): Promise<NodeEvent> {
    return new Promise((resolve, reject) => {
      const stop = (settle: () => void): void => {
        clearTimeout(timer);
        this.#watchers.delete(look);
        settle();
      };
      const look = (): void => {
        const found = this.events.slice(from).find(wanted);
        if (found !== undefined) stop(() => resolve(found));
        else if (this.#exit !== null)
          stop(() => reject(new Error(`the node exited (${JSON.stringify(this.#exit)}): ${this.stderr}`)));
      };
      const timer = setTimeout(
        () => stop(() => reject(new Error(`no such event; saw ${JSON.stringify(this.events)}\n${this.stderr}`))),
        PATIENCE_MS,
      );
      this.#watchers.add(look);
      look();
    });
  }

  exit(): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    return this.#exited;
  }

  /** Pid of the node itself: the bin may have handed over to another process. */
  async pid(): Promise<number> {
    return (await this.ready()).pid;
  }

  /** Ends the process at once if it still runs, and removes its own data directory. */
  async kill(): Promise<void> {
    if (this.#exit === null) {
      const ready = this.events.find((event) => event.event === 'ready');
      if (ready?.event === 'ready') signalQuietly(ready.pid, 'SIGKILL');
      this.child.kill('SIGKILL');
      await this.#exited;
    }
    if (this.#ownsDir) rmSync(this.dataDir, { recursive: true, force: true, maxRetries: 3 });
  }

  #said(line: string): void {
    this.events.push(JSON.parse(line) as NodeEvent);
    for (const watcher of this.#watchers) watcher();
  }
}

/** Sends a signal to a pid that may be gone already. */
export function signalQuietly(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // Gone: what the caller wanted anyway.
  }
}
