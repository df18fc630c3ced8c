/** Throughput of the whole engine (child process, scheduler, IPC) against a bare step loop on the same model, in turn. */
import { demoModelPath } from '../node/backends/llama-cpp/demo/demo-model.ts';
import type { LlamaEngine } from '../node/backends/llama-cpp/engine.ts';
import type { InferenceRequest } from '../protocols/inference/events.ts';
import { BareSteps } from './bare-steps.ts';
import { benchedEngine } from './benched-engine.ts';
import { median } from './quantile.ts';
import { withRandomModel } from './random-model.ts';
import { type BenchResult, type BenchRow, machineLine, table } from './result.ts';

const MOST_STREAMS = 16;
const CONTEXT_TOKENS = 512;
const TOKENS = 96;
const PROMPT_CHARS = 70;
/** More rounds where one is short: its noise is larger. */
const ROUNDS = { random: { 1: 15, 4: 7, 16: 5 }, demo: { 1: 31 } } as const;
const QUICK_ROUNDS = 2;

interface Case {
  readonly model: string;
  readonly modelPath: string;
  /** How many of them, by the number of streams. */
  readonly rounds: Readonly<Record<number, number>>;
  readonly target: string;
}

/** Medians of interleaved rounds. */
export async function benchEngine({ mostRounds = Number.POSITIVE_INFINITY } = {}): Promise<BenchResult> {
  return await withRandomModel(async (modelPath) => {
    const random = { model: 'random-110m', modelPath, rounds: ROUNDS.random, target: 'ratio >= 0.95' };
    // So small that all there is to see is what is around it.
    const demo = { model: 'demo', modelPath: demoModelPath(), rounds: ROUNDS.demo, target: 'ratio >= 0.85' };
    return { name: 'engine', rows: [...(await benchCase(random, mostRounds)), ...(await benchCase(demo, mostRounds))] };
  });
}

async function benchCase(of: Case, mostRounds: number): Promise<readonly BenchRow[]> {
  const { model, modelPath } = of;
  const bare = await BareSteps.load({ modelPath, sequences: MOST_STREAMS, contextTokens: CONTEXT_TOKENS });
  const engine = benchedEngine({ id: model, path: modelPath, contextTokens: CONTEXT_TOKENS, parallel: MOST_STREAMS });
  engine.start();
  try {
    // The demo model has little to say to such prompts, so both run on: the engine by a bias.
    const body = { model, max_tokens: TOKENS, temperature: 0, logit_bias: forbidden(bare.endTokens) };
    const runs: Runs = { bare: (asked) => bare.generate(asked, TOKENS), engine: engineRun(engine, body) };
    // Loads the engine's model, and warms both up.
    for (const run of [runs.bare, runs.engine]) await run(prompts(MOST_STREAMS, 0));
    const rows: BenchRow[] = [];
    for (const [streams, rounds] of Object.entries(of.rounds)) {
      rows.push(await compare(runs, of, Number(streams), Math.min(rounds, mostRounds)));
    }
    return rows;
  } finally {
    await engine.stop(AbortSignal.timeout(5_000));
    await bare.close();
  }
}

/** What all requests to one model have in common. */
interface Body {
  readonly model: string;
}

function forbidden(tokens: readonly number[]): Readonly<Record<string, number>> {
  return Object.fromEntries(tokens.map((token) => [token, -100]));
}

type Run = (prompts: readonly string[]) => Promise<number>;

interface Runs {
  readonly bare: Run;
  readonly engine: Run;
}

async function compare(runs: Runs, { model, target }: Case, streams: number, rounds: number): Promise<BenchRow> {
  const [bareRates, engineRates]: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round += 1) {
    const asked = prompts(streams, round + 1);
    const pair: [Run, number[]][] = [
      [runs.bare, bareRates],
      [runs.engine, engineRates],
    ];
    // Whoever is first meets other neighbours: take turns.
    for (const [run, rates] of round % 2 === 0 ? pair : pair.toReversed())
      rates.push(await tokensPerSecond(run, asked));
  }
  const ratio = median(engineRates.map((rate, round) => rate / (bareRates[round] ?? rate)));
  return {
    what: `tokens/s at ${streams} ${streams === 1 ? 'stream' : 'streams'}, ${model}`,
    value: median(engineRates),
    unit: 'tokens/s',
    baseline: median(bareRates),
    ratio,
    target,
  };
}

async function tokensPerSecond(run: Run, asked: readonly string[]): Promise<number> {
  const startedAt = performance.now();
  const tokens = await run(asked);
  return tokens / ((performance.now() - startedAt) / 1_000);
}

const engineRun =
  (engine: LlamaEngine, body: Body): Run =>
  async (asked) => {
    const counts = await Promise.all(asked.map((prompt) => countTokens(engine, body, prompt)));
    return counts.reduce((sum, count) => sum + count, 0);
  };

async function countTokens(engine: LlamaEngine, body: Body, prompt: string): Promise<number> {
  const request: InferenceRequest = {
    requestId: '0'.repeat(32),
    kind: 'completion',
    model: body.model,
    body: Buffer.from(JSON.stringify({ ...body, prompt })),
    seed: 1,
  };
  let count = 0;
  for await (const event of engine.infer(request, { signal: new AbortController().signal })) {
    if (event.type === 'chunk') count += event.tokens.length;
  }
  if (count !== TOKENS) throw new Error(`an answer of ${count} tokens, not of ${TOKENS}`);
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
