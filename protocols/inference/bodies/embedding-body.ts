/** The body of `POST /v1/embeddings`. Source: OpenAI's API reference, embeddings. */
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { bodyJson, invalidField } from './body-json.ts';
import { bodyMistake } from './openai-body-mistake.ts';

/** Inputs of one request, as at OpenAI. */
const MAX_INPUTS = 2_048;
/** Ids are 32-bit; what the model's vocabulary has is known only where it is loaded. */
const MAX_TOKEN_ID = 0x7fff_ffff;

/** The fields, before `input` is read. */
export const EmbeddingFields = Type.Object({
  model: Type.String({ minLength: 1, maxLength: 256 }),
  /** One text or several, one list of token ids or several. */
  input: Type.Union([Type.String(), Type.Array(Type.Unknown())]),
  /** [float]. base64: the vector as little-endian float32. */
  encoding_format: Type.Optional(Type.Enum(['float', 'base64'])),
  /** The vector's first so many numbers, normalised again [all]. */
  dimensions: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000_000 })),
});

/** A text, or token ids that are taken as they are. Never empty. */
export type EmbeddingInput = string | readonly number[];

export interface EmbeddingBody extends Omit<Static<typeof EmbeddingFields>, 'input'> {
  readonly input: readonly EmbeddingInput[];
}

const fields = Compile(EmbeddingFields);

/** @throws MeshError `invalid_request` whose `param` names the field, for example `input[3]`. */
export function parseEmbeddingBody(bytes: Uint8Array): EmbeddingBody {
  const body = bodyJson(bytes);
  if (!fields.Check(body)) throw bodyMistake(fields.Errors(body));
  return { ...body, input: inputsOf(body.input) };
}

function inputsOf(input: string | readonly unknown[]): EmbeddingInput[] {
  if (typeof input === 'string') return [oneInput(input, 'input')];
  if (input.length === 0) throw invalidField('input', 'must not be empty');
  if (typeof input[0] === 'number') return [tokenIds(input, 'input')];
  if (input.length > MAX_INPUTS)
    throw invalidField('input', `must have at most ${MAX_INPUTS} inputs, not ${input.length}`);
  return input.map((item, index) => oneInput(item, `input[${index}]`));
}

function oneInput(value: unknown, param: string): EmbeddingInput {
  if (typeof value !== 'string' && !Array.isArray(value))
    throw invalidField(param, 'must be text or a list of token ids');
  if (value.length === 0) throw invalidField(param, 'must not be empty');
  return typeof value === 'string' ? value : tokenIds(value, param);
}

/** The values as token ids; `param` names the list that they stand in. */
export function tokenIds(values: readonly unknown[], param: string): number[] {
  return values.map((value, index) => {
    if (isTokenId(value)) return value;
    throw invalidField(`${param}[${index}]`, 'must be a token id, which is a whole number from 0 on');
  });
}

function isTokenId(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= MAX_TOKEN_ID;
}
