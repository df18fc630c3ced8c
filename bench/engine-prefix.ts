/** What the second turn of a chat costs: the prompt time of a turn that goes on from a held one, against the first's. */
import type { LlamaEngine } from '../node/backends/llama-cpp/engine.ts';
import type { EndEvent, InferenceRequest } from '../protocols/inference/events.ts';
import { benchedEngine } from './benched-engine.ts';
import { median } from './quantile.ts';
import { withRandomModel } from './random-model.ts';
import { type BenchResult, machineLine, table } from './result.ts';

const MODEL = 'random-110m';
const CONTEXT_TOKENS = 2048;
const PARALLEL = 2;
/** Each byte of a text is a token of the random model. */
const FIRST_TURN_CHARS = 1_000;
const FOLLOW_UP = 'And then? Tell me what happened after that.';
/** Few: the random model's words come back as bytes, several tokens for each, unlike those of a real one. */
const ANSWER_TOKENS = 4;
const ROUNDS = 7;

interface Message {
  readonly role: 'user' | 'assistant';
  readonly content: string;
}

interface Turn {
  readonly text: string;
  readonly end: EndEvent;
}

/** Medians of chats that have nothing in common, one after the other. */
export async function benchEnginePrefix({ rounds = ROUNDS } = {}): Promise<BenchResult> {
  return await withRandomModel(async (modelPath) => {
    const engine = benchedEngine({ id: MODEL, path: modelPath, contextTokens: CONTEXT_TOKENS, parallel: PARALLEL });
    engine.start();
    try {
      // Loads the model and warms it up.
      await chat(engine, 'warm-up');
      const pairs: (readonly [first: Turn, second: Turn])[] = [];
      for (let round = 0; round < rounds; round += 1) pairs.push(await chat(engine, `${round}`));
      const promptMs = ({ end }: Turn): number => end.timings.promptMs;
      return {
        name: 'engine-prefix',
        rows: [
          {
            what: `prompt time of the second turn (${tokensLine(pairs.at(-1))})`,
            value: median(pairs.map(([, second]) => promptMs(second))),
            unit: 'ms',
            baseline: median(pairs.map(([first]) => promptMs(first))),
            ratio: median(pairs.map(([first, second]) => promptMs(second) / promptMs(first))),
            target: 'ratio <= 0.15',
          },
        ],
      };
    } finally {
      await engine.stop(AbortSignal.timeout(5_000));
    }
  });
}

/** Two turns, of which the first has to be evaluated whole. */
async function chat(engine: LlamaEngine, name: string): Promise<readonly [first: Turn, second: Turn]> {
  const question: Message = {
    role: 'user',
    content: `${name}: ${'once upon a time '.repeat(100)}`.slice(0, FIRST_TURN_CHARS),
  };
  const first = await answer(engine, [question]);
  if (first.end.usage.cachedTokens > 0) throw new Error('the first turn was not evaluated whole');
  const second = await answer(engine, [
    question,
    { role: 'assistant', content: first.text },
    { role: 'user', content: FOLLOW_UP },
  ]);
  return [first, second];
}

async function answer(engine: LlamaEngine, messages: readonly Message[]): Promise<Turn> {
  const body = { model: MODEL, messages, max_tokens: ANSWER_TOKENS, temperature: 0 };
  const request: InferenceRequest = {
    requestId: '0'.repeat(32),
    kind: 'chat',
    model: MODEL,
    body: Buffer.from(JSON.stringify(body)),
    seed: 1,
  };
  let text = '';
  for await (const event of engine.infer(request, { signal: new AbortController().signal })) {
    if (event.type === 'chunk') text += event.text;
    if (event.type === 'end') return { text, end: event };
  }
  throw new Error('the answer was cut');
}

function tokensLine(pair: readonly [first: Turn, second: Turn] | undefined): string {
  if (pair === undefined) return 'no rounds';
  const [first, second] = pair.map(({ end }) => end.usage);
  return `${second?.cachedTokens} of ${second?.promptTokens} tokens held, first turn ${first?.promptTokens}`;
}

if (import.meta.main) console.log(`${table(await benchEnginePrefix())}\n\n${machineLine()}`);
