/** A request that goes on with a text that another server began: the text becomes the beginning of the answer. Pure. */
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import type { InferenceRequest } from '../../../protocols/inference/events.ts';

/**
 * How a server goes on with a chat answer. `vllm`: asked for with `continue_final_message`. `llama-server`: an assistant's
 * message at the end is gone on with. null: it would begin a new answer.
 */
export type PrefillDialect = 'vllm' | 'llama-server' | null;

export interface BegunText {
  readonly text: string;
  /** Tokens that it is thought to be: they count against `max_tokens`. */
  readonly tokens: number;
}

/** What OpenAI's legacy completions generate at most when the body does not say. */
const DEFAULT_COMPLETION_TOKENS = 16;
/** Fields that make an answer more than one text: none of them can be gone on with from text. */
const BEYOND_TEXT = ['tools', 'functions', 'logprobs', 'top_logprobs', 'echo', 'suffix'] as const;

/** Can the server go on with a text that was begun as the answer to this request? */
export function canContinue(request: Pick<InferenceRequest, 'kind' | 'body'>, dialect: PrefillDialect): boolean {
  return continuedBody(request, { text: 'x', tokens: 1 }, dialect) !== null;
}

/** Is it one text, so that a second run of the request can be told to give the same? */
export function canRepeat({ kind, body: bytes }: Pick<InferenceRequest, 'kind' | 'body'>): boolean {
  if (kind !== 'chat' && kind !== 'completion') return false;
  const body = parse(bytes);
  return body !== null && isPlain(body) && !Array.isArray(body['prompt']);
}

/** The body to send instead; null when the server cannot go on with such an answer. */
export function continuedBody(
  { kind, body: bytes }: Pick<InferenceRequest, 'kind' | 'body'>,
  begun: BegunText,
  dialect: PrefillDialect,
): Uint8Array | null {
  const body = parse(bytes);
  if (body === null || !isPlain(body)) return null;
  const continued =
    kind === 'chat' ? chat(body, begun, dialect) : kind === 'completion' ? completion(body, begun) : null;
  return continued === null ? null : new TextEncoder().encode(JSON.stringify(continued));
}

type Body = Readonly<Record<string, unknown>>;

function chat(body: Body, begun: BegunText, dialect: PrefillDialect): Body | null {
  const { messages } = body;
  if (dialect === null || !Array.isArray(messages) || messages.length === 0) return null;
  // The client's own beginning of an answer: what the server made of it is not known here.
  if (isRecord(messages.at(-1)) && (messages.at(-1) as Body)['role'] === 'assistant') return null;
  const asked = dialect === 'vllm' ? { add_generation_prompt: false, continue_final_message: true } : {};
  const prefilled = [...(messages as unknown[]), { role: 'assistant', content: begun.text }];
  return { ...body, messages: prefilled, ...asked, ...lessTokens(body, begun) };
}

function completion(body: Body, begun: BegunText): Body | null {
  const { prompt } = body;
  if (typeof prompt !== 'string') return null;
  const limited = body['max_tokens'] === undefined || body['max_tokens'] === null;
  const from = limited ? { ...body, max_tokens: DEFAULT_COMPLETION_TOKENS } : body;
  return { ...from, prompt: prompt + begun.text, ...lessTokens(from, begun) };
}

/** At least one: an answer whose tokens are all used up would have ended. */
function lessTokens(body: Body, { tokens }: BegunText): Body {
  const limits: Record<string, number> = {};
  for (const field of ['max_tokens', 'max_completion_tokens']) {
    const limit = body[field];
    if (typeof limit === 'number') limits[field] = Math.max(1, limit - tokens);
  }
  return limits;
}

/** One answer, of text alone, not held to a form: a grammar would begin anew in the middle of it. */
function isPlain(body: Body): boolean {
  if (![undefined, null, 1].includes(body['n'] as number)) return false;
  if (![undefined, null, 1].includes(body['best_of'] as number)) return false;
  const format = body['response_format'];
  if (isPresent(format) && (!isRecord(format) || format['type'] !== 'text')) return false;
  return BEYOND_TEXT.every((field) => !isPresent(body[field]));
}

function isPresent(value: unknown): boolean {
  if (value === undefined || value === null || value === false || value === '') return false;
  return !(Array.isArray(value) && value.length === 0);
}

function parse(bytes: Uint8Array): Body | null {
  try {
    const body: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return isRecord(body) ? body : null;
  } catch {
    return null;
  }
}
