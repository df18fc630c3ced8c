/** Whole answers in OpenAI's shapes. */
import type { EndEvent, FinishReason, InferenceKind, Usage } from '../../protocols/inference/events.ts';

/** What every part of one answer repeats. */
export interface AnswerIdentity {
  readonly kind: InferenceKind;
  /** `chatcmpl-…` or `cmpl-…`. */
  readonly id: string;
  /** Unix seconds. */
  readonly created: number;
  /** As the client named it. */
  readonly model: string;
}

/** The identity of the answer to one request. */
export function answerIdentity(kind: InferenceKind, requestId: string, model: string): AnswerIdentity {
  const prefix = kind === 'chat' ? 'chatcmpl' : 'cmpl';
  return { kind, id: `${prefix}-${requestId}`, created: Math.floor(Date.now() / 1000), model };
}

/** The body of an answer that was not streamed; `texts` by choice. */
export function wholeAnswer(identity: AnswerIdentity, texts: readonly string[], end: EndEvent): object {
  const choices = end.finishReasons.map((reason, index) => choice(identity.kind, index, texts[index] ?? '', reason));
  return {
    id: identity.id,
    object: identity.kind === 'chat' ? 'chat.completion' : 'text_completion',
    created: identity.created,
    model: identity.model,
    choices,
    usage: usageBody(end.usage),
    timings: timingsBody(end),
  };
}

function choice(kind: InferenceKind, index: number, text: string, reason: FinishReason): object {
  const content = kind === 'chat' ? { message: { role: 'assistant', content: text, refusal: null } } : { text };
  return { index, ...content, logprobs: null, finish_reason: reason };
}

/** Token counts as OpenAI names them. */
export function usageBody(usage: Usage): object {
  return {
    prompt_tokens: usage.promptTokens,
    completion_tokens: usage.completionTokens,
    total_tokens: usage.promptTokens + usage.completionTokens,
    prompt_tokens_details: { cached_tokens: usage.cachedTokens },
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
