/** From a prompt of any kind to its tokens. In the engine child. */
import { MeshError } from '../../../common/errors.ts';
import type { ChatTemplate } from '../prompt/chat-template.ts';
import { givenTokens, type PromptPart, promptTokens } from '../prompt/prompt-tokens.ts';
import type { Prompt } from '../request/generation-request.ts';
import type { Vocabulary } from './native-vocabulary.ts';

/** The part of a loaded model that prompts need. */
export interface PromptModel {
  readonly contextTokens: number;
  readonly vocabulary: Vocabulary;
  readonly template: ChatTemplate;
}

export interface RenderedPrompt {
  readonly tokens: readonly number[];
  /** The answer begins within a thought. */
  readonly startsInReasoning: boolean;
}

/** @throws MeshError `invalid_request` or `context_length_exceeded` that names the field. */
export function renderPrompt(prompt: Prompt, model: PromptModel): RenderedPrompt {
  const { contextTokens, vocabulary, template } = model;
  const { tokenizer, size } = vocabulary;
  switch (prompt.kind) {
    case 'chat': {
      const { segments, startsInReasoning } = template.render(prompt.messages, prompt.tools);
      return { tokens: promptTokens(segments, tokenizer, { contextTokens, kind: 'chat' }), startsInReasoning };
    }
    case 'tokens':
      return {
        tokens: givenTokens(prompt.tokens, { contextTokens, vocabularySize: size }),
        startsInReasoning: false,
      };
    default: {
      const parts = prompt.kind === 'text' ? text(prompt.text) : fillParts(prompt, vocabulary);
      return {
        tokens: promptTokens(parts, tokenizer, { contextTokens, kind: 'completion' }),
        startsInReasoning: false,
      };
    }
  }
}

/** What an answer begins with that echoes its prompt. */
export function echoText(prompt: Prompt, { vocabulary }: PromptModel): string {
  if (prompt.kind === 'text') return prompt.text;
  if (prompt.kind === 'fill') return prompt.prefix;
  return prompt.kind === 'tokens' ? vocabulary.detokenize(prompt.tokens, []) : '';
}

/** Prefix, suffix, then what is to be filled in: the order that these models are trained on. */
function fillParts({ prefix, suffix }: Prompt & { kind: 'fill' }, { fill }: Vocabulary): PromptPart[] {
  if (fill === null) {
    throw new MeshError('invalid_request', "This model cannot fill in between: 'suffix' needs one made for it.", {
      param: 'suffix',
    });
  }
  return [{ token: fill.prefix }, ...text(prefix), { token: fill.suffix }, ...text(suffix), { token: fill.middle }];
}

/** Control tokens in it are text like any other. */
function text(content: string): PromptPart[] {
  return content === '' ? [] : [{ text: content, special: false }];
}
