/** What a node adds to a server that it fronts, against asking it directly and against a bare reverse proxy, in turn. */
import { readFileSync } from 'node:fs';
import { NodeProcess } from '../test/support/node-process.ts';
import { latencies, readStreams, requestRate, type StreamTimes } from './http-load.ts';
import { HTTP_MODEL, startBenchServer } from './http-servers.ts';
import { median } from './quantile.ts';
import type { BenchResult, BenchRow } from './result.ts';

const ROUNDS = 3;
const LATENCY_REQUESTS = 300;
const RATE_REQUESTS = 3000;
const CONNECTIONS = 32;
const STREAMS = 200;
const LOOPBACK = ['--no-mdns', '--listen', '/ip4/127.0.0.1/tcp/0', '--log-level', 'silent'];
const WAYS = ['direct', 'proxy', 'node'] as const;
type Way = (typeof WAYS)[number];
/** Of Linux: how /proc counts processor time. */
const TICKS_PER_SECOND = 100;

/** Figures of each way, one of each round. */
class Figures {
  readonly #of = new Map<string, number[]>();

  add(way: Way, what: string, value: number): void {
    const key = `${way} ${what}`;
    this.#of.set(key, [...(this.#of.get(key) ?? []), value]);
  }

  median(way: Way, what: string): number {
    return median(this.#of.get(`${way} ${what}`) ?? []);
  }
}

export async function benchHttpBackend(): Promise<BenchResult> {
  const upstream = await startBenchServer('upstream');
  const proxy = await startBenchServer('proxy', upstream.url);
  const node = new NodeProcess({ flags: [...LOOPBACK, '--upstream', `bench=${upstream.url}`] });
  try {
    const { api, pid } = await node.ready();
    await listed(api);
    const figures = new Figures();
    const urls: Readonly<Record<Way, string>> = { direct: upstream.url, proxy: proxy.url, node: api };
    for (let round = 0; round <= ROUNDS; round += 1) {
      for (const way of WAYS) await measure(round === 0 ? new Figures() : figures, way, urls[way], pid);
    }
    return { name: 'http-backend', rows: rowsOf(figures, memoryMiB(pid)) };
  } finally {
    await node.kill();
    proxy.stop();
    upstream.stop();
  }
}

async function measure(figures: Figures, way: Way, url: string, pid: number): Promise<void> {
  figures.add(way, 'latency', median(await latencies(url, LATENCY_REQUESTS)));
  const cpuBefore = cpuSeconds(pid);
  figures.add(way, 'rate', await requestRate(url, RATE_REQUESTS, CONNECTIONS));
  figures.add(way, 'per core', RATE_REQUESTS / (cpuSeconds(pid) - cpuBefore));
  const times = await readStreams(url, STREAMS);
  for (const [what, value] of Object.entries(times)) figures.add(way, what, value);
}

function rowsOf(figures: Figures, memory: number): BenchRow[] {
  const of = (way: Way, what: string): number => figures.median(way, what);
  const added = (way: Way): number => of(way, 'latency') - of('direct', 'latency');
  const stream = (what: string, key: keyof StreamTimes, target?: string): BenchRow[] =>
    (['proxy', 'node'] as const).map((way) => ({
      what: `${what}, ${way}`,
      value: of(way, key),
      unit: 'ms',
      baseline: of('direct', key),
      ratio: of(way, key) / of('direct', key),
      ...(target !== undefined && way === 'node' ? { target } : {}),
    }));
  return [
    {
      what: 'added to a request by the node, p50',
      value: added('node'),
      unit: 'ms',
      baseline: of('direct', 'latency'),
      target: '<= 1 ms',
    },
    { what: 'added by a bare proxy, p50', value: added('proxy'), unit: 'ms', baseline: of('direct', 'latency') },
    ...WAYS.toReversed().map((way) => ({
      what: `requests a second at ${CONNECTIONS}, ${way}`,
      value: of(way, 'rate'),
      unit: '1/s',
      baseline: of('direct', 'rate'),
      ratio: of(way, 'rate') / of('direct', 'rate'),
      ...(way === 'node' ? { target: '>= 2000 1/s' } : {}),
    })),
    { what: 'requests per second of processor time, node', value: of('node', 'per core'), unit: '1/s' },
    ...stream(`largest gap in ${STREAMS} streams`, 'largestGapMs', 'as direct'),
    ...stream('gap, p99', 'gapMs'),
    ...stream('first piece, p50', 'firstMs'),
    { what: 'memory of the node afterwards', value: memory, unit: 'MiB' },
  ];
}

/** Until the node knows what the server has. */
async function listed(api: string): Promise<void> {
  for (;;) {
    const models = await (await fetch(`${api}/v1/models`)).text();
    if (models.includes(`"${HTTP_MODEL}"`)) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}

function memoryMiB(pid: number): number {
  const [, kib = 'NaN'] = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kib) / 1024;
}
