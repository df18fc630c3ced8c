/** One request on one sequence, in the engine child: what it has evaluated, generated and released. */

import type { FinishReason } from '../../../protocols/inference/events.ts';
import { toMeshError } from '../../common/errors.ts';
import type { Sampling } from './generation-request.ts';
import type { ChildFailure, StepOutput } from './ipc.ts';
import type { NativeSequence } from './native-model.ts';
import type { OutputPipeline } from './output-pipeline.ts';
import type { SteppedLane } from './step-scheduler.ts';

export interface LaneComponents {
  readonly sequence: NativeSequence;
  readonly pipeline: OutputPipeline;
  readonly endsAnswer: (token: number) => boolean;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
}

export interface LaneOptions {
  readonly id: number;
  readonly arrival: number;
  readonly prompt: readonly number[];
  /** How many of the prompt's first tokens the sequence holds already: fewer than all. */
  readonly cachedTokens: number;
  readonly sampling: Sampling;
  /** At least 1; prompt and answer together fit the context. */
  readonly maxTokens: number;
}

export class Lane implements SteppedLane {
  readonly id: number;
  readonly arrival: number;
  readonly sequenceId: number;
  readonly #components: LaneComponents;
  readonly #options: LaneOptions;
  readonly #generated: number[] = [];
  readonly #startedAt: number;
  #pending: readonly number[];
  #firstTokenAt: number | null = null;
  #fresh: { tokens: number[]; text: string } = { tokens: [], text: '' };
  #finish: FinishReason | null = null;
  #failure: ChildFailure | null = null;
  #cancelled = false;

  constructor(components: LaneComponents, options: LaneOptions) {
    this.#components = components;
    this.#options = options;
    this.id = options.id;
    this.arrival = options.arrival;
    this.sequenceId = components.sequence.id;
    this.#pending = options.prompt.slice(options.cachedTokens);
    this.#startedAt = components.now();
  }

  get pendingTokens(): number {
    return this.#pending.length;
  }

  get finished(): boolean {
    return this.#finish !== null || this.#failure !== null || this.#cancelled;
  }

  get failure(): ChildFailure | null {
    return this.#failure;
  }

  get cancelled(): boolean {
    return this.#cancelled;
  }

  get generatedTokens(): number {
    return this.#generated.length;
  }

  /** Takes no step after the one that may be running now. */
  cancel(): void {
    this.#cancelled = true;
  }

  async step(tokens: number): Promise<void> {
    if (this.finished) return;
    const slice = this.#pending.slice(0, tokens);
    this.#pending = this.#pending.slice(tokens);
    try {
      if (this.#pending.length > 0) await this.#components.sequence.prefill(slice);
      else this.#take(await this.#components.sequence.next(slice, this.#options.sampling, this.#generated));
    } catch (thrown) {
      const { code, message } = toMeshError(thrown, 'engine_failed');
      this.#failure = { code, message };
    }
  }

  /** What came out since the last call; null when nothing did and nothing ended. */
  output(): StepOutput | null {
    const { tokens, text } = this.#fresh;
    const finish = this.#finish;
    if (tokens.length === 0 && text === '' && finish === null) return null;
    this.#fresh = { tokens: [], text: '' };
    if (finish === null) return { id: this.id, tokens, text };
    const now = this.#components.now();
    const firstTokenAt = this.#firstTokenAt ?? now;
    return {
      id: this.id,
      tokens,
      text,
      end: {
        finish,
        promptTokens: this.#options.prompt.length,
        completionTokens: this.#generated.length,
        cachedTokens: this.#options.cachedTokens,
        timings: { promptMs: firstTokenAt - this.#startedAt, predictedMs: now - firstTokenAt },
      },
    };
  }

  #take(token: number): void {
    if (this.#cancelled) return;
    const { pipeline, endsAnswer, now } = this.#components;
    this.#firstTokenAt ??= now();
    if (endsAnswer(token)) {
      this.#end('stop');
      return;
    }
    this.#generated.push(token);
    this.#pending = [token];
    const { text, finish } = pipeline.push(token);
    this.#fresh.tokens.push(token);
    this.#fresh.text += text;
    if (finish !== null) this.#finish = finish;
    else if (this.#generated.length >= this.#options.maxTokens) this.#end('length');
  }

  #end(finish: FinishReason): void {
    this.#fresh.text += this.#components.pipeline.flush();
    this.#finish = finish;
  }
}
