/** Random JSON schemas of everything that can be enforced, small enough for a small model to fill. */
import fc from './fc.ts';

const name = fc.constantFrom('name', 'age', 'tags', 'x', 'a b', 'naïve', 'q"t');
const integerBound = fc.integer({ min: -50, max: 300 });
const decimalBound = fc.constantFrom(-12.5, -1, -0.5, -0.001, 0, 0.25, 0.3, 1, 1.5, 9.99, 100, 1234.5678);

const PATTERNS = [
  '^[A-Z]{2}-\\d{3,5}$',
  '^(?:red|green|blue)$',
  '^a|b$',
  '[0-9]',
  '^[^aeiou"]+$',
  '^\\S+@\\S+\\.[a-z]{2,}$',
  '^#([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$',
  '^\\w+( \\w+){0,3}?$',
  '^["\\\\\\n]{1,4}$',
  '^.{0,5}\\u00e9\\x41[^\\W_]\\D$',
  '^[\\s\\S]{2}\\S\\s$',
  '',
  '^$',
  '^(a|b|)c?$',
];

const leaf = fc.oneof(
  fc.constantFrom<object>(
    { type: 'boolean' },
    { type: 'null' },
    { type: 'string' },
    { type: 'integer' },
    { type: 'number' },
  ),
  fc.constantFrom<object>(
    { enum: ['red', 'green "x"', 'green', 3, 31, null] },
    { enum: ['🦉', '🦊', '🦉x', ''] },
    { const: { k: [1, 'é'] } },
    { type: 'string', enum: ['a', 1] },
  ),
  fc
    .constantFrom('date', 'time', 'date-time', 'uuid', 'ipv4', 'email', 'hostname', 'uri')
    .map((format) => ({ type: 'string', format })),
  fc.constantFrom(...PATTERNS).map((pattern) => ({ type: 'string', pattern })),
  fc
    .tuple(fc.nat(12), fc.nat(12))
    .map(([a, b]) => ({ type: 'string', minLength: Math.min(a, b), maxLength: Math.max(a, b) })),
  fc.nat(3).map((minLength) => ({ type: ['string', 'null'], minLength })),
  fc.tuple(integerBound, fc.nat(120)).map(([minimum, span]) => ({ type: 'integer', minimum, maximum: minimum + span })),
  fc
    .tuple(integerBound, integerBound)
    .map(([a, b]) => ({ type: 'integer', exclusiveMinimum: Math.min(a, b), exclusiveMaximum: Math.max(a, b) + 2 })),
  integerBound.map((minimum) => ({ type: 'integer', minimum })),
  decimalBound.map((maximum) => ({ type: 'number', maximum })),
  fc
    .tuple(decimalBound, decimalBound)
    .map(([a, b]) => ({ type: 'number', minimum: Math.min(a, b), maximum: Math.max(a, b) })),
  fc
    .tuple(decimalBound, decimalBound)
    .filter(([a, b]) => a !== b)
    .map(([a, b]) => ({ type: 'number', exclusiveMinimum: Math.min(a, b), exclusiveMaximum: Math.max(a, b) })),
);

const { schema } = fc.letrec<{ schema: object }>((tie) => ({
  schema: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    leaf,
    fc
      .tuple(fc.dictionary(name, tie('schema'), { maxKeys: 3 }), fc.array(name, { maxLength: 3 }), fc.boolean())
      .map(([properties, required, closed]) => ({
        type: 'object',
        properties,
        required: [...new Set(required)].filter((one) => one in properties),
        ...(closed ? { additionalProperties: false } : {}),
      })),
    fc
      .tuple(fc.dictionary(name, tie('schema'), { maxKeys: 2 }), tie('schema'))
      .map(([properties, additionalProperties]) => ({ type: 'object', properties, additionalProperties })),
    fc
      .tuple(tie('schema'), fc.nat(3), fc.nat(3))
      .map(([items, a, b]) => ({ type: 'array', items, minItems: Math.min(a, b), maxItems: Math.max(a, b) })),
    tie('schema').map((items) => ({ type: 'array', items: { anyOf: [items, { type: 'null' }] }, maxItems: 2 })),
    fc
      .tuple(tie('schema'), tie('schema'))
      .map(([a, b]) => ({ type: 'array', prefixItems: [a, b], items: false, minItems: 2 })),
    fc.tuple(tie('schema'), tie('schema')).map((anyOf) => ({ anyOf })),
  ),
}));

/** A tree of itself, within a random schema. */
const recursive = schema.map((value) => ({
  type: 'object',
  properties: { value: { $ref: '#/$defs/value' }, children: { type: 'array', items: { $ref: '#' }, maxItems: 2 } },
  required: ['value'],
  additionalProperties: false,
  $defs: { value },
}));

export const enforceableSchema: fc.Arbitrary<object> = fc.oneof(
  { weight: 6, arbitrary: schema },
  { weight: 1, arbitrary: recursive },
);
