/** Loaded into a node before anything else: at each SIGUSR2 it collects its garbage and writes one line of vitals to stderr. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Bytes, and how many handles, requests and timers of each kind keep the process busy. */
export interface Vitals {
  readonly heapUsed: number;
  readonly rss: number;
  readonly resources: Readonly<Record<string, number>>;
}

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

process.on('SIGUSR2', () => {
  collect();
  collect();
  const { heapUsed, rss } = process.memoryUsage();
  const resources: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) resources[kind] = (resources[kind] ?? 0) + 1;
  const vitals: Vitals = { heapUsed, rss, resources };
  process.stderr.write(`vitals ${JSON.stringify(vitals)}\n`);
});
