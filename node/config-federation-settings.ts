/** The rows of the table of settings that are about FIRST's fixtures and its streamed answers. */
import Type from 'typebox';
import { type Setting, setting } from './config-setting.ts';

const shortText = Type.String({ minLength: 1, maxLength: 4096 });
const names = Type.Array(Type.String({ minLength: 1, maxLength: 256 }), { maxItems: 1024 });

/** In the order of the help, of which they are no part. */
export const FEDERATION_SETTINGS: readonly Setting[] = [
  setting({
    key: 'federation.prefer',
    flag: 'federation-prefer',
    argument: 'WHAT',
    help: 'queued or free: what comes after running (queued)',
    expected: 'queued or free',
    schema: Type.Union([Type.Literal('queued'), Type.Literal('free')]),
    fallback: 'queued',
    hidden: true,
  }),
  setting({
    key: 'federation.groups',
    flag: 'federation-group',
    argument: 'GROUP',
    kind: 'list',
    help: 'a group of all callers here; repeatable (not asked)',
    expected: 'names of groups as the fixtures have them',
    schema: names,
    fallback: [],
    hidden: true,
  }),
  setting({
    key: 'federation.maintenance',
    flag: 'federation-maintenance',
    argument: 'CLUSTER',
    kind: 'list',
    help: 'a cluster that takes no requests now; repeatable',
    expected: 'names of clusters of the fixtures',
    schema: names,
    fallback: [],
    hidden: true,
  }),
  setting({
    key: 'federation.requestsPerSecond',
    flag: 'federation-rate',
    argument: 'N',
    kind: 'integer',
    help: 'of one caller below /resource_server; 0 = any (10)',
    expected: 'a whole number from 0 to 100000',
    schema: Type.Integer({ minimum: 0, maximum: 100_000 }),
    fallback: 10,
    hidden: true,
  }),
  setting({
    key: 'streaming.publicUrl',
    flag: 'streaming-url',
    argument: 'URL',
    form: 'origin',
    help: 'where remote functions reach this node to stream',
    expected: 'an origin such as https://node.example',
    schema: shortText,
    hidden: true,
  }),
  setting({
    key: 'streaming.secretFile',
    flag: 'streaming-secret-file',
    argument: 'FILE',
    kind: 'path',
    help: 'its first line is what remote functions must show',
    expected: 'a file',
    schema: shortText,
    hidden: true,
  }),
];
