/** The rows of the table of settings that are about the engine. */
import Type from 'typebox';
import { type Setting, setting } from './config-setting.ts';

const GPUS = ['auto', 'off', 'cuda', 'vulkan', 'metal'];
const amount = Type.String({ minLength: 1, maxLength: 64 });

/** In the order of the help. */
export const ENGINE_SETTINGS: readonly Setting[] = [
  setting({
    key: 'engine.gpu',
    flag: 'gpu',
    argument: 'KIND',
    help: 'auto, off, cuda, vulkan or metal (auto)',
    expected: 'auto, off, cuda, vulkan or metal',
    schema: Type.Union(GPUS.map((name) => Type.Literal(name))),
    fallback: 'auto',
  }),
  setting({
    key: 'engine.contextTokens',
    flag: 'context',
    argument: 'N',
    kind: 'integer',
    help: 'tokens per request (what fits memory)',
    expected: 'a whole number from 64 to 16777216',
    schema: Type.Integer({ minimum: 64, maximum: 16_777_216 }),
  }),
  setting({
    key: 'engine.parallel',
    flag: 'parallel',
    argument: 'N',
    kind: 'integer',
    help: 'requests that one model answers at once (4)',
    expected: 'a whole number from 1 to 64',
    schema: Type.Integer({ minimum: 1, maximum: 64 }),
    fallback: 4,
  }),
  setting({
    key: 'engine.keepAlive',
    flag: 'keep-alive',
    argument: 'TIME',
    form: 'duration',
    help: 'an unused model stays loaded; 0, 30s, forever (5m)',
    expected: 'a duration such as 30s, 10m or 2h, 0, or forever',
    schema: amount,
    fallback: '5m',
  }),
  setting({
    key: 'engine.memory',
    flag: 'memory',
    argument: 'SIZE',
    form: 'size',
    help: 'memory for all loaded models (most of what is free)',
    expected: 'a size such as 8GiB or 512MiB',
    schema: amount,
  }),
  setting({
    key: 'secrets.passphraseFile',
    flag: 'passphrase-file',
    argument: 'FILE',
    kind: 'path',
    help: 'its first line opens the encrypted store of keys',
    expected: 'a file',
    schema: amount,
    hidden: true,
  }),
];
