/** What a chat body may not say, beyond its schema. */
import { invalidField } from './body-json.ts';
import type { ChatBody, ChatMessage } from './openai-body.ts';
import { checkShared, missing, unserved } from './shared-body-check.ts';

/** @throws MeshError `invalid_request` that names the field. */
export function checkChatBody(body: ChatBody): void {
  checkShared(body);
  if ((body.top_logprobs ?? 0) > 0 && body.logprobs !== true) {
    throw invalidField('top_logprobs', "it is allowed only when 'logprobs' is true");
  }
  if (body.modalities?.some((modality) => modality !== 'text') === true) {
    throw unserved('modalities', 'models here answer with text only');
  }
  checkTools(body);
  checkFormat(body);
  body.messages.forEach((message, index) => {
    checkMessage(message, `messages[${index}]`);
  });
}

function checkTools({ tools = [], tool_choice, functions = [], function_call }: ChatBody): void {
  if (functions.length > 0) throw unserved('functions', "it is the old form; use 'tools'");
  if (function_call !== undefined && function_call !== 'none' && function_call !== 'auto') {
    throw unserved('function_call', "it is the old form; use 'tools' and 'tool_choice'");
  }
  const names = new Set<string>();
  tools.forEach((tool, index) => {
    if (tool.type !== 'function') throw unserved(`tools[${index}].type`, 'only tools of type "function" are');
    if (tool.function === undefined) throw missing(`tools[${index}].function`);
    const { name } = tool.function;
    if (names.has(name)) throw invalidField(`tools[${index}].function.name`, 'another tool has this name');
    names.add(name);
  });
  if (typeof tool_choice === 'object') {
    if (tool_choice.type !== 'function') throw unserved('tool_choice.type', 'only "function" is');
    if (tool_choice.function === undefined) throw missing('tool_choice.function');
    if (!names.has(tool_choice.function.name)) {
      throw invalidField('tool_choice.function.name', "no function in 'tools' has this name");
    }
  } else if (tool_choice === 'required' && names.size === 0) {
    throw invalidField('tool_choice', "it is allowed only when 'tools' are given");
  }
}

function checkFormat({ response_format }: ChatBody): void {
  if (response_format?.type === 'json_schema' && response_format.json_schema === undefined) {
    throw missing('response_format.json_schema');
  }
}

function checkMessage(message: ChatMessage, name: string): void {
  const { role, content, tool_calls = [], tool_call_id } = message;
  if (content === undefined && role !== 'assistant') throw missing(`${name}.content`);
  if (role === 'tool' && tool_call_id === undefined) throw missing(`${name}.tool_call_id`);
  if (role !== 'assistant' && tool_calls.length > 0) {
    throw invalidField(`${name}.tool_calls`, 'only an assistant calls tools');
  }
  tool_calls.forEach(({ type = 'function' }, index) => {
    if (type !== 'function') throw unserved(`${name}.tool_calls[${index}].type`, 'only "function" is');
  });
  if (typeof content !== 'object') return;
  content.forEach((part, index) => {
    const partName = `${name}.content[${index}]`;
    if (part.type === 'text' && part.text === undefined) throw missing(`${partName}.text`);
    if (part.type === 'refusal' && part.refusal === undefined) throw missing(`${partName}.refusal`);
  });
}
