/** What OpenAI's API has and this node does not serve yet: refused by name, never silently ignored. */
import { MeshError } from '../../node/common/errors.ts';
import type { ChatBody, ChatMessage, CompletionBody } from './openai-body.ts';

/** @throws MeshError `invalid_request` that names the field. */
export function refuseUnserved(body: ChatBody | CompletionBody): void {
  if ((body.n ?? 1) > 1) throw unserved('n', 'more than one choice is');
  if (Object.keys(body.logit_bias ?? {}).length > 0) throw unserved('logit_bias', 'biasing tokens is');
  if ('messages' in body) refuseInChat(body);
  else refuseInCompletion(body);
}

function refuseInChat(body: ChatBody): void {
  const toolChoice: unknown = (body as Record<string, unknown>)['tool_choice'];
  if ((body.tools ?? []).length > 0 && toolChoice !== 'none') throw unserved('tools', 'tool calling is');
  if ((body.functions ?? []).length > 0) throw unserved('functions', 'function calling is');
  if ((body.response_format?.type ?? 'text') !== 'text') {
    throw unserved('response_format', 'any format other than "text" is');
  }
  if (body.logprobs === true) throw unserved('logprobs', 'log probabilities are');
  if ((body.top_logprobs ?? 0) > 0) throw unserved('top_logprobs', 'log probabilities are');
  if (body.modalities?.some((modality) => modality !== 'text') === true) {
    throw unserved('modalities', 'any modality other than "text" is');
  }
  body.messages.forEach((message, index) => {
    refuseInMessage(message, `messages[${index}]`);
  });
}

function refuseInMessage(message: ChatMessage, name: string): void {
  if ((message.tool_calls ?? []).length > 0) throw unserved(`${name}.tool_calls`, 'tool calling is');
  if (message.content === undefined && message.role !== 'assistant') throw missing(`${name}.content`);
  if (!Array.isArray(message.content)) return;
  message.content.forEach((part, index) => {
    const partName = `${name}.content[${index}]`;
    if (part.type !== 'text') throw unserved(`${partName}.type`, `content of any type other than "text" is`);
    if (part.text === undefined) throw missing(`${partName}.text`);
  });
}

function refuseInCompletion(body: CompletionBody): void {
  if (Array.isArray(body.prompt) && !(body.prompt.length === 1 && typeof body.prompt[0] === 'string')) {
    throw unserved('prompt', 'several prompts, or token ids, are');
  }
  if (body.logprobs !== undefined && body.logprobs !== false) throw unserved('logprobs', 'log probabilities are');
  if ((body.best_of ?? 1) > 1) throw unserved('best_of', 'choosing the best of several is');
  if (body.echo === true) throw unserved('echo', 'repeating the prompt is');
  if ((body.suffix ?? '') !== '') throw unserved('suffix', 'filling in before a suffix is');
}

function unserved(param: string, what: string): MeshError {
  return new MeshError('invalid_request', `'${param}' asks for what is not supported: ${what} not served yet.`, {
    param,
  });
}

function missing(param: string): MeshError {
  return new MeshError('invalid_request', `Missing required parameter: '${param}'.`, { param });
}
