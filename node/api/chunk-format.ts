/** The events of a streamed answer as text, in OpenAI's shapes. */
import { isPlain } from '../../protocols/inference/chunk-join.ts';
import type { ChunkEvent, EndEvent, FinishReason, ToolCallDelta } from '../../protocols/inference/events.ts';
import type { MeshError } from '../common/errors.ts';
import { type AnswerIdentity, type Resumption, resumptionBody, timingsBody, usageBody } from './answer-format.ts';
import { errorBody } from './errors.ts';
import { chatLogprobs, completionLogprobs } from './logprob-format.ts';

/** Ends every whole stream, and no other. */
export const DONE_EVENT = 'data: [DONE]\n\n';

/** Some clients split lines at these too; JSON may escape them. */
const UNICODE_NEWLINES = /[\u0085\u2028\u2029]/g;

/** What has been printed of one choice. */
interface Printed {
  opened: boolean;
  finished: boolean;
  /** Characters of tokens whose log probabilities were told. */
  offset: number;
}

/** Prints the chunks of one answer. All but the text is printed once, for this runs for every token of every stream. */
export class ChunkFormat {
  readonly #isChat: boolean;
  readonly #identity: AnswerIdentity;
  #head: string | null = null;
  readonly #suffix: string;
  readonly #textSuffix: string;
  readonly #includeUsage: boolean;
  readonly #resumption: Resumption;
  readonly #choices: Printed[] = [];

  /** `includeUsage`: the client asked for `stream_options.include_usage`. `resumption`: read at each finish. */
  constructor(identity: AnswerIdentity, includeUsage: boolean, resumption: Resumption) {
    this.#isChat = identity.kind === 'chat';
    this.#includeUsage = includeUsage;
    this.#resumption = resumption;
    this.#identity = identity;
    this.#suffix = includeUsage ? '],"usage":null}\n\n' : ']}\n\n';
    this.#textSuffix = `${this.#isChat ? '}' : ''},"logprobs":null,"finish_reason":null}${this.#suffix}`;
  }

  /** Of every chunk; printed with the first. */
  get #prefix(): string {
    if (this.#head !== null) return this.#head;
    const { id, created, model } = this.#identity;
    const object = this.#isChat ? 'chat.completion.chunk' : 'text_completion';
    this.#head = `data: ${JSON.stringify({ id, object, created, model }).slice(0, -1)},"choices":[`;
    return this.#head;
  }

  /** Everything that the chunk says; a choice's first is preceded by the chunk that names its role. */
  chunk(chunk: ChunkEvent): string {
    if (isPlain(chunk)) return chunk.text === '' ? '' : this.#text(chunk.choice, chunk.text);
    const said = this.#isChat ? this.#chatParts(chunk) : this.#completionParts(chunk);
    return chunk.finish === undefined ? said : said + this.#finish(chunk.choice, chunk.finish);
  }

  /** The finish chunk of every choice that has not had its own, and the usage chunk when it was asked for. */
  end(event: EndEvent): string {
    const finishes = event.finishReasons.map((reason, choice) => this.#finish(choice, reason)).join('');
    if (!this.#includeUsage) return finishes;
    const usage = JSON.stringify(usageBody(event.usage));
    return `${finishes}${this.#prefix}],"usage":${usage},"timings":${JSON.stringify(timingsBody(event))}}\n\n`;
  }

  #text(choice: number, text: string): string {
    const quoted = quote(text);
    if (!this.#isChat) return `${this.#prefix}{"index":${choice},"text":${quoted}${this.#textSuffix}`;
    return `${this.#opening(choice, '""')}${this.#prefix}{"index":${choice},"delta":{"content":${quoted}${this.#textSuffix}`;
  }

  /** One chunk for each kind of thing, so that clients that look for one of them at a time see all. */
  #chatParts({ choice, text, reasoning = '', toolCalls = [], logprobs = [] }: ChunkEvent): string {
    const deltas: object[] = [];
    if (reasoning !== '') deltas.push({ reasoning_content: reasoning });
    if (text !== '') deltas.push({ content: text });
    if (toolCalls.length > 0) deltas.push({ tool_calls: toolCalls.map(callDelta) });
    // Tokens that released nothing yet still have their probabilities.
    if (deltas.length === 0 && logprobs.length > 0) deltas.push({ content: '' });
    if (deltas.length === 0) return '';
    const callsOnly = toolCalls.length > 0 && deltas.length === 1;
    const chunks = deltas.map((delta, index) => {
      const told = index === 0 && logprobs.length > 0 ? quote(chatLogprobs(logprobs)) : 'null';
      const content = `{"index":${choice},"delta":${quote(delta)},"logprobs":${told},"finish_reason":null}`;
      return `${this.#prefix}${content}${this.#suffix}`;
    });
    return this.#opening(choice, callsOnly ? 'null' : '""') + chunks.join('');
  }

  #completionParts({ choice, text, reasoning = '', logprobs = [], promptLogprobs }: ChunkEvent): string {
    const hasLogprobs = logprobs.length > 0 || promptLogprobs !== undefined;
    // A completion has no place for thoughts apart from its text.
    const all = reasoning + text;
    if (all === '' && !hasLogprobs) return '';
    let told = 'null';
    if (hasLogprobs) {
      const printed = this.#printed(choice);
      const echo = promptLogprobs === undefined ? null : { entries: promptLogprobs, text };
      const { shape, offset } = completionLogprobs(logprobs, printed.offset, echo);
      printed.offset = offset;
      told = quote(shape);
    }
    const content = `{"index":${choice},"text":${quote(all)},"logprobs":${told},"finish_reason":null}`;
    return `${this.#prefix}${content}${this.#suffix}`;
  }

  #opening(choice: number, content: '""' | 'null'): string {
    const printed = this.#printed(choice);
    if (printed.opened) return '';
    printed.opened = true;
    return `${this.#prefix}{"index":${choice},"delta":{"role":"assistant","content":${content}${this.#textSuffix}`;
  }

  #finish(choice: number, reason: FinishReason): string {
    const printed = this.#printed(choice);
    if (printed.finished) return '';
    printed.finished = true;
    const opening = this.#isChat ? this.#opening(choice, '""') : '';
    const content = this.#isChat ? '"delta":{}' : '"text":""';
    const { x_meshnode } = resumptionBody(this.#resumption);
    const suffix =
      x_meshnode === undefined ? this.#suffix : `],"x_meshnode":${quote(x_meshnode)}${this.#suffix.slice(1)}`;
    return `${opening}${this.#prefix}{"index":${choice},${content},"logprobs":null,"finish_reason":"${reason}"}${suffix}`;
  }

  #printed(choice: number): Printed {
    const printed = this.#choices[choice] ?? { opened: false, finished: false, offset: 0 };
    this.#choices[choice] = printed;
    return printed;
  }
}

/** The event that ends a stream that failed; no `[DONE]` follows it. */
export function errorEvent(error: MeshError): string {
  return `data: ${quote(errorBody(error))}\n\n`;
}

/** The first of a call names it; the others add to its arguments. */
function callDelta({ index, id, name, arguments: text }: ToolCallDelta): object {
  if (id === undefined && name === undefined) return { index, function: { arguments: text } };
  return { index, id, type: 'function', function: { name, arguments: text } };
}

function quote(value: unknown): string {
  return JSON.stringify(value).replace(UNICODE_NEWLINES, escapeNewline);
}

function escapeNewline(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}
