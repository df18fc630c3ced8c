/** The keywords of each type of JSON value. */
import { readPattern } from './pattern.ts';
import { refusal } from './refusal.ts';
import { isSchemaObject, type SchemaObject } from './schema-document.ts';
import {
  type ArrayShape,
  type Bound,
  type Member,
  type NumberShape,
  type ObjectShape,
  type Pattern,
  type Shape,
  STRING_FORMATS,
  type StringFormat,
  type StringShape,
} from './shape.ts';

/** Reads the schema that stands at `at` within the one that is being read. */
export type ReadSchema = (schema: unknown, at: string) => Shape;

type TypeReader = (schema: SchemaObject, param: string, read: ReadSchema) => Shape;

/** Longer lists are not written even where the schema allows them. */
export const MAX_ITEMS = 2000;
const MAX_LENGTH = 100_000;
/** JSON numbers are exact up to here. */
const MAX_BOUND = 2 ** 53;

export const TYPE_READERS: Readonly<
  Record<'object' | 'array' | 'string' | 'number' | 'integer' | 'boolean' | 'null', TypeReader>
> = {
  object: readObject,
  array: readArray,
  string: readString,
  number: (schema, param) => readNumber(schema, param, false),
  integer: (schema, param) => readNumber(schema, param, true),
  boolean: () => ({ kind: 'boolean' }),
  null: () => ({ kind: 'null' }),
};

/** Every keyword that is understood, and the type that it speaks of. */
export const TYPE_KEYWORDS: ReadonlyMap<string, 'object' | 'array' | 'string' | 'number'> = new Map([
  ...(['properties', 'required', 'additionalProperties'] as const).map((one) => [one, 'object'] as const),
  ...(['items', 'prefixItems', 'minItems', 'maxItems', 'uniqueItems'] as const).map((one) => [one, 'array'] as const),
  ...(['minLength', 'maxLength', 'format', 'pattern'] as const).map((one) => [one, 'string'] as const),
  ...(['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'] as const).map(
    (one) => [one, 'number'] as const,
  ),
]);

function readObject(schema: SchemaObject, param: string, read: ReadSchema): ObjectShape {
  const {
    properties = {},
    required = [],
    additionalProperties,
  } = schema as {
    readonly properties?: unknown;
    readonly required?: unknown;
    readonly additionalProperties?: unknown;
  };
  if (!isSchemaObject(properties)) throw refusal(`${param}.properties`, 'must be an object of schemas.');
  if (!Array.isArray(required) || !required.every((name) => typeof name === 'string')) {
    throw refusal(`${param}.required`, 'must be a list of names.');
  }
  const names: readonly string[] = required;
  const members: Member[] = Object.entries(properties)
    // A member that nothing is valid for may only be left out.
    .filter(([name, inner]) => inner !== false || names.includes(name))
    .map(([name, inner]) => ({
      name,
      shape: read(inner, `properties.${name}`),
      required: names.includes(name),
    }));
  const undeclared = [...new Set(names)].filter((name) => !Object.hasOwn(properties, name));
  if (undeclared.length > 0 && additionalProperties === false) {
    throw refusal(`${param}.required`, `names '${undeclared[0]}', which 'additionalProperties' forbids.`);
  }
  const others = (): Shape => read(additionalProperties ?? true, 'additionalProperties');
  for (const name of undeclared) members.push({ name, shape: others(), required: true });
  // Where names are given and nothing is said of others, those are meant; an object without any may hold anything.
  const open = additionalProperties === undefined ? members.length === 0 : additionalProperties !== false;
  return { kind: 'object', members, rest: open ? others() : null };
}

function readArray(schema: SchemaObject, param: string, read: ReadSchema): ArrayShape {
  const {
    items,
    prefixItems = [],
    uniqueItems,
  } = schema as {
    readonly items?: unknown;
    readonly prefixItems?: unknown;
    readonly uniqueItems?: unknown;
  };
  if (uniqueItems !== undefined && uniqueItems !== false) {
    throw refusal(`${param}.uniqueItems`, 'is a keyword that cannot be enforced while an answer is written.');
  }
  if (!Array.isArray(prefixItems)) throw refusal(`${param}.prefixItems`, 'must be a list of schemas.');
  if (Array.isArray(items))
    throw refusal(`${param}.items`, "must be one schema: use 'prefixItems' for a list of them.");
  const minItems = count(schema, 'minItems', param) ?? 0;
  const maxItems = count(schema, 'maxItems', param);
  if (minItems > MAX_ITEMS) throw refusal(`${param}.minItems`, `cannot be enforced above ${MAX_ITEMS}.`);
  if (maxItems !== null && maxItems < minItems) throw refusal(`${param}.maxItems`, "is below 'minItems'.");
  const prefix = prefixItems
    .slice(0, maxItems ?? prefixItems.length)
    .map((inner: unknown, index) => read(inner, `prefixItems.${index}`));
  const further = Math.max(0, minItems - prefix.length);
  if (items === false && further > 0) throw refusal(`${param}.minItems`, "asks for more than 'items' allows.");
  const closed = items === false || (items === undefined && prefix.length > 0 && further === 0);
  return {
    kind: 'array',
    prefix,
    items: closed ? null : read(items ?? true, 'items'),
    minItems: further,
    maxItems: maxItems === null ? null : maxItems - prefix.length,
  };
}

function readString(schema: SchemaObject, param: string): StringShape {
  const minLength = count(schema, 'minLength', param) ?? 0;
  const maxLength = count(schema, 'maxLength', param);
  if (minLength > MAX_LENGTH) throw refusal(`${param}.minLength`, `cannot be enforced above ${MAX_LENGTH}.`);
  if (maxLength !== null && maxLength < minLength) throw refusal(`${param}.maxLength`, "is below 'minLength'.");
  const text = { kind: 'string', minLength, maxLength, format: null, pattern: null } as const;
  const special = (['format', 'pattern'] as const).find((keyword) => schema[keyword] !== undefined);
  if (special === undefined) return text;
  const beside = (['minLength', 'maxLength', 'pattern'] as const).find(
    (keyword) => keyword !== special && schema[keyword] !== undefined,
  );
  if (beside !== undefined) throw refusal(`${param}.${beside}`, `cannot be enforced beside '${special}'.`);
  return special === 'format'
    ? { ...text, format: formatOf(schema['format'], `${param}.format`) }
    : { ...text, pattern: patternOf(schema['pattern'], `${param}.pattern`) };
}

function formatOf(given: unknown, param: string): StringFormat {
  const format = STRING_FORMATS.find((one) => one === given);
  if (format !== undefined) return format;
  throw refusal(param, `cannot be enforced; these can: ${STRING_FORMATS.join(', ')}.`);
}

function patternOf(given: unknown, param: string): Pattern {
  const pattern = typeof given === 'string' ? readPattern(given) : null;
  if (pattern !== null) return pattern;
  throw refusal(
    param,
    'cannot be enforced: characters, classes, groups, alternatives and repetitions can, look-around and references back cannot.',
  );
}

function readNumber(schema: SchemaObject, param: string, integer: boolean): NumberShape {
  const { multipleOf } = schema as { readonly multipleOf?: unknown };
  if (multipleOf !== undefined && !(integer && multipleOf === 1)) {
    throw refusal(`${param}.multipleOf`, 'is a keyword that cannot be enforced while an answer is written.');
  }
  const lower = [bound(schema, 'minimum', param), bound(schema, 'exclusiveMinimum', param)];
  const upper = [bound(schema, 'maximum', param), bound(schema, 'exclusiveMaximum', param)];
  const minimum = tightest(lower, (a, b) => a > b);
  const maximum = tightest(upper, (a, b) => a < b);
  if (minimum !== null && maximum !== null && isEmpty(minimum, maximum, integer)) {
    throw refusal(param, 'allows no number between its bounds.');
  }
  return { kind: 'number', integer, minimum, maximum };
}

function isEmpty(minimum: Bound, maximum: Bound, integer: boolean): boolean {
  if (!integer) {
    return (
      minimum.value > maximum.value || (minimum.value === maximum.value && (minimum.exclusive || maximum.exclusive))
    );
  }
  const first = minimum.exclusive ? Math.floor(minimum.value) + 1 : Math.ceil(minimum.value);
  const last = maximum.exclusive ? Math.ceil(maximum.value) - 1 : Math.floor(maximum.value);
  return first > last;
}

function tightest(bounds: readonly (Bound | null)[], tighter: (a: number, b: number) => boolean): Bound | null {
  return bounds.reduce((best, one) => {
    if (best === null || one === null) return best ?? one;
    if (one.value === best.value) return one.exclusive ? one : best;
    return tighter(one.value, best.value) ? one : best;
  }, null);
}

function bound(
  schema: SchemaObject,
  keyword: 'minimum' | 'maximum' | 'exclusiveMinimum' | 'exclusiveMaximum',
  param: string,
): Bound | null {
  const value = schema[keyword];
  if (value === undefined) return null;
  if (typeof value !== 'number' || !Number.isFinite(value)) throw refusal(`${param}.${keyword}`, 'must be a number.');
  if (Math.abs(value) > MAX_BOUND || (value !== 0 && Math.abs(value) < 1e-9)) {
    throw refusal(`${param}.${keyword}`, 'cannot be enforced that far from 1.');
  }
  return { value, exclusive: keyword.startsWith('exclusive') };
}

function count(
  schema: SchemaObject,
  keyword: 'minItems' | 'maxItems' | 'minLength' | 'maxLength',
  param: string,
): number | null {
  const value = schema[keyword];
  if (value === undefined) return null;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0) {
    throw refusal(`${param}.${keyword}`, 'must be a whole number, 0 or more.');
  }
  return value;
}
