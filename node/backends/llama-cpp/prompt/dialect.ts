/** How a model marks its thoughts and its tool calls: read off its chat template and its control tokens. */

/** What a template that has tools makes of calls. */
export type ToolFormat =
  /** `<tool_call>{"name", "arguments"}</tool_call>`, one after the other. */
  | 'hermes'
  /** `{"name", "parameters"}` as the whole answer, several separated by `;`, perhaps after `<|python_tag|>`. */
  | 'llama3'
  /** `[TOOL_CALLS]` and an array of calls. */
  | 'mistral'
  /** `[TOOL_CALLS]name[ARGS]{…}` for each. Both of Mistral's forms are read wherever one is expected. */
  | 'mistral-named'
  /** `{"name", "arguments"}` or an array of them as the whole answer; Hermes' tags are understood too. */
  | 'generic';

export interface ThinkingTags {
  readonly open: string;
  readonly close: string;
}

export interface Dialect {
  readonly tools: ToolFormat;
  readonly thinking: ThinkingTags;
  /** Do template or vocabulary know thoughts at all? If not, a thought is still told from the answer by its tags. */
  readonly thinks: boolean;
  /** Does the template say what to do with `tools`? If not, the prompt explains Hermes' format in words of our own. */
  readonly rendersTools: boolean;
}

const DEFAULT_THINKING: ThinkingTags = { open: '<think>', close: '</think>' };
/** In the order of their claim: the first that the template or the vocabulary knows. */
const THINKING: readonly ThinkingTags[] = [
  { open: '[THINK]', close: '[/THINK]' },
  { open: '<|START_THINKING|>', close: '<|END_THINKING|>' },
  { open: '<seed:think>', close: '</seed:think>' },
  { open: '<thinking>', close: '</thinking>' },
  DEFAULT_THINKING,
];

/**
 * The dialect of a model.
 *
 * @param template its chat template, null where the file has none.
 * @param controlTokens text of every token that acts when it is parsed.
 */
export function dialectOf(template: string | null, controlTokens: readonly string[]): Dialect {
  const text = template ?? '';
  const rendersTools = /\btools\b/.test(text);
  const knows = (tag: string): boolean => text.includes(tag) || controlTokens.includes(tag);
  const thinking = THINKING.find(({ open, close }) => knows(open) || knows(close));
  return {
    tools: rendersTools ? toolFormat(text, knows) : 'hermes',
    thinking: thinking ?? DEFAULT_THINKING,
    thinks: thinking !== undefined,
    rendersTools,
  };
}

/** Every tag that `dialect` reads. Those that are control tokens must reach the output pipeline as text. */
export function tagsOf(dialect: Dialect): readonly string[] {
  const { open, close } = dialect.thinking;
  return [open, close, ...TOOL_TAGS[dialect.tools]];
}

const TOOL_TAGS: Readonly<Record<ToolFormat, readonly string[]>> = {
  hermes: ['<tool_call>', '</tool_call>'],
  llama3: ['<|python_tag|>'],
  mistral: ['[TOOL_CALLS]', '[ARGS]', '[CALL_ID]'],
  'mistral-named': ['[TOOL_CALLS]', '[ARGS]', '[CALL_ID]'],
  generic: ['<tool_call>', '</tool_call>'],
};

function toolFormat(template: string, knows: (tag: string) => boolean): ToolFormat {
  if (template.includes('<tool_call>')) return 'hermes';
  if (knows('[TOOL_CALLS]')) return template.includes('[ARGS]') ? 'mistral-named' : 'mistral';
  if (knows('<|python_tag|>') || template.includes('<|start_header_id|>')) return 'llama3';
  return knows('<tool_call>') ? 'hermes' : 'generic';
}
