/** A conversation with one model: what was said, and how an answer arrives. */
import { CliError } from './command.ts';
import { eventData } from './event-stream.ts';
import { errorMessage, type NodeApi } from './node-api.ts';

interface Message {
  readonly role: 'user' | 'assistant';
  readonly content: string;
}

/** Keeps the turns; the model may change between them. */
export class ChatSession {
  readonly #api: NodeApi;
  readonly #messages: Message[] = [];
  model: string;

  constructor(api: NodeApi, model: string) {
    this.#api = api;
    this.model = model;
  }

  /**
   * Asks, passing on text as it comes. An aborted answer stays in the conversation as far as it came; a failed one takes
   * its question with it, so that the next turn starts clean.
   *
   * @returns the whole answer.
   * @throws CliError when the node refuses, or when the answer ends before it was complete.
   */
  async ask(question: string, signal: AbortSignal, onText: (text: string) => void): Promise<string> {
    this.#messages.push({ role: 'user', content: question });
    let answer = '';
    try {
      const body = { model: this.model, messages: this.#messages, stream: true };
      for await (const text of answerTexts(await this.#api.chat(body, signal))) {
        answer += text;
        onText(text);
      }
    } catch (error) {
      if (!signal.aborted) {
        this.#messages.pop();
        throw error instanceof CliError
          ? error
          : new CliError('the connection to the node broke in the middle of the answer');
      }
    }
    this.#messages.push({ role: 'assistant', content: answer });
    return answer;
  }

  /** Forgets all turns. */
  clear(): void {
    this.#messages.length = 0;
  }
}

async function* answerTexts(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  for await (const data of eventData(stream)) {
    if (data === '[DONE]') return;
    const chunk: unknown = JSON.parse(data);
    const failure = errorMessage(chunk);
    if (failure !== null) throw new CliError(failure);
    const text = deltaText(chunk);
    if (text !== '') yield text;
  }
  throw new CliError('the answer was cut off: the node closed the stream before its end');
}

function deltaText(chunk: unknown): string {
  const { choices } = (chunk ?? {}) as { choices?: readonly { delta?: { content?: unknown } }[] };
  const content = choices?.[0]?.delta?.content;
  return typeof content === 'string' ? content : '';
}
