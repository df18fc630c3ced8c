/** What all real clients are asked, in forms that hold whatever the model is: tools, a schema, prompts that differ. All is short. */
import assert from 'node:assert/strict';
import { Ajv } from 'ajv';

/** Text without a tool's or a schema's help. */
export const COUNT = 'Count to 9.';

const CITIES = ['Ulm', 'Graz'];

export const WEATHER_PARAMETERS = {
  type: 'object',
  properties: { city: { type: 'string', enum: CITIES } },
  required: ['city'],
  additionalProperties: false,
} as const;

export const CLOCK_PARAMETERS = {
  type: 'object',
  properties: {},
  additionalProperties: false,
} as const;

/** As chat completions want them. */
export const TOOLS = [
  { type: 'function', function: { name: 'weather', description: 'of a city', parameters: WEATHER_PARAMETERS } },
  { type: 'function', function: { name: 'clock', parameters: CLOCK_PARAMETERS } },
] as const;

/** A person, short whatever the model fills in. */
export const PERSON_SCHEMA = {
  type: 'object',
  properties: {
    name: { type: 'string', maxLength: 12 },
    age: { type: 'integer', minimum: 0, maximum: 120 },
    pet: { enum: ['owl', 'fox', null] },
  },
  required: ['name', 'age', 'pet'],
  additionalProperties: false,
} as const;

export interface Person {
  readonly name: string;
  readonly age: number;
  readonly pet: 'owl' | 'fox' | null;
}

const ajv = new Ajv({ strict: false });

/** Fails when `value` is not what `schema` says. */
export function assertValid(schema: object, value: unknown): void {
  const valid = ajv.validate(schema, value);
  assert.ok(valid, `${ajv.errorsText()}: ${JSON.stringify(value)}`);
}

const NAMES = ['Hugo', 'Nora', 'Pia', 'Tom', 'Anna', 'Ben', 'Clara', 'David'];
const ANIMALS = ['owl', 'fox', 'cat', 'dog'];

/** 32 prompts, no two alike. */
export const MANY_PROMPTS: readonly string[] = NAMES.flatMap((name) =>
  ANIMALS.map((animal) => `Tell me a story about a ${animal} named ${name}.`),
);
