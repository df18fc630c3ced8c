/** One forked engine child: its channel, its logs, its end. */
import { type ChildProcess, fork } from 'node:child_process';
import os from 'node:os';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { Logger } from '../../common/logger.ts';
import { childEnvironment } from './child-environment.ts';
import type { FromChild, ToChild } from './ipc.ts';

const MAX_LOG_LINE_CHARS = 1_000;
/** llama.cpp says little; a child that says more is not worth the disk. */
const MAX_LOG_LINES = 2_000;

export interface EngineProcessComponents {
  readonly logger: Logger;
  readonly onMessage: (message: FromChild) => void;
  /** Called exactly once, with words for how it ended: `signal SIGSEGV`, `exit code 1`. */
  readonly onExit: (how: string) => void;
}

export class EngineProcess {
  readonly #child: ChildProcess;
  readonly #exited: Promise<void>;

  /** Forks at once. */
  constructor({ logger, onMessage, onExit }: EngineProcessComponents) {
    // The entry is this file's neighbour, TypeScript in a checkout and JavaScript in the package.
    const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
    const entry = fileURLToPath(new URL(`./child/engine-child.${extension}`, import.meta.url));
    const child = fork(entry, [], {
      env: childEnvironment(process.env, os.availableParallelism()),
      // Its objects are few and short-lived; the default keeps 40 MiB for the young ones.
      execArgv: ['--max-semi-space-size=2'],
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    this.#child = child;
    logLines(child.stdout, logger);
    logLines(child.stderr, logger);
    child.on('message', (message) => onMessage(message as FromChild));
    this.#exited = new Promise((resolve) => {
      const ended = once((how: string) => {
        onExit(how);
        resolve();
      });
      child.on('exit', (code, signal) => {
        const how = signal === null ? `exit code ${code}` : `signal ${signal}`;
        // Its last messages, the reason among them, may still be in the channel.
        if (child.connected) child.once('disconnect', () => setImmediate(ended, how));
        else setImmediate(ended, how);
      });
      // Without a process there is no exit to wait for; other errors (a failed send) are followed by one.
      child.on('error', (error) => {
        if (child.pid === undefined) ended(error.message);
      });
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Dropped when the channel is closed: the exit that follows says so. */
  send(message: ToChild): void {
    if (this.#child.connected) this.#child.send(message, () => {});
  }

  /** Resolves when the process is gone. SIGKILL, because a stopped or wedged one hears nothing else. */
  kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    return this.#exited;
  }
}

function once(callback: (how: string) => void): (how: string) => void {
  let called = false;
  return (how) => {
    if (called) return;
    called = true;
    callback(how);
  };
}

function logLines(output: Readable | null, logger: Logger): void {
  if (output === null) return;
  let lines = 0;
  output.on('error', () => {});
  createInterface({ input: output }).on('line', (line) => {
    lines += 1;
    if (lines <= MAX_LOG_LINES) logger.debug({ line: line.slice(0, MAX_LOG_LINE_CHARS) }, 'engine');
  });
}
