/** Renders messages through the model's own Jinja template, into text that knows which of it may act as control tokens. */
import { Template } from '@huggingface/jinja';
import { MeshError } from '../../common/errors.ts';
import { ControlText, type Segment } from './control-text.ts';
import type { PromptMessage } from './generation-request.ts';

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

export class ChatTemplate {
  readonly #source: TemplateSource;
  readonly #text: string;
  #parsed: Template | null = null;

  constructor(source: TemplateSource) {
    this.#source = source;
    this.#text = source.template ?? CHATML_TEMPLATE;
  }

  /**
   * The prompt, up to where the assistant begins to speak.
   *
   * @throws MeshError `invalid_request` with the template's own words when it refuses the messages; `engine_failed`
   *   when the template itself cannot be read.
   */
  render(messages: readonly PromptMessage[]): Segment[] {
    const template = this.#parse();
    const { bosToken, eosToken, controlTokens } = this.#source;
    const control = new ControlText(controlTokens, this.#text);
    const escaped = messages.map((message) => ({
      role: message.role,
      content: control.escape(message.content),
      ...(message.name === undefined ? {} : { name: control.escape(message.name) }),
      ...(message.toolCallId === undefined ? {} : { tool_call_id: control.escape(message.toolCallId) }),
    }));
    const context = { messages: escaped, add_generation_prompt: true, bos_token: bosToken, eos_token: eosToken };
    return control.segments(renderBounded(template, context));
  }

  #parse(): Template {
    try {
      this.#parsed ??= new Template(this.#text);
    } catch (thrown) {
      const reason = thrown instanceof Error ? thrown.message : String(thrown);
      throw new MeshError('engine_failed', `The model's chat template cannot be read: ${reason}`, { cause: thrown });
    }
    return this.#parsed;
  }
}

function renderBounded(template: Template, context: Record<string, unknown>): string {
  let rendered: string;
  try {
    rendered = template.render(context);
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    throw new MeshError('invalid_request', `The model's chat template refuses these messages: ${reason}`, {
      param: 'messages',
      cause: thrown,
    });
  }
  if (rendered.length <= MAX_RENDERED_CHARS) return rendered;
  throw new MeshError('invalid_request', 'The messages render to more than 64 Mi characters.', { param: 'messages' });
}
