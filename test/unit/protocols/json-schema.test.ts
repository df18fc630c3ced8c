import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../../node/common/errors.ts';
import { checkJsonSchema } from '../../../protocols/inference/bodies/json-schema.ts';
import fc from '../../support/fc.ts';
import { enforceableSchema } from '../../support/json-schemas.ts';

const AT = 'response_format.json_schema.schema';

/** The `param` that a schema is refused for, null where it is not. */
function refusedFor(schema: unknown): string | null {
  try {
    checkJsonSchema(schema, AT);
    return null;
  } catch (error) {
    assert.ok(error instanceof MeshError && error.code === 'invalid_request', String(error));
    const { param } = error.facts;
    assert.ok(param?.startsWith(AT) === true && error.message.includes(param), error.message);
    return param.slice(AT.length + 1);
  }
}

const inX = (schema: unknown): object => ({ type: 'object', properties: { x: schema } });

test('a keyword that cannot be enforced is refused by name and place', () => {
  const table: [unknown, string][] = [
    [inX({ type: 'string', pattern: '^(?=a)' }), 'properties.x.pattern'],
    [inX({ type: 'array', items: { not: {} } }), 'properties.x.items.not'],
    [inX({ type: 'array', uniqueItems: true }), 'properties.x.uniqueItems'],
    [inX({ type: 'array', contains: {} }), 'properties.x.contains'],
    [inX({ type: 'array', items: [{ type: 'string' }] }), 'properties.x.items'],
    [inX({ type: 'number', multipleOf: 0.5 }), 'properties.x.multipleOf'],
    [inX({ type: 'string', format: 'regex' }), 'properties.x.format'],
    [inX({ type: 'string', format: 'date', maxLength: 3 }), 'properties.x.maxLength'],
    [inX({ type: 'string', pattern: '(a)\\1' }), 'properties.x.pattern'],
    [inX({ type: 'string', pattern: '[a' }), 'properties.x.pattern'],
    [inX({ type: 'string', pattern: '\\bx' }), 'properties.x.pattern'],
    [inX({ type: 'string', pattern: '^a$', maxLength: 3 }), 'properties.x.maxLength'],
    [inX({ type: 'string', nullable: true }), 'properties.x.nullable'],
    [inX({ type: 'text' }), 'properties.x.type'],
    [inX({ type: [] }), 'properties.x.type'],
    [inX({ type: 'integer', minimum: '3' }), 'properties.x.minimum'],
    [inX({ type: 'integer', minimum: 4, maximum: 3 }), 'properties.x'],
    [inX({ type: 'integer', exclusiveMinimum: 3, exclusiveMaximum: 4 }), 'properties.x'],
    [inX({ type: 'string', minLength: 4, maxLength: 3 }), 'properties.x.maxLength'],
    [inX({ type: 'array', minItems: -1 }), 'properties.x.minItems'],
    [inX({ type: 'array', prefixItems: [true], items: false, minItems: 2 }), 'properties.x.minItems'],
    [inX({ enum: [] }), 'properties.x.enum'],
    [inX({ enum: ['a'], type: 'integer' }), 'properties.x.enum'],
    [inX({ const: 1, minimum: 3 }), 'properties.x.minimum'],
    [inX({ anyOf: [{ type: 'string' }, { typo: 1 }] }), 'properties.x.anyOf.1.typo'],
    [inX({ anyOf: [{ type: 'string' }], type: 'string' }), 'properties.x.type'],
    [inX({ anyOf: [] }), 'properties.x.anyOf'],
    [inX({ allOf: [{}, {}] }), 'properties.x.allOf'],
    [inX({ oneOf: [{ type: 'number' }, { type: 'integer' }] }), 'properties.x.oneOf'],
    [inX({ oneOf: [{ properties: {} }, { type: 'string' }] }), 'properties.x.oneOf'],
    [inX({ $ref: 'https://example.com/schema' }), 'properties.x.$ref'],
    [inX({ $ref: '#/$defs/missing' }), 'properties.x.$ref'],
    [inX({ $ref: '#/__proto__' }), 'properties.x.$ref'],
    [inX({ $ref: '#', minLength: 1 }), 'properties.x.minLength'],
    [{ type: 'object', patternProperties: {} }, 'patternProperties'],
    [{ type: 'object', minProperties: 1 }, 'minProperties'],
    [{ type: 'object', required: ['a'], additionalProperties: false }, 'required'],
    [{ type: 'object', required: 'a' }, 'required'],
    [{ type: 'object', properties: [] }, 'properties'],
    [{ if: {} }, 'if'],
    [{ $defs: { a: { pattern: '(a*)*' } }, $ref: '#/$defs/a' }, '$defs.a.pattern'],
  ];
  for (const [schema, param] of table) assert.equal(refusedFor(schema), param, JSON.stringify(schema));
});

test('what is no schema, or allows nothing, is refused as a whole', () => {
  for (const schema of [false, null, 3, 'object', [], undefined]) {
    assert.throws(
      () => checkJsonSchema(schema, AT),
      (error) => error instanceof MeshError && error.facts.param === AT,
    );
  }
});

test('a schema that leads nowhere or never ends is refused', () => {
  assert.equal(refusedFor({ $ref: '#' }), '$ref');
  assert.equal(refusedFor({ anyOf: [{ $ref: '#' }, { type: 'null' }] }), 'anyOf.0.$ref');
  assert.equal(
    refusedFor({ $defs: { a: { $ref: '#/$defs/b' }, b: { $ref: '#/$defs/a' } }, $ref: '#/$defs/a' }),
    '$ref',
  );
  const endless = { type: 'object', properties: { next: { $ref: '#' } }, required: ['next'] };
  assert.equal(refusedFor(endless), 'properties.next.$ref');
  assert.equal(refusedFor({ ...endless, required: [] }), null);
});

test('what generators of schemas write is taken', () => {
  const table: unknown[] = [
    {},
    true,
    {
      $schema: 'https://json-schema.org/draft/2020-12/schema',
      type: 'object',
      properties: {},
      additionalProperties: false,
    },
    inX({
      anyOf: [{ type: 'string' }, { type: 'null' }],
      default: null,
      title: 'X',
      description: 'y',
      examples: ['z'],
    }),
    inX({ type: ['string', 'null'], minLength: 1, 'x-order': 3 }),
    inX({ allOf: [{ $ref: '#/$defs/a' }], $defs: {} }).constructor === Object && {
      ...inX({ allOf: [{ $ref: '#/$defs/a' }] }),
      $defs: { a: { const: 1 } },
    },
    {
      oneOf: [
        { type: 'object', properties: { kind: { const: 'a' } }, required: ['kind'] },
        { type: 'object', properties: { kind: { enum: ['b', 'c'] } }, required: ['kind'] },
        { type: 'null' },
      ],
      discriminator: { propertyName: 'kind' },
    },
    inX({ type: 'array', items: { type: 'integer', multipleOf: 1 }, uniqueItems: false, minItems: 1 }),
    inX({ type: 'string', minimum: 3 }),
  ];
  for (const schema of table) assert.equal(refusedFor(schema), null, JSON.stringify(schema));
});

test('size is bounded', () => {
  let deep: object = { type: 'string' };
  for (let depth = 0; depth < 100; depth += 1) deep = { type: 'array', items: deep };
  assert.match(refusedFor(deep) ?? '', /^items\.items/);
  const many = Array.from({ length: 5000 }, (_, index) => [`p${index}`, { type: 'string' }] as const);
  assert.equal(refusedFor({ type: 'object', properties: Object.fromEntries(many) }), '');
  assert.equal(refusedFor({ enum: Array.from({ length: 5000 }, (_, index) => index) }), 'enum');
  assert.equal(refusedFor({ description: 'x'.repeat(600_000) }), '');
});

test('the schemas that the other tests take at random are all enforceable', () => {
  fc.assert(fc.property(enforceableSchema, (schema) => assert.equal(refusedFor(schema), null)));
});

test('any JSON at all is taken or refused, never worse', () => {
  const word = fc.constantFrom(
    'type',
    'properties',
    'items',
    'anyOf',
    '$ref',
    'enum',
    'required',
    'minimum',
    'x',
    '#',
    'object',
    'array',
  );
  const { json } = fc.letrec<{ json: unknown }>((tie) => ({
    json: fc.oneof(
      { depthSize: 'small' },
      word,
      fc.constantFrom<unknown>(null, true, false, 3, -1.5),
      fc.array(tie('json'), { maxLength: 3 }),
      fc.dictionary(word, tie('json'), { maxKeys: 4 }),
    ),
  }));
  fc.assert(fc.property(json, (schema) => void refusedFor(schema)));
});
