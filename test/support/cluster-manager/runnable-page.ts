/** A page whose `sh` blocks are run as one script, in an empty home; `text` blocks say what must appear in their output. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { MESHNODE } from '../cli-process.ts';

/** One `sh` block and how it went. */
export interface RunBlock {
  readonly code: string;
  /** Lines of the `text` block that follows it. */
  readonly expected: readonly string[];
  /** Both streams, mixed. */
  readonly output: string;
}

export interface PageRun {
  readonly exitCode: number | null;
  readonly blocks: readonly RunBlock[];
}

const MARK = '@@block ended@@';
const PATIENCE_S = 60;
/** Stops what the page left running, as a user would. */
const SETUP = `set -eu
finish() { code=$?; for pid in $(jobs -p); do kill "$pid" 2>/dev/null || true; done; wait; exit "$code"; }
trap finish EXIT
`;
/** The stand-in cluster has no certificate. */
const SHIM = `#!/bin/sh
[ "\${1-} \${2-}" = "cluster add" ] && set -- "$@" --allow-http
exec "${process.execPath}" "${MESHNODE}" "$@"
`;

/** The blocks of a page, in order. */
export function blocksOf(markdown: string): readonly Pick<RunBlock, 'code' | 'expected'>[] {
  const found: { code: string; expected: string[] }[] = [];
  for (const [, kind, body = ''] of markdown.matchAll(/^```(sh|text)\n([\s\S]*?)^```$/gm)) {
    if (kind === 'sh') found.push({ code: body, expected: [] });
    else found.at(-1)?.expected.push(...body.split('\n').filter((line) => line.trim() !== ''));
  }
  return found;
}

/** Runs the page to its end, or to its first command that fails. */
export async function runPage(path: string, env: Readonly<Record<string, string>>): Promise<PageRun> {
  const blocks = blocksOf(await readFile(path, 'utf8'));
  const home = await mkdtemp(join(tmpdir(), 'meshnode-page-'));
  try {
    const shim = join(home, 'meshnode');
    await writeFile(shim, SHIM);
    await chmod(shim, 0o755);
    const script = SETUP + blocks.map(({ code }) => `${code}echo "${MARK}"\n`).join('');
    const child = spawn('timeout', ['--signal=TERM', String(PATIENCE_S), 'bash', '-c', script], {
      cwd: home,
      env: { PATH: `${home}${delimiter}${process.env['PATH']}`, HOME: home, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const pieces: string[] = [];
    child.stdout.setEncoding('utf8').on('data', (piece: string) => pieces.push(piece));
    child.stderr.setEncoding('utf8').on('data', (piece: string) => pieces.push(piece));
    const [exitCode] = (await once(child, 'close')) as [number | null];
    const outputs = pieces.join('').split(MARK);
    return { exitCode, blocks: blocks.map((block, index) => ({ ...block, output: outputs[index] ?? '' })) };
  } finally {
    await rm(home, { recursive: true, force: true, maxRetries: 3 });
  }
}
