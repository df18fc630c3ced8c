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
  EndEvent,
  InferenceEvent,
  InferenceKind,
  InferenceRequest,
  ProgressEvent,
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
    trainedContext: 512,
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

export interface WholeAnswer {
  readonly text: string;
  readonly tokens: readonly number[];
  readonly progress: readonly ProgressEvent[];
  readonly accepted: AcceptedEvent;
  readonly end: EndEvent;
}

/** Iterates to the end; checks the order of the events on the way. */
export async function wholeAnswer(events: AsyncIterable<InferenceEvent>): Promise<WholeAnswer> {
  const progress: ProgressEvent[] = [];
  const tokens: number[] = [];
  let text = '';
  let accepted: AcceptedEvent | null = null;
  let end: EndEvent | null = null;
  for await (const event of events) {
    if (end !== null) throw new Error('an event after the end');
    if (event.type === 'progress') progress.push(event);
    else if (event.type === 'accepted') accepted = event;
    else if (event.type === 'end') end = event;
    else {
      if (accepted === null || event.index !== tokens.length) throw new Error('a chunk out of order');
      tokens.push(...event.tokens);
      text += event.text;
    }
  }
  if (accepted === null || end === null) throw new Error('the answer was cut');
  return { text, tokens, progress, accepted, end };
}

export const neverAborted: AbortSignal = new AbortController().signal;

export function ask(engine: LlamaEngine, question: string, fields: object = {}): Promise<WholeAnswer> {
  return wholeAnswer(engine.infer(chatRequest(question, fields), { signal: neverAborted }));
}
