/** A chat completion body as a generation request. */

import type { ChatBody, ChatMessage } from '../../../../protocols/inference/bodies/openai-body.ts';
import type { InferenceRequest } from '../../../../protocols/inference/events.ts';
import type { Constraint, GenerationRequest, PromptMessage, ToolDefinition } from './generation-request.ts';
import { samplingOf, stopStrings } from './sampling.ts';
import { refuseUnserved } from './unserved-chat.ts';

/**
 * The request's seed is used when the body names none.
 *
 * @throws MeshError `invalid_request` that names what an engine cannot serve.
 */
export function chatRequest(body: ChatBody, { requestId, seed, resume }: InferenceRequest): GenerationRequest {
  refuseUnserved(body);
  const tools = usableTools(body);
  return {
    prompts: [{ kind: 'chat', messages: body.messages.map(promptMessage), tools }],
    choices: body.n ?? 1,
    maxTokens: body.max_completion_tokens ?? body.max_tokens ?? null,
    stop: stopStrings(body),
    sampling: samplingOf(body, seed),
    constraint: constraintOf(body, tools),
    parseTools: tools.length > 0,
    parallelTools: body.parallel_tool_calls ?? true,
    logprobs: body.logprobs === true ? (body.top_logprobs ?? 0) : null,
    echo: false,
    requestId,
    resume: resume ?? null,
  };
}

/** With `tool_choice` none the model is not told of its tools, so that it does not want to call them. */
function usableTools({ tools = [], tool_choice }: ChatBody): ToolDefinition[] {
  if (tool_choice === 'none') return [];
  return tools.flatMap(({ function: tool }) => {
    if (tool === undefined) return [];
    const { name, description, parameters } = tool;
    return [
      {
        name,
        ...(description === undefined ? {} : { description }),
        ...(parameters === undefined ? {} : { parameters }),
      },
    ];
  });
}

function constraintOf({ tool_choice, response_format }: ChatBody, tools: readonly ToolDefinition[]): Constraint {
  if (typeof tool_choice === 'object') return { type: 'tool-call', name: tool_choice.function?.name ?? null };
  if (tool_choice === 'required' && tools.length > 0) return { type: 'tool-call', name: null };
  if (response_format === undefined || response_format.type === 'text') return { type: 'none' };
  const { type, json_schema, schema: besideType } = response_format;
  const schema = type === 'json_schema' ? json_schema?.schema : besideType;
  return schema === undefined ? { type: 'json' } : { type: 'json-schema', schema };
}

function promptMessage(message: ChatMessage): PromptMessage {
  const { role, content, name, tool_call_id, tool_calls = [], reasoning_content } = message;
  return {
    // Templates know "system"; "developer" is OpenAI's newer word for it.
    role: role === 'developer' ? 'system' : role,
    content: textOf(content),
    ...(name === undefined ? {} : { name }),
    ...(tool_call_id === undefined || role !== 'tool' ? {} : { toolCallId: tool_call_id }),
    ...(tool_calls.length === 0 ? {} : { toolCalls: tool_calls.map(promptCall) }),
    ...(reasoning_content === undefined || role !== 'assistant' ? {} : { reasoning: reasoning_content }),
  };
}

function promptCall({ id, function: call }: NonNullable<ChatMessage['tool_calls']>[number]): {
  id: string;
  name: string;
  arguments: string;
} {
  // Clients say so of a call without arguments.
  return { id, name: call.name, arguments: call.arguments.trim() === '' ? '{}' : call.arguments };
}

function textOf(content: ChatMessage['content']): string {
  if (content === undefined) return '';
  if (typeof content === 'string') return content;
  return content.map((part) => part.text ?? part.refusal ?? '').join('');
}
