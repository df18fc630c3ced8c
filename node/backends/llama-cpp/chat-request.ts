/** A chat completion body as a generation request. */
import type { ChatBody, ChatMessage } from '../../../protocols/inference/openai-body.ts';
import type { GenerationRequest, PromptMessage } from './generation-request.ts';
import { samplingOf, stopStrings } from './sampling.ts';

/** `seed` is used when the body names none. */
export function chatRequest(body: ChatBody, seed: number): GenerationRequest {
  return {
    prompt: { messages: body.messages.map(promptMessage) },
    maxTokens: body.max_completion_tokens ?? body.max_tokens ?? null,
    stop: stopStrings(body),
    sampling: samplingOf(body, seed),
  };
}

function promptMessage(message: ChatMessage): PromptMessage {
  return {
    // Templates know "system"; "developer" is OpenAI's newer word for it.
    role: message.role === 'developer' ? 'system' : message.role,
    content: textOf(message.content),
    ...(message.name === undefined ? {} : { name: message.name }),
    ...(message.tool_call_id === undefined ? {} : { toolCallId: message.tool_call_id }),
  };
}

function textOf(content: ChatMessage['content']): string {
  if (content === undefined) return '';
  if (typeof content === 'string') return content;
  return content.map((part) => part.text ?? '').join('');
}
