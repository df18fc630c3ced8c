/**
 * What an engine costs those beside it: delays of the node's event loop while a model is loaded and answers, memory of
 * the child beyond model and context, and the time to first token while another request's prompt is evaluated.
 */
import { readFileSync, statSync } from 'node:fs';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';
import type { EngineEvent } from '../node/backends/backend.ts';
import type { LlamaEngine } from '../node/backends/llama-cpp/engine.ts';
import { memoryNeed } from '../node/backends/llama-cpp/memory/memory-need.ts';
import { readGgufHeader } from '../node/storage/gguf-header.ts';
import type { InferenceRequest } from '../protocols/inference/events.ts';
import { benchedEngine } from './benched-engine.ts';
import { median } from './quantile.ts';
import { withRandomModel } from './random-model.ts';
import { type BenchResult, type BenchRow, machineLine, table } from './result.ts';

const MODEL = 'random-110m';
const CONTEXT_TOKENS = 1024;
const PARALLEL = 4;
const LOADS = 5;
const ANSWER_TOKENS = 48;
const IDLE_MS = 3_000;
/** Each byte of a text is a token of the random model. */
const LONG_PROMPT_CHARS = 480;
const SHORT_PROMPT_CHARS = 16;
const TTFT_ROUNDS = 15;
const MIB = 2 ** 20;

/** Each row beside its baseline of the same run. */
export async function benchEngineLoop({ loads = LOADS, rounds = TTFT_ROUNDS } = {}): Promise<BenchResult> {
  return await withRandomModel(async (modelPath) => {
    const engine = benchedEngine({ id: MODEL, path: modelPath, contextTokens: CONTEXT_TOKENS, parallel: PARALLEL });
    engine.start();
    try {
      const delays = await loopDelays(engine, loads);
      const memory = await childMemory(engine, modelPath);
      return { name: 'engine-loop', rows: [...delays, memory, await firstTokens(engine, rounds)] };
    } finally {
      await engine.stop(AbortSignal.timeout(5_000));
    }
  });
}

async function loopDelays(engine: LlamaEngine, loads: number): Promise<readonly BenchRow[]> {
  const idle = await delaysDuring(() => pause(IDLE_MS));
  const loading: Delays[] = [];
  const generating: Delays[] = [];
  for (let load = 0; load < loads; load += 1) {
    loading.push(await delaysDuring(() => told(engine, 'resident', () => engine.residency.loadModel(MODEL))));
    generating.push(await delaysDuring(() => answers(engine, `${load}`)));
    if (load < loads - 1) await told(engine, 'unloaded', () => engine.residency.unloadModel(MODEL));
  }
  const row = (what: string, of: readonly Delays[]): BenchRow => ({
    what: `event loop delay of the node, p99, while ${what}`,
    value: median(of.map(({ p99Ms }) => p99Ms)),
    unit: 'ms',
    baseline: idle.p99Ms,
    target: '< 20 ms',
  });
  const most: BenchRow = {
    what: 'the same, longest of all',
    value: Math.max(...[...loading, ...generating].map(({ mostMs }) => mostMs)),
    unit: 'ms',
    baseline: idle.mostMs,
  };
  return [row('a model loads', loading), row(`${PARALLEL} streams run`, generating), most];
}

interface Delays {
  readonly p99Ms: number;
  readonly mostMs: number;
}

async function delaysDuring(work: () => Promise<unknown>): Promise<Delays> {
  const histogram = monitorEventLoopDelay({ resolution: 1 });
  histogram.enable();
  await work();
  histogram.disable();
  return { p99Ms: histogram.percentile(99) / 1e6, mostMs: histogram.max / 1e6 };
}

/** Begins something and waits until the engine tells of it. */
function told(engine: LlamaEngine, type: EngineEvent['type'], begin: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    const unsubscribe = engine.onEvent((event) => {
      if (event.type === 'failed') reject(new Error(event.message));
      if (event.type !== type) return;
      unsubscribe();
      resolve();
    });
    begin();
  });
}

async function answers(engine: LlamaEngine, name: string): Promise<void> {
  const streams = Array.from({ length: PARALLEL }, (_, stream) =>
    firstTokenMs(engine, text(`${name}, ${stream}`, LONG_PROMPT_CHARS), ANSWER_TOKENS),
  );
  await Promise.all(streams);
}

/** What the child has resident beyond the model's file and the keys and values of its contexts, all of them used. */
async function childMemory(engine: LlamaEngine, modelPath: string): Promise<BenchRow> {
  const pid = engine.children().get(MODEL);
  const { shape } = await readGgufHeader(modelPath);
  const file = { sizeBytes: statSync(modelPath).size, shape };
  const { weightsBytes, contextBytes } = memoryNeed(file, { contextTokens: CONTEXT_TOKENS, parallel: PARALLEL });
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const peakBytes = Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
  const givenBytes = weightsBytes + contextBytes;
  return {
    what: 'peak memory of the child beyond model and context',
    value: (peakBytes - givenBytes) / MIB,
    unit: 'MiB',
    baseline: givenBytes / MIB,
    ratio: peakBytes / givenBytes,
    target: '<= 150 MiB',
  };
}

async function firstTokens(engine: LlamaEngine, rounds: number): Promise<BenchRow> {
  const alone: number[] = [];
  const beside: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    alone.push(await firstTokenMs(engine, text(`alone ${round}`, SHORT_PROMPT_CHARS), 1));
    const other = Promise.withResolvers<void>();
    const long = firstTokenMs(engine, text(`long ${round}`, LONG_PROMPT_CHARS), 2, other.resolve);
    // Its prompt is being evaluated from here on.
    await other.promise;
    beside.push(await firstTokenMs(engine, text(`beside ${round}`, SHORT_PROMPT_CHARS), 1));
    await long;
  }
  return {
    what: `time to first token during another's ${LONG_PROMPT_CHARS}-token prompt, p50`,
    value: median(beside),
    unit: 'ms',
    baseline: median(alone),
    target: '<= 150 ms',
  };
}

/** Asks, and reads the answer to its end. */
async function firstTokenMs(
  engine: LlamaEngine,
  prompt: string,
  tokens: number,
  onAccepted: () => void = () => {},
): Promise<number> {
  const request: InferenceRequest = {
    requestId: '0'.repeat(32),
    kind: 'completion',
    model: MODEL,
    body: Buffer.from(JSON.stringify({ model: MODEL, prompt, max_tokens: tokens, temperature: 0 })),
    seed: 1,
  };
  const startedAt = performance.now();
  let firstAt: number | null = null;
  for await (const event of engine.infer(request, { signal: new AbortController().signal })) {
    if (event.type === 'accepted') onAccepted();
    if (event.type === 'chunk') firstAt ??= performance.now();
  }
  return (firstAt ?? Number.NaN) - startedAt;
}

/** No two alike from the first character on, so that nothing of them is held. */
function text(name: string, chars: number): string {
  return `${name}: ${'once upon a time there was a machine that '.repeat(20)}`.slice(0, chars);
}

if (import.meta.main) {
  const result = await benchEngineLoop(process.argv.includes('--quick') ? { loads: 2, rounds: 3 } : {});
  console.log(`${table(result)}\n\n${machineLine()}`);
}
