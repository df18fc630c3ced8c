/** What a chat may ask of some server and not of an engine here: refused by name, never silently ignored. */
import { checkJsonSchema } from '../../../../protocols/inference/bodies/json-schema.ts';
import type { ChatBody, ChatMessage } from '../../../../protocols/inference/bodies/openai-body.ts';
import { unserved } from '../../../../protocols/inference/bodies/shared-body-check.ts';

/** @throws MeshError `invalid_request` that names the field. */
export function refuseUnserved(body: ChatBody): void {
  if (body.web_search_options !== undefined) throw unserved('web_search_options', 'models here search nothing');
  body.messages.forEach((message, index) => {
    refuseInMessage(message, `messages[${index}]`);
  });
  refuseFormat(body);
  refuseArguments(body);
}

function refuseInMessage({ role, content }: ChatMessage, name: string): void {
  if (typeof content !== 'object') return;
  content.forEach(({ type }, index) => {
    if (type === 'text' || (type === 'refusal' && role === 'assistant')) return;
    throw unserved(`${name}.content[${index}].type`, 'this model takes text only');
  });
}

function refuseFormat({ response_format, tools = [], tool_choice = 'auto' }: ChatBody): void {
  if (response_format === undefined || response_format.type === 'text') return;
  if (tools.length > 0 && tool_choice === 'auto') {
    const why = `JSON of one form from a model that may call tools as well; send 'tool_choice' "none" or "required"`;
    throw unserved('response_format', why);
  }
  const isNamed = response_format.type === 'json_schema';
  const schema = isNamed ? response_format.json_schema?.schema : response_format.schema;
  const param = isNamed ? 'response_format.json_schema.schema' : 'response_format.schema';
  if (schema !== undefined) checkJsonSchema(schema, param);
}

/** Only a call that is demanded is held to its schema; one that the model chooses to make is its own. */
function refuseArguments({ tools = [], tool_choice = 'auto' }: ChatBody): void {
  if (tool_choice === 'auto' || tool_choice === 'none') return;
  const demanded = typeof tool_choice === 'object' ? tool_choice.function?.name : undefined;
  tools.forEach(({ function: tool }, index) => {
    if (tool?.parameters === undefined || (demanded !== undefined && tool.name !== demanded)) return;
    checkJsonSchema(tool.parameters, `tools[${index}].function.parameters`);
  });
}
