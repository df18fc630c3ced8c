/**
 * What OpenAI's API answers, as far as this node answers it: field names, types and which are required, after the public
 * API reference, and beside them the fields that only we have. A field that is neither fails.
 */
import assert from 'node:assert/strict';
import { type TSchema, Type } from 'typebox';
import Value from 'typebox/value';

const object = (fields: Record<string, TSchema>) => Type.Object(fields, { additionalProperties: false });
const nullable = (schema: TSchema) => Type.Union([schema, Type.Null()]);
const optional = (schema: TSchema) => Type.Optional(schema);
const Count = Type.Integer({ minimum: 0 });
const Rate = nullable(Type.Number({ minimum: 0 }));

/** Ours: llama.cpp's names for durations on the serving node. */
const Timings = object({
  cache_n: Count,
  prompt_n: Count,
  prompt_ms: Type.Number({ minimum: 0 }),
  prompt_per_second: Rate,
  predicted_n: Count,
  predicted_ms: Type.Number({ minimum: 0 }),
  predicted_per_second: Rate,
});
/** Ours: on answers that went on elsewhere. */
const Resumed = object({ resumed: Type.Integer({ minimum: 1 }), nodes: Type.Array(Type.String(), { minItems: 1 }) });

const Usage = object({
  prompt_tokens: Count,
  completion_tokens: Count,
  total_tokens: Count,
  prompt_tokens_details: optional(object({ cached_tokens: Count })),
  completion_tokens_details: optional(object({ reasoning_tokens: Count })),
});

const bytes = nullable(Type.Array(Type.Integer({ minimum: 0, maximum: 255 })));
const logprob = { token: Type.String(), logprob: Type.Number(), bytes };
const ChatLogprobs = nullable(
  object({
    content: nullable(Type.Array(object({ ...logprob, top_logprobs: Type.Array(object(logprob)) }))),
    refusal: Type.Null(),
  }),
);
const CompletionLogprobs = nullable(
  object({
    tokens: Type.Array(Type.String()),
    token_logprobs: Type.Array(nullable(Type.Number())),
    top_logprobs: Type.Array(nullable(Type.Record(Type.String(), Type.Number()))),
    text_offset: Type.Array(Count),
  }),
);

const ChatFinish = Type.Enum(['stop', 'length', 'tool_calls', 'content_filter']);
const CompletionFinish = Type.Enum(['stop', 'length', 'content_filter']);

const Message = object({
  role: Type.Literal('assistant'),
  content: nullable(Type.String()),
  refusal: Type.Null(),
  /** Ours, after DeepSeek's API. */
  reasoning_content: optional(Type.String({ minLength: 1 })),
  tool_calls: optional(
    Type.Array(
      object({
        id: Type.String({ minLength: 1 }),
        type: Type.Literal('function'),
        function: object({ name: Type.String({ minLength: 1 }), arguments: Type.String() }),
      }),
      { minItems: 1 },
    ),
  ),
});

/** The first part of a call, and the others: clients drop calls whose first part has no id. */
const CallDelta = Type.Union([
  object({
    index: Count,
    id: Type.String({ minLength: 1 }),
    type: Type.Literal('function'),
    function: object({ name: Type.String({ minLength: 1 }), arguments: Type.String() }),
  }),
  object({ index: Count, function: object({ arguments: Type.String() }) }),
]);

const Delta = object({
  role: optional(Type.Literal('assistant')),
  content: optional(nullable(Type.String())),
  reasoning_content: optional(Type.String({ minLength: 1 })),
  tool_calls: optional(Type.Array(CallDelta, { minItems: 1 })),
});

const head = (prefix: string, name: string) => ({
  id: Type.String({ pattern: `^${prefix}-[0-9a-zA-Z]+$` }),
  object: Type.Literal(name),
  created: Count,
  model: Type.String({ minLength: 1 }),
});

const choices = (fields: Record<string, TSchema>) => Type.Array(object({ index: Count, ...fields }));

const CompletionHead = head('cmpl', 'text_completion');

/** By the name of what is answered. */
export const OPENAI_SHAPES = {
  chat: object({
    ...head('chatcmpl', 'chat.completion'),
    choices: choices({ message: Message, logprobs: ChatLogprobs, finish_reason: ChatFinish }),
    usage: Usage,
    timings: optional(Timings),
    x_meshnode: optional(Resumed),
  }),
  chatChunk: object({
    ...head('chatcmpl', 'chat.completion.chunk'),
    choices: choices({ delta: Delta, logprobs: ChatLogprobs, finish_reason: nullable(ChatFinish) }),
    usage: optional(nullable(Usage)),
    timings: optional(Timings),
    x_meshnode: optional(Resumed),
  }),
  completion: object({
    ...CompletionHead,
    choices: choices({ text: Type.String(), logprobs: CompletionLogprobs, finish_reason: CompletionFinish }),
    usage: Usage,
    timings: optional(Timings),
    x_meshnode: optional(Resumed),
  }),
  completionChunk: object({
    ...CompletionHead,
    choices: choices({ text: Type.String(), logprobs: CompletionLogprobs, finish_reason: nullable(CompletionFinish) }),
    usage: optional(nullable(Usage)),
    timings: optional(Timings),
    x_meshnode: optional(Resumed),
  }),
  embeddings: object({
    object: Type.Literal('list'),
    data: Type.Array(
      object({
        object: Type.Literal('embedding'),
        index: Count,
        embedding: Type.Union([Type.Array(Type.Number(), { minItems: 1 }), Type.String({ minLength: 1 })]),
      }),
    ),
    model: Type.String({ minLength: 1 }),
    usage: object({ prompt_tokens: Count, total_tokens: Count }),
  }),
  models: object({
    object: Type.Literal('list'),
    data: Type.Array(
      Type.Object({
        id: Type.String({ minLength: 1 }),
        object: Type.Literal('model'),
        created: Count,
        owned_by: Type.String({ minLength: 1 }),
      }),
    ),
  }),
  error: object({
    error: object({
      message: Type.String({ minLength: 1 }),
      type: Type.String({ minLength: 1 }),
      param: nullable(Type.String()),
      code: nullable(Type.String()),
      /** Ours: of a model that is awaited. */
      progress: optional(
        object({
          state: Type.Enum(['queued', 'loading']),
          fraction: nullable(Type.Number({ minimum: 0, maximum: 1 })),
        }),
      ),
    }),
  }),
} as const;

/** Fails with the first field that is not as OpenAI has it. */
export function assertShape(name: keyof typeof OPENAI_SHAPES, value: unknown): void {
  const shape: TSchema = OPENAI_SHAPES[name];
  if (Value.Check(shape, value)) return;
  const wrong = Value.Errors(shape, value).map(({ instancePath, message }) => `${instancePath}: ${message}`);
  assert.fail(`no ${name} of OpenAI's: ${wrong.join('; ')} in ${JSON.stringify(value)}`);
}
