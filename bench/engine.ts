/** Throughput of the whole engine (child process, scheduler, IPC) against a bare step loop on the same model, in turn. */
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { LlamaEngine } from '../node/backends/llama-cpp/engine.ts';
import type { InferenceRequest } from '../protocols/inference/events.ts';
import { BareSteps } from './bare-steps.ts';
import { benchedEngine } from './benched-engine.ts';
import { median } from './quantile.ts';
import { writeRandomModel } from './random-model.ts';
import { type BenchResult, type BenchRow, machineLine, table } from './result.ts';

const MOST_STREAMS = 16;
const CONTEXT_TOKENS = 512;
const TOKENS = 96;
const PROMPT_CHARS = 70;
const MODEL = 'random-110m';
/** More where a round is short: its noise is larger. */
const ROUNDS: readonly (readonly [streams: number, rounds: number])[] = [
  [1, 15],
  [4, 7],
  [16, 5],
];
const QUICK_ROUNDS = 2;

/** Medians of interleaved rounds. */
export async function benchEngine({ mostRounds = Number.POSITIVE_INFINITY } = {}): Promise<BenchResult> {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'meshnode-bench-'));
  const modelPath = path.join(folder, `${MODEL}.gguf`);
  writeRandomModel(modelPath);
  const bare = await BareSteps.load({ modelPath, sequences: MOST_STREAMS, contextTokens: CONTEXT_TOKENS });
  const engine = benchedEngine({ id: MODEL, path: modelPath, contextTokens: CONTEXT_TOKENS, parallel: MOST_STREAMS });
  engine.start();
  try {
    // Loads the engine's model, and warms both up.
    for (const run of [bareRun(bare), engineRun(engine)]) await run(prompts(MOST_STREAMS, 0));
    const rows: BenchRow[] = [];
    for (const [streams, rounds] of ROUNDS) {
      rows.push(await compare(bare, engine, streams, Math.min(rounds, mostRounds)));
    }
    return { name: 'engine', rows };
  } finally {
    await engine.stop(AbortSignal.timeout(5_000));
    await bare.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

type Run = (prompts: readonly string[]) => Promise<number>;

async function compare(bare: BareSteps, engine: LlamaEngine, streams: number, rounds: number): Promise<BenchRow> {
  const [bareRates, engineRates]: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round += 1) {
    const asked = prompts(streams, round + 1);
    const pair: [Run, number[]][] = [
      [bareRun(bare), bareRates],
      [engineRun(engine), engineRates],
    ];
    // Whoever is first meets other neighbours: take turns.
    for (const [run, rates] of round % 2 === 0 ? pair : pair.toReversed())
      rates.push(await tokensPerSecond(run, asked));
  }
  const ratio = median(engineRates.map((rate, round) => rate / (bareRates[round] ?? rate)));
  return {
    what: `tokens/s at ${streams} streams`,
    value: median(engineRates),
    unit: 'tokens/s',
    baseline: median(bareRates),
    ratio,
    target: 'ratio >= 0.95',
  };
}

async function tokensPerSecond(run: Run, asked: readonly string[]): Promise<number> {
  const startedAt = performance.now();
  const tokens = await run(asked);
  return tokens / ((performance.now() - startedAt) / 1_000);
}

const bareRun =
  (bare: BareSteps): Run =>
  (asked) =>
    bare.generate(asked, TOKENS);

const engineRun =
  (engine: LlamaEngine): Run =>
  async (asked) => {
    const counts = await Promise.all(asked.map((prompt) => countTokens(engine, prompt)));
    return counts.reduce((sum, count) => sum + count, 0);
  };

async function countTokens(engine: LlamaEngine, prompt: string): Promise<number> {
  const body = { model: MODEL, prompt, max_tokens: TOKENS, temperature: 0 };
  const request: InferenceRequest = {
    requestId: '0'.repeat(32),
    kind: 'completion',
    model: MODEL,
    body: Buffer.from(JSON.stringify(body)),
    seed: 1,
  };
  let count = 0;
  for await (const event of engine.infer(request, { signal: new AbortController().signal })) {
    if (event.type === 'chunk') count += event.tokens.length;
  }
  return count;
}

/** Texts of one length, no two alike. */
function prompts(streams: number, round: number): string[] {
  return Array.from({ length: streams }, (_, stream) =>
    `Round ${round}, stream ${stream}: once upon a time there was a machine that`.padEnd(PROMPT_CHARS, '.'),
  );
}

if (import.meta.main) {
  const result = await benchEngine(process.argv.includes('--quick') ? { mostRounds: QUICK_ROUNDS } : {});
  console.log(`${table(result)}\n\n${machineLine()}`);
}
