/** The command line in a process of its own, which can be interrupted while it runs. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';

const BIN = path.resolve(import.meta.dirname, '../../cli/meshnode.js');
const PATIENCE_MS = 30_000;

export class CliProcess {
  readonly #child: ChildProcess;
  readonly #ended: Promise<number | null>;
  stdout = '';
  stderr = '';

  constructor(words: readonly string[]) {
    const env = { PATH: process.env['PATH'], HOME: '/nonexistent' };
    this.#child = spawn(process.execPath, [BIN, ...words], { stdio: ['ignore', 'pipe', 'pipe'], env });
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
    });
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
    });
    this.#ended = once(this.#child, 'close').then(([code]) => code as number | null);
  }

  interrupt(): void {
    this.#child.kill('SIGINT');
  }

  async ended(): Promise<{ code: number | null; stdout: string; stderr: string }> {
    const code = await this.#ended;
    return { code, stdout: this.stdout, stderr: this.stderr };
  }

  /** The first match of what it says; throws when it ends before. */
  async said(pattern: RegExp): Promise<RegExpMatchArray> {
    const giveUpAt = performance.now() + PATIENCE_MS;
    for (;;) {
      const found = this.stdout.match(pattern);
      if (found !== null) return found;
      if (this.#child.exitCode !== null || performance.now() > giveUpAt) {
        throw new Error(`did not say ${pattern}: ${this.stdout}${this.stderr}`);
      }
      await Promise.race([once(this.#child.stdout ?? this.#child, 'data'), this.#ended]);
    }
  }
}
