/**
 * Preloaded into a node (`--import`): at SIGUSR2 it collects garbage and writes `vitals {…}`, one line of JSON, to stderr.
 * Nothing of it is in the node itself.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

/** Bytes, and how many handles, requests and timers of each kind keep the process busy. */
export interface Vitals {
  /** Resident before anything was collected: pages that V8 keeps for later garbage included. */
  readonly held: number;
  /** Resident afterwards: what the node really needs, and what it leaks. */
  readonly rss: number;
  readonly heapUsed: number;
  /** Outside the heap of JavaScript: buffers and what native parts say they hold. */
  readonly external: number;
  /** Resident memory that is no page of V8's heap: the binary, native memory, buffers. */
  readonly native: number;
  readonly resources: Readonly<Record<string, number>>;
}

setFlagsFromString('--expose-gc');
/** `last-resort` gives the pages back too. Otherwise V8 keeps up to 64 MiB for new objects, which looks like a leak until it is reached. */
const collect = runInNewContext('gc') as (how: { type: 'major'; execution: 'sync'; flavor: 'last-resort' }) => void;

process.on('SIGUSR2', () => {
  const held = process.memoryUsage.rss();
  collect({ type: 'major', execution: 'sync', flavor: 'last-resort' });
  const { heapUsed, heapTotal, rss, external } = process.memoryUsage();
  const resources: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) resources[kind] = (resources[kind] ?? 0) + 1;
  const vitals: Vitals = { held, rss, heapUsed, external, native: rss - heapTotal, resources };
  process.stderr.write(`vitals ${JSON.stringify(vitals)}\n`);
});
