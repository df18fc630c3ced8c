/** The body of `POST /v1/rerank`, which is not OpenAI's. Source: the shape that Jina, Cohere and llama-server share. */
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { bodyJson } from './body-json.ts';
import { bodyMistake } from './openai-body-mistake.ts';

const MAX_DOCUMENTS = 2_048;

/** The fields, before `documents` are texts. */
export const RerankFields = Type.Object({
  model: Type.String({ minLength: 1, maxLength: 256 }),
  query: Type.String({ minLength: 1 }),
  documents: Type.Array(Type.Union([Type.String(), Type.Object({ text: Type.String() })]), {
    minItems: 1,
    maxItems: MAX_DOCUMENTS,
  }),
  /** Only so many of the best [all]. */
  top_n: Type.Optional(Type.Integer({ minimum: 1 })),
  /** Results repeat their document [false]. */
  return_documents: Type.Optional(Type.Boolean()),
});

export interface RerankBody extends Omit<Static<typeof RerankFields>, 'documents'> {
  readonly documents: readonly string[];
}

const fields = Compile(RerankFields);

/** @throws MeshError `invalid_request` whose `param` names the field, for example `documents[3]`. */
export function parseRerankBody(bytes: Uint8Array): RerankBody {
  const body = bodyJson(bytes);
  if (!fields.Check(body)) throw bodyMistake(fields.Errors(body));
  const documents = body.documents.map((document) => (typeof document === 'string' ? document : document.text));
  return { ...body, documents };
}
