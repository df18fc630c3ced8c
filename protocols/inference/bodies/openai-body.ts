/** The two OpenAI request bodies that generate. Source: OpenAI's API reference, chat and legacy completions. */
import { type Static, type TSchema, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import type { GenerationKind } from '../events.ts';
import { bodyJson, isRecord } from './body-json.ts';
import { checkChatBody } from './chat-body-check.ts';
import { checkCompletionBody } from './completion-body-check.ts';
import { bodyMistake } from './openai-body-mistake.ts';

const MAX_STOP_CHARS = 1_000;
/** Below an object within a message, or the schema of a tool, nothing is read whose nulls could be mistaken. */
const MAX_NULL_DEPTH = 6;
/** JSON schemas, in which null means null. */
const SCHEMA_FIELDS: ReadonlySet<string> = new Set(['parameters', 'schema']);

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
  /** Answers to each prompt [1]. */
  n: integer(1, 128),
  /** By token id: added to its logit. */
  logit_bias: optional(Type.Record(Type.String(), Type.Number({ minimum: -100, maximum: 100 }))),
};

const ContentPart = Type.Object({
  type: Type.String(),
  text: optional(Type.String()),
  /** Of an assistant's earlier turn. */
  refusal: optional(Type.String()),
});

const ToolCall = Type.Object({
  id: Type.String({ minLength: 1, maxLength: 256 }),
  type: optional(Type.String()),
  function: Type.Object({ name: Type.String({ minLength: 1, maxLength: 256 }), arguments: Type.String() }),
});

const Message = Type.Object({
  role: Type.Enum(['system', 'developer', 'user', 'assistant', 'tool']),
  content: optional(Type.Union([Type.String(), Type.Array(ContentPart)])),
  name: optional(Type.String()),
  /** Of a tool's answer: the call that it answers. */
  tool_call_id: optional(Type.String()),
  tool_calls: optional(Type.Array(ToolCall, { maxItems: 1024 })),
  /** What the assistant thought; DeepSeek's name. */
  reasoning_content: optional(Type.String()),
});

const ToolFunction = Type.Object({
  name: Type.String({ pattern: '^[A-Za-z0-9_.-]{1,128}$' }),
  description: optional(Type.String()),
  parameters: optional(Type.Record(Type.String(), Type.Unknown())),
  strict: optional(Type.Boolean()),
});

const ResponseFormat = Type.Object({
  type: Type.Enum(['text', 'json_object', 'json_schema']),
  json_schema: optional(
    Type.Object({
      name: Type.String({ pattern: '^[A-Za-z0-9_-]{1,64}$' }),
      description: optional(Type.String()),
      schema: optional(Type.Record(Type.String(), Type.Unknown())),
      strict: optional(Type.Boolean()),
    }),
  ),
  /** Beside `json_object`: llama.cpp's way to give a schema. */
  schema: optional(Type.Record(Type.String(), Type.Unknown())),
});

/** `POST /v1/chat/completions`. */
export const ChatBody = Type.Object({
  ...SHARED,
  messages: Type.Array(Message, { minItems: 1, maxItems: 10_000 }),
  /** Most tokens of the answer [what fits the context]. */
  max_tokens: integer(1, 1e7),
  /** The newer name of `max_tokens`; it wins when both are given. */
  max_completion_tokens: integer(1, 1e7),
  logprobs: optional(Type.Boolean()),
  top_logprobs: integer(0, 20),
  tools: optional(
    Type.Array(Type.Object({ type: Type.String(), function: optional(ToolFunction) }), { maxItems: 1024 }),
  ),
  /** [auto where there are tools]. */
  tool_choice: optional(
    Type.Union([
      Type.Enum(['none', 'auto', 'required']),
      Type.Object({ type: Type.String(), function: optional(Type.Object({ name: Type.String() })) }),
    ]),
  ),
  /** [true]. */
  parallel_tool_calls: optional(Type.Boolean()),
  functions: optional(Type.Array(Type.Unknown())),
  function_call: optional(Type.Unknown()),
  response_format: optional(ResponseFormat),
  modalities: optional(Type.Array(Type.String())),
  web_search_options: optional(Type.Unknown()),
});
export type ChatBody = Static<typeof ChatBody>;
export type ChatMessage = ChatBody['messages'][number];

/** `POST /v1/completions`. */
export const CompletionBody = Type.Object({
  ...SHARED,
  /** One text or several, one list of token ids or several. */
  prompt: Type.Union([Type.String(), Type.Array(Type.Unknown())]),
  /** Most tokens of an answer [16, as at OpenAI]; 0 only repeats the prompt. */
  max_tokens: integer(0, 1e7),
  /** How many alternatives to each token are told [no log probabilities]. */
  logprobs: integer(0, 5),
  best_of: integer(1, 128),
  /** The answer begins with the prompt [false]. */
  echo: optional(Type.Boolean()),
  /** What comes after the answer. */
  suffix: optional(Type.String()),
});
export type CompletionBody = Static<typeof CompletionBody>;

const checkChat = Compile(ChatBody);
const checkCompletion = Compile(CompletionBody);

export function parseBody(kind: 'chat', bytes: Uint8Array): ChatBody;
export function parseBody(kind: 'completion', bytes: Uint8Array): CompletionBody;
export function parseBody(kind: GenerationKind, bytes: Uint8Array): ChatBody | CompletionBody;
/**
 * Reads and checks a body. Unknown fields stay in it unread; explicit nulls are taken out, being the same as absent.
 *
 * @throws MeshError `invalid_request`, with `param` naming the field (`messages[0].role`), on anything malformed, out of
 *   bounds or not served.
 */
export function parseBody(kind: GenerationKind, bytes: Uint8Array): ChatBody | CompletionBody {
  const body = withoutNulls(bodyJson(bytes), MAX_NULL_DEPTH);
  if (kind === 'chat') {
    if (!checkChat.Check(body)) throw bodyMistake(checkChat.Errors(body));
    checkChatBody(body);
    return body;
  }
  if (!checkCompletion.Check(body)) throw bodyMistake(checkCompletion.Errors(body));
  checkCompletionBody(body);
  return body;
}

function withoutNulls(value: unknown, depth: number): unknown {
  if (depth === 0) return value;
  if (Array.isArray(value)) {
    const isFlat = typeof value[0] === 'number' || typeof value[0] === 'string';
    return isFlat ? value : value.map((item) => (item === null ? null : withoutNulls(item, depth - 1)));
  }
  if (!isRecord(value)) return value;
  const kept = Object.entries(value).filter(([, inner]) => inner !== null);
  return Object.fromEntries(
    kept.map(([key, inner]) => [key, SCHEMA_FIELDS.has(key) ? inner : withoutNulls(inner, depth - 1)]),
  );
}
