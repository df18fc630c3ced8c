/** Carries out tasks in the engine child, beside the generations that run there. */
import type { EmbeddingInput } from '../../../../protocols/inference/bodies/embedding-body.ts';
import { MeshError } from '../../../common/errors.ts';
import type { Embedder, NativeTasks, Ranker } from '../child/native-tasks.ts';
import type { Segment } from '../prompt/control-text.ts';
import { promptDigest, type Tokenizer } from '../prompt/prompt-tokens.ts';
import type { Prompt } from '../request/generation-request.ts';
import type { EngineTask, EngineTaskResult, TaskFacts } from './engine-task.ts';
import { inputTokens, tooLong } from './task-tokens.ts';
import { floatsBase64, unitVector } from './unit-vector.ts';

/** The text of so many tokens is looked up before others get their turn. */
const STRINGS_A_TURN = 4_096;

/** The part of a loaded model that tasks need. */
export interface TaskModel {
  readonly contextTokens: number;
  readonly tokenizer: Tokenizer;
  readonly tasks: NativeTasks;
  /** The messages of a chat, rendered as for an answer. */
  segmentsOf(prompt: Prompt & { readonly kind: 'chat' }): readonly Segment[];
}

export interface TaskRunnerComponents {
  readonly model: TaskModel;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
}

/** The result of one type of task without what all have. */
type Outcome = OutcomeOf<EngineTaskResult>;
type OutcomeOf<R> = R extends EngineTaskResult ? Omit<R, keyof TaskFacts> & { readonly counted: Counted } : never;

/** What was evaluated. */
interface Counted {
  readonly tokens: readonly number[];
  readonly promptTokens: number;
}

type Rest = () => Promise<void>;

const NO_REST: Rest = () => Promise.resolve();

export class TaskRunner {
  readonly #model: TaskModel;
  readonly #now: () => number;

  constructor({ model, now }: TaskRunnerComponents) {
    this.#model = model;
    this.#now = now;
  }

  /**
   * One task. Several may run at once; they take turns input by input. After `signal` aborts no further input is begun.
   * `rest`, where given, is awaited before each input: for tasks that yield.
   *
   * @throws MeshError `invalid_request` or `context_length_exceeded` that names the field; `client_closed` when it was
   *   aborted; `out_of_memory`.
   */
  async run(task: EngineTask, signal: AbortSignal, rest: Rest = NO_REST): Promise<EngineTaskResult> {
    const startedAt = this.#now();
    const { counted, ...outcome } = await this.#outcome(task, signal, rest);
    const facts: TaskFacts = {
      promptTokens: counted.promptTokens,
      promptDigest: promptDigest(counted.tokens),
      durationMs: this.#now() - startedAt,
    };
    return { ...outcome, ...facts };
  }

  #outcome(task: EngineTask, signal: AbortSignal, rest: Rest): Promise<Outcome> | Outcome {
    switch (task.type) {
      case 'embed':
        return this.#embed(task, signal, rest);
      case 'rerank':
        return this.#rerank(task, signal);
      case 'tokenize':
        return this.#tokenize(task, signal);
      case 'detokenize':
        this.#refuseUnknown(task.tokens, 'tokens');
        return {
          type: 'detokenize',
          text: this.#model.tasks.textOf(task.tokens),
          counted: { tokens: task.tokens, promptTokens: task.tokens.length },
        };
    }
  }

  async #embed(task: EngineTask & { type: 'embed' }, signal: AbortSignal, rest: Rest): Promise<Outcome> {
    const embedder = await this.#model.tasks.embedder();
    const { dimensions } = task;
    if (dimensions !== null && dimensions > embedder.dimensions) throw tooManyDimensions(dimensions, embedder);
    const param = (index: number): string => `input[${task.firstInput + index}]`;
    const inputs = task.inputs.map((input, index) => this.#embeddable(input, embedder, param(index)));
    const vectors: string[] = [];
    for (const input of inputs) {
      await rest();
      await nextTurn(signal);
      const vector = await embedder.embed(input);
      vectors.push(floatsBase64(unitVector(vector, dimensions ?? vector.length)));
    }
    const promptTokens = inputs.reduce((sum, input) => sum + embedder.lengthOf(input), 0);
    return { type: 'embed', vectors, counted: { tokens: inputs.flat(), promptTokens } };
  }

  #embeddable(input: EmbeddingInput, embedder: Embedder, param: string): readonly number[] {
    const { tasks, tokenizer } = this.#model;
    const { contextTokens } = tasks;
    if (typeof input !== 'string') this.#refuseUnknown(input, param);
    const tokens = typeof input === 'string' ? inputTokens(input, { tokenizer, contextTokens, param }) : input;
    if (tokens.length > contextTokens) throw tooLong({ contextTokens, param }, String(tokens.length));
    const length = embedder.lengthOf(tokens);
    if (length > contextTokens) throw tooLong({ contextTokens, param }, String(length));
    if (length > 0) return tokens;
    throw new MeshError('invalid_request', `Invalid value for '${param}': the model has no token for it.`, { param });
  }

  async #rerank(task: EngineTask & { type: 'rerank' }, signal: AbortSignal): Promise<Outcome> {
    const ranker = await this.#model.tasks.ranker();
    const { tasks, tokenizer } = this.#model;
    const { contextTokens } = tasks;
    const query = inputTokens(task.query, { tokenizer, contextTokens, param: 'query' });
    const documents = task.documents.map((text, index) => {
      const param = `documents[${task.firstDocument + index}]`;
      const document = inputTokens(text, { tokenizer, contextTokens, param });
      const length = ranker.lengthOf(query, document);
      if (length > contextTokens) throw tooLong({ contextTokens, param }, `${length} with the query`);
      return { document, length };
    });
    const scores: number[] = [];
    for (const { document } of documents) {
      await nextTurn(signal);
      scores.push(await scoreOf(ranker, query, document));
    }
    const promptTokens = documents.reduce((sum, { length }) => sum + length, 0);
    const tokens = [...query, ...documents.flatMap(({ document }) => document)];
    return { type: 'rerank', scores, counted: { tokens, promptTokens } };
  }

  async #tokenize(task: EngineTask & { type: 'tokenize' }, signal: AbortSignal): Promise<Outcome> {
    const { prompt, addSpecial, tokenStrings } = task;
    const { tokenizer, contextTokens } = this.#model;
    const tokens: number[] = [];
    for (const { text, special } of this.#segments(prompt)) {
      for (const token of tokenizer.tokenize(text, special, tokens.length > 0)) tokens.push(token);
    }
    const { leadingToken } = tokenizer;
    const isChat = prompt.kind === 'chat';
    if ((addSpecial || isChat) && leadingToken !== null && tokens[0] !== leadingToken) tokens.unshift(leadingToken);
    const strings = tokenStrings ? await this.#strings(tokens, signal) : null;
    return { type: 'tokenize', tokens, strings, contextTokens, counted: { tokens, promptTokens: tokens.length } };
  }

  async #strings(tokens: readonly number[], signal: AbortSignal): Promise<string[]> {
    const { tasks } = this.#model;
    const strings: string[] = [];
    for (const token of tokens) {
      if (strings.length % STRINGS_A_TURN === 0) await nextTurn(signal);
      strings.push(tasks.textOf([token]));
    }
    return strings;
  }

  #segments(prompt: Prompt): readonly Segment[] {
    if (prompt.kind === 'chat') return this.#model.segmentsOf(prompt);
    if (prompt.kind === 'text') return prompt.text === '' ? [] : [{ text: prompt.text, special: false }];
    throw new MeshError('invalid_request', 'Only a text or messages can be tokenised.', { param: 'prompt' });
  }

  /** Native code does not check ids. */
  #refuseUnknown(tokens: readonly number[], param: string): void {
    const { vocabularyTokens } = this.#model.tasks;
    const index = tokens.findIndex((token) => token >= vocabularyTokens);
    if (index === -1) return;
    const field = `${param}[${index}]`;
    throw new MeshError(
      'invalid_request',
      `Invalid value for '${field}': this model has the token ids 0 to ${vocabularyTokens - 1}, not ${tokens[index]}.`,
      { param: field },
    );
  }
}

async function scoreOf(ranker: Ranker, query: readonly number[], document: readonly number[]): Promise<number> {
  const score = await ranker.rank(query, document);
  if (Number.isFinite(score)) return score;
  throw new MeshError('engine_failed', 'The model gave no score.');
}

function tooManyDimensions(asked: number, { dimensions }: Embedder): MeshError {
  return new MeshError(
    'invalid_request',
    `Invalid value for 'dimensions': this model's embeddings have ${dimensions} dimensions, not ${asked}.`,
    { param: 'dimensions' },
  );
}

/** Lets cancels, new requests and the streams that generate in. */
function nextTurn(signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    setImmediate(() => {
      if (signal.aborted) reject(new MeshError('client_closed', 'The request was cancelled.'));
      else resolve();
    });
  });
}
