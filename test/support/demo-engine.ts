/** The real engine with the bundled demo model, and questions to it. */
import { statSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { demoModelPath } from '../../node/backends/llama-cpp/demo/demo-model.ts';
import { type EngineOptions, LlamaEngine } from '../../node/backends/llama-cpp/engine.ts';
import { systemClock } from '../../node/common/clock.ts';
import { silentLogger } from '../../node/common/logger.ts';
import type { ModelFile, ModelFileSource } from '../../node/storage/model-file.ts';
import type {
  AcceptedEvent,
  ChunkEvent,
  EndEvent,
  InferenceEvent,
  InferenceKind,
  InferenceRequest,
  ProgressEvent,
  Resume,
} from '../../protocols/inference/events.ts';

export const DEMO = 'meshnode-demo';

export function modelFile(id: string, path: string): ModelFile {
  return {
    id,
    path,
    sizeBytes: statSync(path).size,
    digest: null,
    architecture: 'llama',
    quantization: 'F16',
    trainedContext: 4096,
  };
}

/** A source whose list can be changed. */
export class ModelList implements ModelFileSource {
  #files: readonly ModelFile[];
  readonly #listeners = new Set<() => void>();

  constructor(files: readonly ModelFile[]) {
    this.#files = files;
  }

  list(): readonly ModelFile[] {
    return [...this.#files];
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  replace(files: readonly ModelFile[]): void {
    this.#files = files;
    for (const listener of this.#listeners) listener();
  }
}

/** A started engine, stopped with the test. */
export function demoEngine(
  test: TestContext,
  options: Partial<EngineOptions> = {},
  models: ModelFileSource = new ModelList([modelFile(DEMO, demoModelPath())]),
): LlamaEngine {
  const engine = new LlamaEngine(
    { fingerprint: '12D3KooWTest', models, clock: systemClock, logger: silentLogger },
    { gpu: 'off', contextTokens: null, parallel: 4, ...options },
  );
  engine.start();
  test.after(() => engine.stop(AbortSignal.timeout(10_000)));
  return engine;
}

/** A request for one question, greedy unless the fields say otherwise. */
export function chatRequest(question: string, fields: object = {}, model = DEMO): InferenceRequest {
  const body = { model, messages: [{ role: 'user', content: question }], temperature: 0, ...fields };
  return inferenceRequest('chat', body, model);
}

export function inferenceRequest(kind: InferenceKind, body: object, model = DEMO): InferenceRequest {
  return { requestId: 'ab'.repeat(16), kind, model, body: Buffer.from(JSON.stringify(body)), seed: 42 };
}

/** One choice of an answer, its chunks joined. */
export interface WholeChoice {
  readonly text: string;
  readonly tokens: readonly number[];
  readonly chunks: readonly ChunkEvent[];
}

export interface WholeAnswer {
  /** Of the first choice. */
  readonly text: string;
  readonly tokens: readonly number[];
  /** All of them, in order. */
  readonly choices: readonly WholeChoice[];
  readonly progress: readonly ProgressEvent[];
  readonly accepted: AcceptedEvent;
  readonly end: EndEvent;
}

/** Iterates to the end; checks the order of the events and the chunks of each choice on the way. */
export async function wholeAnswer(events: AsyncIterable<InferenceEvent>, resume?: Resume): Promise<WholeAnswer> {
  const progress: ProgressEvent[] = [];
  const chunks: ChunkEvent[] = [];
  let accepted: AcceptedEvent | null = null;
  let end: EndEvent | null = null;
  for await (const event of events) {
    if (end !== null) throw new Error('an event after the end');
    if (event.type === 'progress') progress.push(event);
    else if (event.type === 'accepted') accepted = event;
    else if (event.type === 'end') end = event;
    else if (event.type === 'chunk') {
      if (accepted === null) throw new Error('a chunk before the answer was accepted');
      chunks.push(event);
    }
  }
  if (accepted === null || end === null) throw new Error('the answer was cut');
  const choices = end.finishReasons.map((finish, choice) => {
    const own = chunks.filter((chunk) => chunk.choice === choice);
    const begun = resume?.choices[choice];
    return wholeChoice(own, finish, { from: begun?.tokens.length ?? 0, isOver: (begun?.finish ?? null) !== null });
  });
  if (choices.reduce((sum, choice) => sum + choice.chunks.length, 0) !== chunks.length)
    throw new Error('a stray chunk');
  const [first] = choices;
  return { text: first?.text ?? '', tokens: first?.tokens ?? [], choices, progress, accepted, end };
}

function wholeChoice(
  chunks: readonly ChunkEvent[],
  finish: string,
  { from, isOver }: { from: number; isOver: boolean },
): WholeChoice {
  const tokens: number[] = [];
  for (const [at, chunk] of chunks.entries()) {
    const isLast = at === chunks.length - 1;
    if (chunk.index !== from + tokens.length) throw new Error('a chunk out of order');
    if (chunk.tokens.length === 0 && chunk.finish === undefined) throw new Error('a chunk of nothing');
    if (isLast ? chunk.finish !== finish : chunk.finish !== undefined) throw new Error('a finish in the wrong place');
    if (chunk.logprobs !== undefined && chunk.logprobs.length !== chunk.tokens.length)
      throw new Error('a logprob is missing');
    tokens.push(...chunk.tokens);
  }
  if (isOver !== (chunks.length === 0)) throw new Error('a choice without its end');
  return { text: chunks.map(({ text }) => text).join(''), tokens, chunks };
}

export const neverAborted: AbortSignal = new AbortController().signal;

export function ask(engine: LlamaEngine, question: string, fields: object = {}): Promise<WholeAnswer> {
  return wholeAnswer(engine.infer(chatRequest(question, fields), { signal: neverAborted }));
}

/** The answer broken off after `tokens` of each choice, as another node would be asked to go on with it. */
export function resumeAt(answer: WholeAnswer, tokens: readonly number[]): Resume {
  return {
    promptDigest: answer.accepted.promptDigest,
    artifact: answer.accepted.artifact ?? '',
    choices: answer.choices.map((choice, index) => ({
      tokens: choice.tokens.slice(0, tokens[index] ?? 0),
      finish: null,
      text: '',
    })),
  };
}
