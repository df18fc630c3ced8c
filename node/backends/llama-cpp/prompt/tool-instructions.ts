/** Tools for models whose template knows none: told in words, called and answered in Hermes' form. */
import type { PromptMessage, ToolDefinition } from '../request/generation-request.ts';
import { argumentsObject, templateTools } from './template-messages.ts';

/** The same conversation without tools: an instruction in the system message, calls and results as text. */
export function instructed(messages: readonly PromptMessage[], tools: readonly ToolDefinition[]): PromptMessage[] {
  const told: PromptMessage[] = [];
  for (const message of messages) {
    const plain = withoutTools(message);
    const last = told.at(-1);
    // Many templates want user and assistant to alternate.
    const joins = message.role === 'tool' && last !== undefined && isResult(last);
    if (joins) told[told.length - 1] = { ...last, content: `${last.content}\n${plain.content}` };
    else told.push(plain);
  }
  return tools.length === 0 ? told : withSystem(told, instruction(tools));
}

/** For templates that refuse a system message: it opens the first user message instead. */
export function withoutSystem(messages: readonly PromptMessage[]): PromptMessage[] {
  const system = messages.filter(({ role }) => role === 'system').map(({ content }) => content);
  const rest = messages.filter(({ role }) => role !== 'system');
  const first = rest.findIndex(({ role }) => role === 'user');
  if (first === -1) return [{ role: 'user', content: system.join('\n\n') }, ...rest];
  return rest.map((message, index) =>
    index === first ? { ...message, content: [...system, message.content].join('\n\n') } : message,
  );
}

function withSystem(messages: readonly PromptMessage[], text: string): PromptMessage[] {
  const [first, ...rest] = messages;
  if (first?.role !== 'system') return [{ role: 'system', content: text }, ...messages];
  return [{ ...first, content: `${first.content}\n\n${text}` }, ...rest];
}

function instruction(tools: readonly ToolDefinition[]): string {
  const lines = templateTools(tools).map((tool) => JSON.stringify(tool['function']));
  return [
    'You can call these functions, one JSON description per line:',
    '<tools>',
    ...lines,
    '</tools>',
    'To call one, write its name and its arguments as JSON between tags, once for each call, and then stop:',
    '<tool_call>',
    '{"name": "the function", "arguments": {"its argument": "a value"}}',
    '</tool_call>',
    'What it returns comes back between <tool_response> tags. Call a function only where it helps; else just answer.',
  ].join('\n');
}

const RESULT_OPEN = '<tool_response>\n';

function isResult({ role, content }: PromptMessage): boolean {
  return role === 'user' && content.startsWith(RESULT_OPEN);
}

function withoutTools(message: PromptMessage): PromptMessage {
  const { role, content, toolCalls = [], name, reasoning } = message;
  if (role === 'tool') return { role: 'user', content: `${RESULT_OPEN}${content}\n</tool_response>` };
  const calls = toolCalls.map(
    (call) =>
      `<tool_call>\n${JSON.stringify({ name: call.name, arguments: argumentsObject(call.arguments) })}\n</tool_call>`,
  );
  return {
    role,
    content: [...(content === '' ? [] : [content]), ...calls].join('\n'),
    ...(name === undefined ? {} : { name }),
    ...(reasoning === undefined ? {} : { reasoning }),
  };
}
