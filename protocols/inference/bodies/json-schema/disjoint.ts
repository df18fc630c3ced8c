/** Can a value be valid for both of two schemas? `oneOf` is `anyOf` where it cannot. */
import { isSchemaObject, type SchemaDocument, type SchemaObject } from './schema-document.ts';

const MAX_DEPTH = 8;

/** True only when it is certain that no value is valid for both. */
export function disjoint(one: unknown, other: unknown, document: SchemaDocument, depth = 0): boolean {
  const [a, b] = [document.dereferenced(one), document.dereferenced(other)];
  if (depth > MAX_DEPTH || !isSchemaObject(a) || !isSchemaObject(b)) return false;
  const [valuesOfA, valuesOfB] = [literals(a), literals(b)];
  if (valuesOfA !== null && valuesOfB !== null) return !valuesOfA.some((value) => valuesOfB.includes(value));
  const [typesOfA, typesOfB] = [types(a), types(b)];
  if (typesOfA === null || typesOfB === null) return false;
  const shared = typesOfA.filter((type) => typesOfB.includes(type));
  if (shared.length === 0) return true;
  return shared.every((type) => type === 'object') && differInMember(a, b, document, depth);
}

/** Do both demand a member whose values differ for certain? */
function differInMember(a: SchemaObject, b: SchemaObject, document: SchemaDocument, depth: number): boolean {
  const [required, demanded] = [a['required'], b['required']];
  const [members, others] = [a['properties'], b['properties']];
  if (!Array.isArray(required) || !Array.isArray(demanded)) return false;
  if (!isSchemaObject(members) || !isSchemaObject(others)) return false;
  return required.some(
    (name) =>
      typeof name === 'string' && demanded.includes(name) && disjoint(members[name], others[name], document, depth + 1),
  );
}

/** As JSON texts; null where the schema lists none. */
function literals(schema: SchemaObject): string[] | null {
  if (schema['const'] !== undefined) return [JSON.stringify(schema['const'])];
  const listed = schema['enum'];
  return Array.isArray(listed) ? listed.map((value) => JSON.stringify(value)) : null;
}

/** Null where it may be any; `number` stands for integers too. */
function types(schema: SchemaObject): string[] | null {
  const { type } = schema as { readonly type?: unknown };
  const named = typeof type === 'string' ? [type] : Array.isArray(type) ? type.map(String) : null;
  if (named !== null) return named.map((one) => (one === 'integer' ? 'number' : one));
  return literals(schema)?.map((value) => jsonType(JSON.parse(value))) ?? null;
}

/** What `type` would have to say of a JSON value; `number` for integers too. */
export function jsonType(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  return typeof value;
}
