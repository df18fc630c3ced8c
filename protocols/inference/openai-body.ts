/** The two OpenAI request bodies, as far as they are served. Source: OpenAI's API reference, chat and legacy completions. */
import { type Static, type TSchema, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { MeshError } from '../../node/common/errors.ts';
import type { InferenceKind } from './events.ts';
import { bodyMistake } from './openai-body-mistake.ts';
import { refuseUnserved } from './openai-unserved.ts';

const MAX_STOP_CHARS = 1_000;

const optional = <T extends TSchema>(schema: T) => Type.Optional(schema);
const number = (minimum: number, maximum: number) => optional(Type.Number({ minimum, maximum }));
const integer = (minimum: number, maximum: number) => optional(Type.Integer({ minimum, maximum }));

const StopString = Type.String({ minLength: 1, maxLength: MAX_STOP_CHARS });

/** Fields that both bodies share. Absent means the default in brackets. */
const SHARED = {
  model: Type.String({ minLength: 1, maxLength: 256 }),
  /** Server-sent events instead of one object [false]. */
  stream: optional(Type.Boolean()),
  stream_options: optional(Type.Object({ include_usage: optional(Type.Boolean()) })),
  /** Most tokens of the answer [chat: what fits the context; completion: 16, as at OpenAI]. */
  max_tokens: integer(1, 1e7),
  /** 0 is greedy [1]. */
  temperature: number(0, 2),
  top_p: number(0, 1),
  /** 0 is off. Not OpenAI's; llama.cpp's name. */
  top_k: integer(0, 1e6),
  /** Not OpenAI's; llama.cpp's name. */
  min_p: number(0, 1),
  /** 1 is off. Not OpenAI's; llama.cpp's name. */
  repeat_penalty: number(0, 10),
  frequency_penalty: number(-2, 2),
  presence_penalty: number(-2, 2),
  seed: integer(Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
  stop: optional(Type.Union([StopString, Type.Array(StopString, { maxItems: 16 })])),
  n: integer(1, 128),
  logit_bias: optional(Type.Record(Type.String(), Type.Number())),
};

const ContentPart = Type.Object({ type: Type.String(), text: optional(Type.String()) });

const Message = Type.Object({
  role: Type.Enum(['system', 'developer', 'user', 'assistant', 'tool']),
  content: optional(Type.Union([Type.String(), Type.Array(ContentPart)])),
  name: optional(Type.String()),
  tool_call_id: optional(Type.String()),
  tool_calls: optional(Type.Array(Type.Unknown())),
});

/** `POST /v1/chat/completions`. */
export const ChatBody = Type.Object({
  ...SHARED,
  messages: Type.Array(Message, { minItems: 1, maxItems: 10_000 }),
  /** The newer name of `max_tokens`; it wins when both are given. */
  max_completion_tokens: integer(1, 1e7),
  logprobs: optional(Type.Boolean()),
  top_logprobs: integer(0, 20),
  tools: optional(Type.Array(Type.Unknown())),
  functions: optional(Type.Array(Type.Unknown())),
  response_format: optional(Type.Object({ type: Type.String() })),
  modalities: optional(Type.Array(Type.String())),
});
export type ChatBody = Static<typeof ChatBody>;
export type ChatMessage = ChatBody['messages'][number];

/** `POST /v1/completions`. */
export const CompletionBody = Type.Object({
  ...SHARED,
  prompt: Type.Union([Type.String(), Type.Array(Type.Unknown())]),
  logprobs: optional(Type.Union([Type.Boolean(), Type.Integer()])),
  best_of: integer(1, 128),
  echo: optional(Type.Boolean()),
  suffix: optional(Type.String()),
});
export type CompletionBody = Static<typeof CompletionBody>;

const checkChat = Compile(ChatBody);
const checkCompletion = Compile(CompletionBody);

export function parseBody(kind: 'chat', bytes: Uint8Array): ChatBody;
export function parseBody(kind: 'completion', bytes: Uint8Array): CompletionBody;
export function parseBody(kind: InferenceKind, bytes: Uint8Array): ChatBody | CompletionBody;
/**
 * Reads and checks a body. Unknown fields stay in it unread; explicit nulls are taken out, being the same as absent.
 *
 * @throws MeshError `invalid_request`, with `param` naming the field (`messages[0].role`), on anything malformed, out of
 *   bounds or not served yet.
 */
export function parseBody(kind: InferenceKind, bytes: Uint8Array): ChatBody | CompletionBody {
  const body = withoutNulls(parseJson(bytes));
  const check = kind === 'chat' ? checkChat : checkCompletion;
  if (!check.Check(body)) throw bodyMistake(check.Errors(body));
  refuseUnserved(body);
  return body;
}

function parseJson(bytes: Uint8Array): unknown {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new MeshError('invalid_request', 'The request body is not valid UTF-8.');
  }
  try {
    return JSON.parse(text);
  } catch (thrown) {
    // The parser's own message quotes the body, and prompts do not belong in errors.
    const position = /at position (\d+)/.exec((thrown as Error).message)?.[1];
    const where = position === undefined ? '' : ` (at character ${position})`;
    throw new MeshError('invalid_request', `The request body is not valid JSON${where}.`);
  }
}

/** Two levels and the messages: deeper nulls belong to fields that are not read. */
function withoutNulls(body: unknown): unknown {
  if (!isRecord(body)) return body;
  const kept = Object.entries(body).filter(([, value]) => value !== null);
  return Object.fromEntries(kept.map(([key, value]) => [key, withoutOwnNulls(value)]));
}

function withoutOwnNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => (isRecord(item) ? withoutOwnNulls(item) : item));
  if (!isRecord(value)) return value;
  return Object.fromEntries(Object.entries(value).filter(([, inner]) => inner !== null));
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
