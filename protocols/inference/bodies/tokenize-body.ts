/** The bodies of `POST /v1/tokenize` and `/v1/detokenize`, which are not OpenAI's. Source: vLLM's and llama-server's shapes. */
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { MeshError } from '../../../node/common/errors.ts';
import { bodyJson, invalidField } from './body-json.ts';
import { tokenIds } from './embedding-body.ts';
import { bodyMistake } from './openai-body-mistake.ts';

/** Tokenising holds up everything else that the engine runs: so much for less than half a second. */
const MAX_TEXT_CHARS = 1024 * 1024;
const MAX_TOKENS = 512 * 1024;

const flag = Type.Optional(Type.Boolean());
const model = Type.String({ minLength: 1, maxLength: 256 });

/** The fields; one of `prompt`, `content` and `messages` is given. */
export const TokenizeFields = Type.Object({
  model,
  prompt: Type.Optional(Type.String({ maxLength: MAX_TEXT_CHARS })),
  /** llama-server's name of `prompt`. */
  content: Type.Optional(Type.String({ maxLength: MAX_TEXT_CHARS })),
  /** A chat, tokenised as chat/completions would; it is checked as one. */
  messages: Type.Optional(Type.Array(Type.Unknown())),
  /** The token that begins every sequence is added, where the model has one [true; with `content` false]. */
  add_special_tokens: flag,
  /** llama-server's name of `add_special_tokens`. */
  add_special: flag,
  /** With `messages`: up to where the assistant begins to speak [true]. */
  add_generation_prompt: flag,
  /** The answer has the text of each token [false]. */
  return_token_strs: flag,
});
/** The fields, before the ids are checked. */
export const DetokenizeFields = Type.Object({ model, tokens: Type.Array(Type.Unknown(), { maxItems: MAX_TOKENS }) });

export interface TokenizeBody {
  readonly model: string;
  /** Null: `messages` were given, which the body has in the form of a chat request. */
  readonly text: string | null;
  readonly addSpecial: boolean;
  readonly tokenStrings: boolean;
}

export interface DetokenizeBody {
  readonly model: string;
  readonly tokens: readonly number[];
}

const tokenize = Compile(TokenizeFields);
const detokenize = Compile(DetokenizeFields);

/** @throws MeshError `invalid_request` whose `param` names the field. */
export function parseTokenizeBody(bytes: Uint8Array): TokenizeBody {
  const body = bodyJson(bytes);
  if (!tokenize.Check(body)) throw bodyMistake(tokenize.Errors(body));
  const text = textOf(body);
  if (body.add_generation_prompt === false) {
    throw invalidField('add_generation_prompt', 'must be true: messages are tokenised as they would be answered');
  }
  return {
    model: body.model,
    text,
    addSpecial: body.add_special_tokens ?? body.add_special ?? body.content === undefined,
    tokenStrings: body.return_token_strs ?? false,
  };
}

/** @throws MeshError `invalid_request` whose `param` names the field. */
export function parseDetokenizeBody(bytes: Uint8Array): DetokenizeBody {
  const body = bodyJson(bytes);
  if (!detokenize.Check(body)) throw bodyMistake(detokenize.Errors(body));
  return { model: body.model, tokens: tokenIds(body.tokens, 'tokens') };
}

function textOf({ prompt, content, messages }: Static<typeof TokenizeFields>): string | null {
  const given = [prompt, content, messages].filter((value) => value !== undefined);
  if (given.length === 1) return prompt ?? content ?? null;
  if (given.length > 1) throw invalidField('prompt', "must be the only one of 'prompt', 'messages' and 'content'");
  throw new MeshError('invalid_request', "Missing required parameter: 'prompt' (or 'messages').", { param: 'prompt' });
}
