/** Memory of an idle node as users run it: compiled, its engine not forked. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { NodeProcess } from '../test/support/node-process.ts';
import type { BenchResult } from './result.ts';

const SETTLE_MS = 10_000;

export async function benchIdle(): Promise<BenchResult> {
  const root = path.resolve(import.meta.dirname, '..');
  execFileSync('npm', ['run', 'build', '--silent'], { cwd: root });
  const flags = ['--no-mdns', '--listen', '/ip4/127.0.0.1/tcp/0'];
  const node = new NodeProcess({ bin: path.join(root, 'dist/cli/meshnode.js'), flags });
  try {
    const pid = await node.pid();
    await sleep(SETTLE_MS);
    const rss = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    return {
      name: 'idle',
      rows: [{ what: 'resident memory of an idle node', value: Number(rss) / 1024, unit: 'MB', target: '<= 150 MB' }],
    };
  } finally {
    await node.kill();
  }
}
