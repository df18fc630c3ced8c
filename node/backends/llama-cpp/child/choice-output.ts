/** What one choice has generated and what of it is still to be reported. Pure: replayed, it arrives at the same state. */
import type { FinishReason, TokenLogprob, ToolCallDelta } from '../../../../protocols/inference/events.ts';
import type { StepOutput } from '../ipc.ts';
import type { Output, OutputPipeline } from '../output/output-pipeline.ts';

export interface ChoiceOutputComponents {
  readonly pipeline: OutputPipeline;
  readonly endsAnswer: (token: number) => boolean;
}

export interface ChoiceOutputOptions {
  /** Ends the answer with `length`. */
  readonly maxTokens: number;
  /** Comes before the first token's text. */
  readonly echo: string;
}

/** All that tokens released since the last report. */
interface Fresh {
  tokens: number[];
  text: string;
  reasoning: string;
  toolCalls: ToolCallDelta[];
  logprobs: TokenLogprob[];
}

export class ChoiceOutput {
  readonly #pipeline: OutputPipeline;
  readonly #endsAnswer: (token: number) => boolean;
  readonly #maxTokens: number;
  readonly #generated: number[] = [];
  #fresh: Fresh;
  #promptLogprobs: readonly (TokenLogprob | null)[] | null = null;
  #finish: FinishReason | null = null;

  constructor({ pipeline, endsAnswer }: ChoiceOutputComponents, { maxTokens, echo }: ChoiceOutputOptions) {
    this.#pipeline = pipeline;
    this.#endsAnswer = endsAnswer;
    this.#maxTokens = maxTokens;
    this.#fresh = nothing(echo);
  }

  /** The answer's tokens, the replayed ones too; the one that ends an answer is not among them. */
  get generated(): readonly number[] {
    return this.#generated;
  }

  get reasoningTokens(): number {
    return this.#pipeline.reasoningTokens;
  }

  /** Not null: no token more is wanted. */
  get finish(): FinishReason | null {
    return this.#finish;
  }

  /** Takes tokens that have been reported before, with all that they released. */
  replay(tokens: readonly number[]): void {
    for (const token of tokens) if (this.#finish === null) this.push(token, null);
    if (tokens.length > 0) this.#fresh = nothing('');
  }

  push(token: number, logprob: TokenLogprob | null): void {
    if (this.#endsAnswer(token)) {
      this.end('stop');
      return;
    }
    this.#generated.push(token);
    this.#fresh.tokens.push(token);
    if (logprob !== null) this.#fresh.logprobs.push(logprob);
    this.#release(this.#pipeline.push(token));
    if (this.#finish === null && this.#generated.length >= this.#maxTokens) this.end('length');
  }

  end(reason: 'stop' | 'length'): void {
    this.#release(this.#pipeline.end(reason));
  }

  /** Of each of the prompt's tokens, reported with what comes first. */
  promptScored(logprobs: readonly (TokenLogprob | null)[]): void {
    this.#promptLogprobs = logprobs;
  }

  /** What is new since the last call; null as long as there is neither a token nor the end. */
  report(): Omit<StepOutput, 'id' | 'end'> | null {
    const { tokens, text, reasoning, toolCalls, logprobs } = this.#fresh;
    if (tokens.length === 0 && this.#finish === null) return null;
    const promptLogprobs = this.#promptLogprobs;
    this.#promptLogprobs = null;
    this.#fresh = nothing('');
    return {
      tokens,
      text,
      ...(reasoning === '' ? {} : { reasoning }),
      ...(toolCalls.length === 0 ? {} : { toolCalls }),
      ...(logprobs.length === 0 ? {} : { logprobs }),
      ...(promptLogprobs === null ? {} : { promptLogprobs }),
    };
  }

  #release({ text, reasoning, toolCalls, finish }: Output): void {
    this.#fresh.text += text;
    this.#fresh.reasoning += reasoning;
    this.#fresh.toolCalls.push(...toolCalls);
    if (finish !== null) this.#finish = finish;
  }
}

function nothing(text: string): Fresh {
  return { tokens: [], text, reasoning: '', toolCalls: [], logprobs: [] };
}
