/** Whole answers in OpenAI's shapes. */
import type { EndEvent, GenerationKind, Usage } from '../../protocols/inference/events.ts';
import type { Dispatch } from '../routing/dispatch.ts';
import type { WholeChoice } from './answer-parts.ts';
import { chatLogprobs, completionLogprobs } from './logprob-format.ts';

/** What every part of one answer repeats. */
export interface AnswerIdentity {
  readonly kind: GenerationKind;
  /** `chatcmpl-…` or `cmpl-…`. */
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
  /** The one that answers. */
  readonly model: string;
}

/** The identity of the answer to one request. */
export function answerIdentity(kind: GenerationKind, requestId: string, model: string): AnswerIdentity {
  const prefix = kind === 'chat' ? 'chatcmpl' : 'cmpl';
  return { kind, id: `${prefix}-${requestId}`, created: Math.floor(Date.now() / 1000), model };
}

/** The body of an answer that was not streamed; one of `choices` for each finish reason. */
export function wholeAnswer(
  identity: AnswerIdentity,
  choices: readonly WholeChoice[],
  end: EndEvent,
  resumption: Resumption = NOT_RESUMED,
): object {
  const shapeOf = identity.kind === 'chat' ? chatChoice : completionChoice;
  return {
    id: identity.id,
    object: identity.kind === 'chat' ? 'chat.completion' : 'text_completion',
    created: identity.created,
    model: identity.model,
    choices: choices.map((choice, index) => ({
      index,
      ...shapeOf(choice),
      finish_reason: end.finishReasons[index] ?? 'stop',
    })),
    usage: usageBody(end.usage),
    timings: timingsBody(end),
    ...resumptionBody(resumption),
  };
}

/** Who gave an answer that went on elsewhere. */
export type Resumption = Pick<Dispatch, 'resumed' | 'nodes'>;

const NOT_RESUMED: Resumption = { resumed: 0, nodes: [] };

/** Additive to OpenAI's shape: told of answers that went on elsewhere, and of no others. */
export function resumptionBody({ resumed, nodes }: Resumption): { readonly x_meshnode?: object } {
  return resumed === 0 ? {} : { x_meshnode: { resumed, nodes } };
}

function chatChoice({ text, reasoning, calls, logprobs }: WholeChoice): object {
  const toolCalls = calls.map(({ id, name, arguments: text }) => ({
    id,
    type: 'function',
    function: { name, arguments: text },
  }));
  const message = {
    role: 'assistant',
    content: text === '' && calls.length > 0 ? null : text,
    refusal: null,
    ...(reasoning === '' ? {} : { reasoning_content: reasoning }),
    ...(calls.length === 0 ? {} : { tool_calls: toolCalls }),
  };
  return { message, logprobs: logprobs === null ? null : chatLogprobs(logprobs) };
}

/** A completion has no place for thoughts apart from its text. */
function completionChoice({ said, logprobs, promptLogprobs, echo }: WholeChoice): object {
  if (logprobs === null && promptLogprobs === null) return { text: said, logprobs: null };
  const echoed = promptLogprobs === null ? null : { entries: promptLogprobs, text: echo };
  return { text: said, logprobs: completionLogprobs(logprobs ?? [], 0, echoed).shape };
}

/** Token counts as OpenAI names them. */
export function usageBody(usage: Usage): object {
  return {
    prompt_tokens: usage.promptTokens,
    completion_tokens: usage.completionTokens,
    total_tokens: usage.promptTokens + usage.completionTokens,
    prompt_tokens_details: { cached_tokens: usage.cachedTokens },
    ...(usage.reasoningTokens === undefined
      ? {}
      : { completion_tokens_details: { reasoning_tokens: usage.reasoningTokens } }),
  };
}

/** Additive to OpenAI's shape, under the names that llama.cpp's server gives them; milliseconds. */
export function timingsBody({ usage, timings }: EndEvent): object {
  const computed = usage.promptTokens - usage.cachedTokens;
  return {
    cache_n: usage.cachedTokens,
    prompt_n: computed,
    prompt_ms: timings.promptMs,
    prompt_per_second: perSecond(computed, timings.promptMs),
    predicted_n: usage.completionTokens,
    predicted_ms: timings.predictedMs,
    predicted_per_second: perSecond(usage.completionTokens, timings.predictedMs),
  };
}

function perSecond(count: number, durationMs: number): number | null {
  return durationMs > 0 ? (count * 1000) / durationMs : null;
}
