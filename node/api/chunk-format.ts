/** The events of a streamed answer as text, in OpenAI's shapes. */
import type { EndEvent, FinishReason } from '../../protocols/inference/events.ts';
import type { MeshError } from '../common/errors.ts';
import { type AnswerIdentity, timingsBody, usageBody } from './answer-format.ts';
import { errorBody } from './errors.ts';

/** Ends every whole stream, and no other. */
export const DONE_EVENT = 'data: [DONE]\n\n';

/** Some clients split lines at these too; JSON may escape them. */
const UNICODE_NEWLINES = /[\u0085\u2028\u2029]/g;

/** Prints the chunks of one answer. All but the text is printed once, for this runs for every token of every stream. */
export class ChunkFormat {
  readonly #isChat: boolean;
  readonly #prefix: string;
  readonly #suffix: string;
  readonly #textSuffix: string;
  readonly #includeUsage: boolean;
  readonly #opened = new Set<number>();

  /** `includeUsage`: the client asked for `stream_options.include_usage`. */
  constructor(identity: AnswerIdentity, includeUsage: boolean) {
    this.#isChat = identity.kind === 'chat';
    this.#includeUsage = includeUsage;
    const head = JSON.stringify({
      id: identity.id,
      object: this.#isChat ? 'chat.completion.chunk' : 'text_completion',
      created: identity.created,
      model: identity.model,
    });
    this.#prefix = `data: ${head.slice(0, -1)},"choices":[`;
    this.#suffix = includeUsage ? '],"usage":null}\n\n' : ']}\n\n';
    this.#textSuffix = `${this.#isChat ? '}' : ''},"logprobs":null,"finish_reason":null}${this.#suffix}`;
  }

  /** One chunk of text; a choice's first is preceded by the chunk that names its role. */
  text(choice: number, text: string): string {
    const quoted = quote(text);
    if (!this.#isChat) return `${this.#prefix}{"index":${choice},"text":${quoted}${this.#textSuffix}`;
    const opening = this.#opened.has(choice) ? '' : this.#opening(choice);
    return `${opening}${this.#prefix}{"index":${choice},"delta":{"content":${quoted}${this.#textSuffix}`;
  }

  /** The finish chunk of every choice, and the usage chunk when it was asked for. */
  end(event: EndEvent): string {
    const finishes = event.finishReasons.map((reason, choice) => this.#finish(choice, reason)).join('');
    if (!this.#includeUsage) return finishes;
    const usage = JSON.stringify(usageBody(event.usage));
    return `${finishes}${this.#prefix}],"usage":${usage},"timings":${JSON.stringify(timingsBody(event))}}\n\n`;
  }

  #opening(choice: number): string {
    this.#opened.add(choice);
    return `${this.#prefix}{"index":${choice},"delta":{"role":"assistant","content":""${this.#textSuffix}`;
  }

  #finish(choice: number, reason: FinishReason): string {
    const opening = this.#isChat && !this.#opened.has(choice) ? this.#opening(choice) : '';
    const content = this.#isChat ? '"delta":{}' : '"text":""';
    return `${opening}${this.#prefix}{"index":${choice},${content},"logprobs":null,"finish_reason":"${reason}"}${this.#suffix}`;
  }
}

/** The event that ends a stream that failed; no `[DONE]` follows it. */
export function errorEvent(error: MeshError): string {
  return `data: ${quote(errorBody(error))}\n\n`;
}

function quote(value: unknown): string {
  return JSON.stringify(value).replace(UNICODE_NEWLINES, escapeNewline);
}

function escapeNewline(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}
