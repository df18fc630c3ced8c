/** Renders messages through the model's own Jinja template, into text that knows which of it may act as control tokens. */
import { MeshError } from '../../../common/errors.ts';
import type { PromptMessage, ToolDefinition } from '../request/generation-request.ts';
import { BoundedTemplate, TemplateLimit } from './bounded-template.ts';
import { ControlText, type Segment } from './control-text.ts';
import { type Dialect, dialectOf } from './dialect.ts';
import { type MessageStyle, templateMessages, templateTools } from './template-messages.ts';
import { instructed, withoutSystem } from './tool-instructions.ts';

/** For files without a template of their own. */
export const CHATML_TEMPLATE = `{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`;

/** A template may repeat what it is given, but not without end. */
const MAX_RENDERED_CHARS = 64 * 1024 * 1024;

export interface TemplateSource {
  /** `tokenizer.chat_template`, null where the file has none. */
  readonly template: string | null;
  /** Text of the token that begins a sequence; empty where the model has none. */
  readonly bosToken: string;
  readonly eosToken: string;
  /** Text of every token that acts when it is parsed. */
  readonly controlTokens: readonly string[];
}

export interface TemplateOptions {
  /** For templates that print the date. Default: the system's clock. */
  readonly now?: () => Date;
}

export interface RenderedChat {
  readonly segments: readonly Segment[];
  /** It ends within an open thinking tag: the answer begins with a thought. */
  readonly startsInReasoning: boolean;
}

/** One way to show a conversation to the template. */
interface Showing {
  readonly messages: readonly PromptMessage[];
  readonly style: MessageStyle;
}

export class ChatTemplate {
  /** How the model marks thoughts and tool calls. */
  readonly dialect: Dialect;
  readonly #source: TemplateSource;
  readonly #text: string;
  readonly #now: () => Date;
  #parsed: BoundedTemplate | null = null;

  constructor(source: TemplateSource, { now = () => new Date() }: TemplateOptions = {}) {
    this.#source = source;
    this.#text = source.template ?? CHATML_TEMPLATE;
    this.#now = now;
    this.dialect = dialectOf(source.template, source.controlTokens);
  }

  /**
   * The prompt, up to where the assistant begins to speak. Nothing in messages or tools can act as a control token.
   *
   * @throws MeshError `invalid_request` with the template's own words when it refuses the messages, or when it does not
   *   end within its bounds; `engine_failed` when the template itself cannot be read.
   */
  render(messages: readonly PromptMessage[], tools: readonly ToolDefinition[] = []): RenderedChat {
    const template = this.#parse();
    let refusal: unknown = null;
    for (const showing of this.#showings(messages, tools)) {
      try {
        return this.#rendered(template, showing, this.dialect.rendersTools ? tools : []);
      } catch (thrown) {
        if (thrown instanceof TemplateLimit) throw refused(thrown);
        refusal ??= thrown;
      }
    }
    throw refused(refusal);
  }

  /** From what most templates want to what only some do; the first that is not refused is taken. */
  *#showings(messages: readonly PromptMessage[], tools: readonly ToolDefinition[]): Generator<Showing> {
    const { rendersTools, tools: format } = this.dialect;
    const shown = rendersTools ? messages : instructed(messages, tools);
    const shortIds = format === 'mistral' || format === 'mistral-named';
    const style: MessageStyle = { arguments: 'object', shortIds };
    yield { messages: shown, style };
    if (shown.some(({ toolCalls = [] }) => toolCalls.length > 0)) {
      yield { messages: shown, style: { ...style, arguments: 'text' } };
    }
    if (shown.some(({ role }) => role === 'system')) yield { messages: withoutSystem(shown), style };
  }

  #rendered(template: BoundedTemplate, { messages, style }: Showing, tools: readonly ToolDefinition[]): RenderedChat {
    const { bosToken, eosToken, controlTokens } = this.#source;
    const control = new ControlText(controlTokens, this.#text);
    const context = {
      messages: control.escapeAll(templateMessages(messages, style)),
      // As transformers does: templates ask whether it is none.
      tools: tools.length === 0 ? null : control.escapeAll(templateTools(tools)),
      documents: null,
      add_generation_prompt: true,
      bos_token: bosToken,
      eos_token: eosToken,
    };
    const text = template.render(context, this.#now);
    if (text.length > MAX_RENDERED_CHARS) throw new TemplateLimit('it writes more than 64 Mi characters');
    const segments = control.segments(text);
    const last = segments.at(-1);
    const thinks = last?.special === true && last.text.trimEnd().endsWith(this.dialect.thinking.open);
    return { segments, startsInReasoning: thinks };
  }

  #parse(): BoundedTemplate {
    try {
      this.#parsed ??= new BoundedTemplate(this.#text);
    } catch (thrown) {
      throw new MeshError('engine_failed', `The model's chat template cannot be read: ${reason(thrown)}`, {
        cause: thrown,
      });
    }
    return this.#parsed;
  }
}

function refused(thrown: unknown): MeshError {
  const message =
    thrown instanceof TemplateLimit
      ? `The model's chat template was stopped: ${thrown.message}.`
      : `The model's chat template refuses these messages: ${reason(thrown)}`;
  return new MeshError('invalid_request', message, { param: 'messages', cause: thrown });
}

function reason(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
