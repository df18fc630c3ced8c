/** Which JSON schemas an engine can enforce while it generates: all others are refused, by the keyword that is in the way. */
import { readJsonSchema } from './json-schema/schema-reader.ts';

/**
 * @param schema as the client sent it.
 * @param param where it stands in the request, such as `response_format.json_schema.schema`.
 * @throws MeshError `invalid_request` with the `param` of the first keyword that cannot be enforced.
 */
export function checkJsonSchema(schema: unknown, param: string): void {
  readJsonSchema(schema, param);
}
