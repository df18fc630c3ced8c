/** Reads a JSON schema into shapes. What cannot be kept to is refused by its keyword, never left out. */
import { disjoint, jsonType } from './disjoint.ts';
import { refusal } from './refusal.ts';
import { isSchemaObject, SchemaDocument, type SchemaObject } from './schema-document.ts';
import type { SchemaShapes, Shape } from './shape.ts';
import { type ReadSchema, TYPE_KEYWORDS, TYPE_READERS } from './type-readers.ts';

/** Say something about a value, but not which values are valid. */
const ANNOTATIONS: ReadonlySet<string> = new Set([
  ...['title', 'description', 'default', 'example', 'examples', 'deprecated', 'readOnly', 'writeOnly'],
  ...['$comment', '$schema', '$id', 'contentMediaType', 'contentEncoding', 'discriminator'],
  // Only ever reached through a reference.
  ...['$defs', 'definitions'],
]);
const COMBINATIONS = ['anyOf', 'oneOf', 'allOf'] as const;
const TYPES = ['object', 'array', 'string', 'number', 'integer', 'boolean', 'null'] as const;

const MAX_DEPTH = 48;
const MAX_SCHEMAS = 4096;
const MAX_LITERALS = 4096;
const MAX_CHARS = 512 * 1024;

/**
 * @param param where the schema stands in the request.
 * @throws MeshError `invalid_request` with the `param` of the keyword that cannot be enforced.
 */
export function readJsonSchema(schema: unknown, param: string): SchemaShapes {
  if ((JSON.stringify(schema) ?? '').length > MAX_CHARS)
    throw refusal(param, `is larger than ${MAX_CHARS} characters.`);
  return new SchemaReader(schema, param).shapes();
}

class SchemaReader {
  readonly #schema: unknown;
  readonly #param: string;
  readonly #document: SchemaDocument;
  readonly #named = new Map<string, Shape>();
  /** References that are yet to be read, and where they stood. */
  readonly #unread = new Map<string, string>();
  #schemas = 0;
  #literals = 0;

  constructor(schema: unknown, param: string) {
    this.#schema = schema;
    this.#param = param;
    this.#document = new SchemaDocument(schema);
  }

  shapes(): SchemaShapes {
    const root = this.#read(this.#schema, this.#param, 0);
    for (const [ref, param] of this.#unread) {
      if (this.#named.has(ref)) continue;
      const at = ref === '#' ? this.#param : `${this.#param}.${ref.slice(2).replaceAll('/', '.')}`;
      this.#named.set(ref, this.#read(this.#document.resolve(ref, param), at, 0));
    }
    for (const [ref, param] of this.#unread) {
      if (leadsToItself(ref, this.#named)) throw refusal(param, 'leads back to itself and nowhere else.');
    }
    const ending = endingShapes(this.#named);
    for (const [ref, param] of this.#unread) {
      if (!ending.has(ref)) throw refusal(param, 'describes values without end: something in it must be optional.');
    }
    return { root, named: this.#named };
  }

  readonly #read = (schema: unknown, param: string, depth: number): Shape => {
    this.#schemas += 1;
    if (depth > MAX_DEPTH) throw refusal(param, `is nested deeper than ${MAX_DEPTH} schemas.`);
    if (this.#schemas > MAX_SCHEMAS) throw refusal(this.#param, `has more than ${MAX_SCHEMAS} schemas in it.`);
    if (schema === true) return { kind: 'any' };
    if (schema === false) throw refusal(param, 'allows no value at all.');
    if (!isSchemaObject(schema)) throw refusal(param, 'must be a JSON schema: an object or a boolean.');
    const keywords = Object.keys(schema).filter((keyword) => !isAnnotation(keyword) && schema[keyword] !== undefined);
    const [decisive] = keywords.filter((keyword) => keyword === '$ref' || isCombination(keyword) || isListing(keyword));
    if (decisive === undefined) return this.#typed(schema, keywords, param, depth);
    const beside = keywords.find((keyword) => keyword !== decisive && !(isListing(decisive) && keyword === 'type'));
    if (beside !== undefined) throw refusal(`${param}.${beside}`, `cannot be enforced beside '${decisive}'.`);
    if (isListing(decisive)) return this.#listed(schema, decisive, param);
    if (isCombination(decisive)) return this.#combined(schema[decisive], decisive, `${param}.${decisive}`, depth);
    return this.#reference(schema['$ref'], `${param}.$ref`);
  };

  #reference(ref: unknown, param: string): Shape {
    this.#document.resolve(ref, param);
    const name = String(ref);
    if (!this.#unread.has(name)) this.#unread.set(name, param);
    return { kind: 'named', name };
  }

  #combined(given: unknown, keyword: (typeof COMBINATIONS)[number], param: string, depth: number): Shape {
    if (!Array.isArray(given) || given.length === 0) throw refusal(param, 'must be a list of schemas.');
    const schemas: readonly unknown[] = given;
    if (keyword === 'allOf' && schemas.length > 1) {
      throw refusal(param, 'cannot be enforced with more than one schema: write them as one.');
    }
    if (keyword === 'oneOf') this.#exclusive(schemas, param);
    const options = schemas.map((schema, index) => this.#read(schema, `${param}.${index}`, depth + 1));
    return options.length === 1 && options[0] !== undefined ? options[0] : { kind: 'union', options };
  }

  #exclusive(schemas: readonly unknown[], param: string): void {
    schemas.forEach((one, index) => {
      const overlaps = schemas.slice(index + 1).some((other) => !disjoint(one, other, this.#document));
      if (!overlaps) return;
      throw refusal(
        param,
        "cannot be enforced where a value may be valid for two of them: use 'anyOf', or give each a required property with a 'const' of its own.",
      );
    });
  }

  #listed(schema: SchemaObject, keyword: 'const' | 'enum', param: string): Shape {
    const given = keyword === 'const' ? [schema['const']] : schema['enum'];
    if (!Array.isArray(given) || given.length === 0) throw refusal(`${param}.enum`, 'must be a list of values.');
    const types = schema['type'] === undefined ? null : typesOf(schema['type'], `${param}.type`);
    const values = given.filter((value) => types === null || isOfType(value, types));
    if (values.length === 0) throw refusal(`${param}.${keyword}`, "has no value of the schema's 'type'.");
    this.#literals += values.length;
    if (this.#literals > MAX_LITERALS)
      throw refusal(`${param}.${keyword}`, `is too long: ${MAX_LITERALS} values in all.`);
    return { kind: 'literal', values };
  }

  #typed(schema: SchemaObject, keywords: readonly string[], param: string, depth: number): Shape {
    const unknown = keywords.find((keyword) => keyword !== 'type' && !TYPE_KEYWORDS.has(keyword));
    if (unknown !== undefined) {
      throw refusal(`${param}.${unknown}`, 'is a keyword that cannot be enforced while an answer is written.');
    }
    const types = schema['type'] === undefined ? implied(keywords) : typesOf(schema['type'], `${param}.type`);
    if (types.length === 0) return { kind: 'any' };
    const read: ReadSchema = (inner, at) => this.#read(inner, `${param}.${at}`, depth + 1);
    const options = types.map((type) => TYPE_READERS[type](schema, param, read));
    return options.length === 1 && options[0] !== undefined ? options[0] : { kind: 'union', options };
  }
}

function isAnnotation(keyword: string): boolean {
  return ANNOTATIONS.has(keyword) || keyword.startsWith('x-');
}

function isCombination(keyword: string): keyword is (typeof COMBINATIONS)[number] {
  return COMBINATIONS.some((one) => one === keyword);
}

function isListing(keyword: string): keyword is 'const' | 'enum' {
  return keyword === 'const' || keyword === 'enum';
}

type JsonType = (typeof TYPES)[number];

function typesOf(given: unknown, param: string): JsonType[] {
  const names: readonly unknown[] = Array.isArray(given) ? given : [given];
  const types = names.map((name) => {
    const type = TYPES.find((one) => one === name);
    if (type === undefined) throw refusal(param, `must be one of ${TYPES.join(', ')}, or a list of them.`);
    return type;
  });
  if (types.length === 0) throw refusal(param, 'must name a type.');
  return types.filter((type, at) => types.indexOf(type) === at && !(type === 'integer' && types.includes('number')));
}

/** A schema without `type` that speaks of members means an object; one that speaks of nothing, anything. */
function implied(keywords: readonly string[]): JsonType[] {
  const spoken = keywords.map((keyword) => TYPE_KEYWORDS.get(keyword));
  return TYPES.filter((type) => spoken.some((one) => one === type));
}

function isOfType(value: unknown, types: readonly JsonType[]): boolean {
  const type = jsonType(value);
  return types.some((one) => one === type || (one === 'integer' && Number.isInteger(value)));
}

/** Is the reference reached again from itself before anything was written? */
function leadsToItself(ref: string, named: ReadonlyMap<string, Shape>): boolean {
  const seen = new Set<string>();
  const visit = (shape: Shape | undefined): boolean => {
    if (shape?.kind === 'union') return shape.options.some(visit);
    if (shape?.kind !== 'named') return false;
    if (shape.name === ref) return true;
    if (seen.has(shape.name)) return false;
    seen.add(shape.name);
    return visit(named.get(shape.name));
  };
  return visit(named.get(ref));
}

/** The references whose values can be written to an end. */
function endingShapes(named: ReadonlyMap<string, Shape>): Set<string> {
  const ending = new Set<string>();
  for (let grew = true; grew; ) {
    grew = false;
    for (const [name, shape] of named) {
      if (ending.has(name) || !ends(shape, ending)) continue;
      ending.add(name);
      grew = true;
    }
  }
  return ending;
}

function ends(shape: Shape, ending: ReadonlySet<string>): boolean {
  switch (shape.kind) {
    case 'named':
      return ending.has(shape.name);
    case 'union':
      return shape.options.some((option) => ends(option, ending));
    case 'object':
      return shape.members.every((member) => !member.required || ends(member.shape, ending));
    case 'array':
      return (
        shape.prefix.every((item) => ends(item, ending)) &&
        (shape.minItems === 0 || shape.items === null || ends(shape.items, ending))
      );
    default:
      return true;
  }
}
