/** Runs cli/meshnode.js the way a user does, in a home directory of its own. */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

export const MESHNODE = fileURLToPath(new URL('../../cli/meshnode.js', import.meta.url));

export interface CliResult {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly out: string;
  readonly err: string;
}

export interface CliOptions {
  /** HOME, and where all default paths lie. */
  readonly home: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly stdin?: string;
  /** The binary; by default this test's own. */
  readonly node?: string;
  readonly script?: string;
}

/** Starts the command; the caller ends it. */
export function spawnCli(args: readonly string[], options: CliOptions, stdio: StdioOptions = 'pipe'): ChildProcess {
  return spawn(options.node ?? process.execPath, [options.script ?? MESHNODE, ...args], {
    stdio,
    cwd: options.home,
    env: { PATH: process.env['PATH'], HOME: options.home, ...options.env },
  });
}

/** Runs the command to its end. */
export async function runCli(args: readonly string[], options: CliOptions): Promise<CliResult> {
  const child = spawnCli(args, options);
  const closed = once(child, 'close');
  child.stdin?.end(options.stdin ?? '');
  if (child.stdout === null || child.stderr === null) throw new Error('no pipes');
  const [out, err, [code, signal]] = await Promise.all([text(child.stdout), text(child.stderr), closed]);
  return { code: code as number | null, signal: signal as NodeJS.Signals | null, out, err };
}

/** A Node of this machine that is too old to run meshnode, outside of node_modules; null where there is none. */
export async function findOldNode(): Promise<string | null> {
  for (const dir of (process.env['PATH'] ?? '').split(delimiter)) {
    const binary = join(dir, 'node');
    if (dir === '' || dir.includes('node_modules') || !existsSync(binary)) continue;
    const child = spawn(binary, ['--version'], { stdio: ['ignore', 'pipe', 'ignore'] });
    const major = Number(/^v(\d+)/.exec(await text(child.stdout))?.[1] ?? 99);
    if (major < 22) return binary;
  }
  return null;
}
