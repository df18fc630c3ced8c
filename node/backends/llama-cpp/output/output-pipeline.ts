/**
 * From generated tokens to what they mean: whole characters, thoughts apart from the answer, tool calls, nothing of a
 * stop string. Pure: replayed from the same tokens it arrives at the same state and has released the same.
 */

import type { FinishReason, ToolCallDelta } from '../../../../protocols/inference/events.ts';
import type { Dialect } from '../prompt/dialect.ts';
import { callId } from './call-id.ts';
import { Characters, type Detokenize } from './characters.ts';
import { ReasoningSplit } from './reasoning-split.ts';
import { StopStrings } from './stop-strings.ts';
import { ToolCallParser, type ToolPart } from './tool-call-parser.ts';

export type { Detokenize } from './characters.ts';

export interface PipelineComponents {
  /** Control tokens come out as nothing. */
  readonly detokenize: Detokenize;
  /** Text of the control tokens that are tags of the dialect (`tagsOf`): they are read, not dropped. */
  readonly tagTokens: ReadonlyMap<number, string>;
}

export interface PipelineOptions {
  /** Searched in the answer's text only, not in thoughts and not in tool calls. */
  readonly stops: readonly string[];
  /** Null for plain text: no thoughts and no calls are looked for. */
  readonly dialect: Dialect | null;
  /** False: what looks like a tool call is text. */
  readonly parseTools: boolean;
  /** False: the answer ends after its first call. */
  readonly parallelTools: boolean;
  /** Where calls have no tag, only calls of these are calls. Absent: any name. */
  readonly toolNames?: readonly string[];
  /** Ids of calls derive from it and their index. */
  readonly callIdSeed: string;
  /** The prompt ends within an open thinking tag. */
  readonly startsInReasoning: boolean;
}

/** What came out with one token. */
export interface Output {
  readonly text: string;
  readonly reasoning: string;
  readonly toolCalls: readonly ToolCallDelta[];
  /** Not null: nothing more comes out, and no token more is wanted. */
  readonly finish: FinishReason | null;
}

const NO_CALLS: readonly ToolCallDelta[] = [];

export class OutputPipeline {
  readonly #options: PipelineOptions;
  readonly #characters: Characters;
  readonly #reasoning: ReasoningSplit | null;
  readonly #tools: ToolCallParser | null;
  readonly #stops: StopStrings;
  #finish: FinishReason | null = null;
  #reasoningTokens = 0;
  #wholeCalls = 0;

  constructor({ detokenize, tagTokens }: PipelineComponents, options: PipelineOptions) {
    const { dialect, parseTools, startsInReasoning, stops, toolNames } = options;
    this.#options = options;
    this.#characters = new Characters(detokenize, tagTokens);
    this.#reasoning = dialect === null ? null : new ReasoningSplit(dialect.thinking, startsInReasoning);
    this.#tools = dialect === null || !parseTools ? null : new ToolCallParser(dialect.tools, toolNames ?? null);
    this.#stops = new StopStrings(stops);
  }

  /** Tokens so far that belong to thoughts: those within, and the closing tag's. */
  get reasoningTokens(): number {
    return this.#reasoningTokens;
  }

  /** Takes the next token. After `finish` nothing more comes out. */
  push(token: number): Output {
    if (this.#finish !== null) return { text: '', reasoning: '', toolCalls: NO_CALLS, finish: this.#finish };
    if (this.#reasoning?.thinking) this.#reasoningTokens += 1;
    return this.#split(this.#characters.push(token));
  }

  /**
   * The model stopped, or may say no more: what was held back comes out.
   *
   * @returns with a `finish`: `tool_calls` when it stopped and a call is complete, `stop` when a stop string turned up.
   */
  end(reason: 'stop' | 'length'): Output {
    const cut = this.#finish === null ? this.#split(this.#characters.end()) : this.push(0);
    if (cut.finish !== null) return cut;
    const { reasoning, content } = this.#reasoning?.end() ?? { reasoning: '', content: '' };
    const held = this.#answer([...this.#parts(content), ...(this.#tools?.end() ?? [])], cut.reasoning + reasoning);
    const rest = held.finish === null ? this.#stops.end() : '';
    this.#finish ??= reason === 'stop' ? this.#stopped() : 'length';
    return {
      text: cut.text + held.text + rest,
      reasoning: held.reasoning,
      toolCalls: merged([...cut.toolCalls, ...held.toolCalls]),
      finish: this.#finish,
    };
  }

  #split(text: string): Output {
    const { reasoning, content } = this.#reasoning?.push(text) ?? { reasoning: '', content: text };
    return this.#answer(this.#parts(content), reasoning);
  }

  #parts(content: string): ToolPart[] {
    if (content === '') return [];
    return this.#tools?.push(content) ?? [{ type: 'text', text: content }];
  }

  /** Takes the answer's parts up to whatever ends it. */
  #answer(parts: readonly ToolPart[], reasoning: string): Output {
    let text = '';
    const calls: ToolCallDelta[] = [];
    for (const part of parts) {
      if (this.#finish !== null) break;
      if (part.type === 'text') {
        const shown = this.#stops.push(part.text);
        text += shown.text;
        if (shown.stopped) this.#finish = this.#stopped();
      } else if (part.type === 'call') {
        text += this.#stops.end();
        calls.push(this.#delta(part));
      } else {
        this.#wholeCalls += 1;
        if (!this.#options.parallelTools) this.#finish = 'tool_calls';
      }
    }
    return { text, reasoning, toolCalls: calls.length === 0 ? NO_CALLS : merged(calls), finish: this.#finish };
  }

  #stopped(): FinishReason {
    return this.#wholeCalls > 0 ? 'tool_calls' : 'stop';
  }

  #delta({ index, name, arguments: text }: Extract<ToolPart, { type: 'call' }>): ToolCallDelta {
    const head = name === undefined ? {} : { id: callId(this.#options.callIdSeed, index), name };
    return { index, ...head, arguments: text };
  }
}

/** The same deltas, neighbours of one call as one. */
function merged(deltas: readonly ToolCallDelta[]): ToolCallDelta[] {
  const result: ToolCallDelta[] = [];
  for (const delta of deltas) {
    const last = result.at(-1);
    if (last?.index === delta.index) {
      result[result.length - 1] = { ...last, ...delta, arguments: last.arguments + delta.arguments };
    } else {
      result.push(delta);
    }
  }
  return result;
}
