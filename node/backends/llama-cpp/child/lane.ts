/** One choice on one sequence, in the engine child: what it has evaluated, and what came of it. */

import type { TokenLogprob } from '../../../../protocols/inference/events.ts';
import { toMeshError } from '../../../common/errors.ts';
import type { ChildFailure, StepOutput } from '../ipc.ts';
import type { Sampling } from '../request/generation-request.ts';
import type { ChoiceOutput } from './choice-output.ts';
import type { NativeGrammar, NativeSequence } from './native-sequence.ts';
import type { SteppedLane } from './step-scheduler.ts';

/** Logits of a position take four bytes for each token of the vocabulary. */
const MOST_SCORED_TOKENS = 32;

export interface LaneComponents {
  readonly sequence: NativeSequence;
  /** With the resumed tokens replayed. */
  readonly output: ChoiceOutput;
  /** Likewise. */
  readonly grammar: NativeGrammar | null;
  /** Milliseconds, monotonic. */
  readonly now: () => number;
}

export interface LaneOptions {
  readonly id: number;
  readonly arrival: number;
  readonly prompt: readonly number[];
  readonly resumed: readonly number[];
  /** How many tokens of prompt and resumed the sequence holds already: fewer than all. */
  readonly heldTokens: number;
  readonly sampling: Sampling;
  /** Alternatives to report for each token; null for no log probabilities. */
  readonly logprobs: number | null;
  /** The prompt's own tokens are scored too. Nothing of it is held then, and nothing resumed. */
  readonly scoresPrompt: boolean;
  /** The prompt's scores are all that is wanted. */
  readonly onlyScores: boolean;
  /** Nobody waits for it. Default false. */
  readonly isBatch?: boolean;
}

export class Lane implements SteppedLane {
  readonly id: number;
  readonly arrival: number;
  readonly sequenceId: number;
  readonly isBatch: boolean;
  readonly #components: LaneComponents;
  readonly #options: LaneOptions;
  readonly #scores: (TokenLogprob | null)[] = [null];
  readonly #startedAt: number;
  #pending: readonly number[];
  #firstTokenAt: number | null = null;
  #failure: ChildFailure | null = null;
  #cancelled = false;

  constructor(components: LaneComponents, options: LaneOptions) {
    this.#components = components;
    this.#options = options;
    this.id = options.id;
    this.arrival = options.arrival;
    this.sequenceId = components.sequence.id;
    this.isBatch = options.isBatch ?? false;
    this.#pending = [...options.prompt, ...options.resumed].slice(options.heldTokens);
    this.#startedAt = components.now();
    // There is nothing before a prompt's only token that it could be scored by.
    if (options.scoresPrompt && options.prompt.length === 1) components.output.promptScored([null]);
  }

  get pendingTokens(): number {
    return this.#pending.length;
  }

  get finished(): boolean {
    return this.#components.output.finish !== null || this.#failure !== null || this.#cancelled;
  }

  get failure(): ChildFailure | null {
    return this.#failure;
  }

  get cancelled(): boolean {
    return this.#cancelled;
  }

  /** Here: without the resumed ones. */
  get generatedTokens(): number {
    return this.#components.output.generated.length - this.#options.resumed.length;
  }

  /** Takes no step after the one that may be running now. */
  cancel(): void {
    this.#cancelled = true;
  }

  async step(tokens: number): Promise<void> {
    if (this.finished) return;
    try {
      if (this.#options.scoresPrompt && this.#pending.length > 1) await this.#score(tokens);
      else await this.#evaluate(tokens);
    } catch (thrown) {
      const { code, message } = toMeshError(thrown, 'engine_failed');
      this.#failure = { code, message };
    }
  }

  /** What came out since the last call; null when nothing did and nothing ended. */
  output(): StepOutput | null {
    const { output, now } = this.#components;
    const released = output.report();
    if (released === null) return null;
    const { id } = this;
    const { finish } = output;
    if (finish === null) return { id, ...released };
    const endedAt = now();
    const firstTokenAt = this.#firstTokenAt ?? endedAt;
    const { prompt, heldTokens } = this.#options;
    return {
      id,
      ...released,
      end: {
        finish,
        promptTokens: prompt.length,
        completionTokens: this.generatedTokens,
        reasoningTokens: output.reasoningTokens,
        cachedTokens: Math.min(heldTokens, prompt.length),
        timings: { promptMs: firstTokenAt - this.#startedAt, predictedMs: endedAt - firstTokenAt },
      },
    };
  }

  async #evaluate(tokens: number): Promise<void> {
    const { sequence, output, grammar, now } = this.#components;
    const slice = this.#pending.slice(0, tokens);
    this.#pending = this.#pending.slice(tokens);
    if (this.#pending.length > 0) {
      await sequence.prefill(slice);
      return;
    }
    const { sampling, logprobs } = this.#options;
    const { generated } = output;
    const { token, logprob } = await sequence.next(slice, { sampling, generated, grammar, logprobs });
    if (this.#cancelled) return;
    this.#firstTokenAt ??= now();
    this.#pending = [token];
    output.push(token, logprob);
  }

  /** All but the prompt's last token, which is evaluated with the first of the answer. */
  async #score(tokens: number): Promise<void> {
    const { sequence, output } = this.#components;
    const { logprobs, onlyScores } = this.#options;
    const count = Math.min(tokens, this.#pending.length - 1, MOST_SCORED_TOKENS);
    const followers = this.#pending.slice(1, count + 1);
    const slice = this.#pending.slice(0, count);
    this.#pending = this.#pending.slice(count);
    this.#scores.push(...(await sequence.score(slice, followers, logprobs ?? 0)));
    if (this.#pending.length > 1) return;
    output.promptScored(this.#scores);
    if (onlyScores) output.end('length');
  }
}
