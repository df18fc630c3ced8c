/** The rows of the table of settings that are about what models are called. */
import Type from 'typebox';
import { type Setting, setting } from './config-setting.ts';

const modelId = Type.String({ minLength: 1, maxLength: 256, pattern: '^[^\\u0000-\\u001f\\u007f-\\u009f]+$' });

/** In the order of the help. */
export const MODEL_SETTINGS: readonly Setting[] = [
  setting({
    key: 'models.aliases',
    flag: 'aliases',
    argument: 'JSON',
    kind: 'json',
    help: 'names that stand for models, the preferred first',
    expected: 'an object such as {"gpt-4o-mini": ["my-model", "its-substitute"]}',
    schema: Type.Record(modelId, Type.Array(modelId, { minItems: 1, maxItems: 8 }), {
      maxProperties: 256,
      additionalProperties: false,
    }),
    fallback: {},
    hidden: true,
    live: true,
  }),
];
