/** Messages and tools in the shape that chat templates expect, which is that of Hugging Face's transformers. */
import { createHash } from 'node:crypto';
import type { PromptMessage, PromptToolCall, ToolDefinition } from '../request/generation-request.ts';

/** How a template wants what templates disagree about. */
export interface MessageStyle {
  /** Arguments of earlier calls as an object, or as the JSON text that they came in. */
  readonly arguments: 'object' | 'text';
  /** Mistral's templates refuse ids that are not nine letters or digits. */
  readonly shortIds: boolean;
}

const SHORT_ID = /^[A-Za-z0-9]{9}$/;

/** Plain values, nothing of them escaped. */
export function templateMessages(messages: readonly PromptMessage[], style: MessageStyle): Record<string, unknown>[] {
  const idOf = (id: string): string => (style.shortIds ? shortId(id) : id);
  return messages.map(({ role, content, name, toolCallId, toolCalls, reasoning }) => ({
    role,
    content,
    ...(name === undefined ? {} : { name }),
    ...(toolCallId === undefined ? {} : { tool_call_id: idOf(toolCallId) }),
    ...(reasoning === undefined ? {} : { reasoning_content: reasoning }),
    ...(toolCalls === undefined || toolCalls.length === 0
      ? {}
      : { tool_calls: toolCalls.map((call) => templateCall(call, style, idOf)) }),
  }));
}

export function templateTools(tools: readonly ToolDefinition[]): Record<string, unknown>[] {
  return tools.map(({ name, description = '', parameters }) => ({
    type: 'function',
    function: { name, description, parameters: parameters ?? { type: 'object', properties: {} } },
  }));
}

/** The object that a call's arguments are; `{}` for what is no object. */
export function argumentsObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : {};
  } catch {
    return {};
  }
}

function templateCall(
  { id, name, arguments: text }: PromptToolCall,
  style: MessageStyle,
  idOf: (id: string) => string,
): Record<string, unknown> {
  const given = style.arguments === 'object' ? argumentsObject(text) : text;
  return { id: idOf(id), type: 'function', function: { name, arguments: given } };
}

/** Alike for alike ids, so that results find their calls. */
function shortId(id: string): string {
  return SHORT_ID.test(id) ? id : createHash('sha256').update(id).digest('hex').slice(0, 9);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
