/** The one table of settings: command line, environment, config file, help and docs are all read from it. */
import Type, { type TSchema } from 'typebox';
import { LOG_LEVELS } from './common/logger.ts';

/** Where a value came from. */
export type Origin = 'flag' | 'env' | 'file' | 'default';

/** Keys of the config file; a dot goes one object down. */
export type SettingKey =
  | 'name'
  | 'dataDir'
  | 'facade.host'
  | 'facade.port'
  | 'facade.apiKeyFile'
  | 'facade.allowHosts'
  | 'facade.allowOrigins'
  | 'network.listen'
  | 'network.peers'
  | 'network.mdns'
  | 'network.dht'
  | 'engine.gpu'
  | 'engine.contextTokens'
  | 'engine.parallel'
  | 'models.files'
  | 'models.dir'
  | 'upstreams'
  | 'log.format'
  | 'log.level';

export type SettingValue = string | number | boolean | null | readonly string[];

/** How a text becomes a value: `switch` is a flag without value that turns a default-on boolean off. */
export type SettingKind = 'text' | 'path' | 'integer' | 'switch' | 'list';

/** What the text of one value (or one list element) must be, beyond its JSON type. */
export type SettingForm = 'any' | 'host' | 'listen' | 'peer' | 'model' | 'upstream' | 'origin' | 'host-name';

export interface Setting {
  readonly key: SettingKey;
  /** Without the dashes. */
  readonly flag: string;
  /** Environment variable; lists are separated by commas there. */
  readonly env: string;
  readonly kind: SettingKind;
  readonly form: SettingForm;
  /** Placeholder in the help; empty for switches. */
  readonly argument: string;
  /** One line of help, at most 54 characters. */
  readonly help: string;
  /** Ends the sentence "expected …". */
  readonly expected: string;
  /** JSON type and bounds, for the file and, after conversion, for flags and environment. */
  readonly schema: TSchema;
  /** Null: none, or computed from the machine. */
  readonly fallback: SettingValue;
  /** Left out of the help. */
  readonly hidden: boolean;
}

type Row = Partial<Setting> & Pick<Setting, 'key' | 'flag' | 'argument' | 'help' | 'expected' | 'schema'>;

function setting(row: Row): Setting {
  const env = `MESHNODE_${row.flag.toUpperCase().replaceAll('-', '_')}`;
  return { kind: 'text', form: 'any', fallback: null, hidden: false, env, ...row };
}

const shortText = Type.String({ minLength: 1, maxLength: 4096 });
const texts = Type.Array(shortText, { maxItems: 1024 });
const choice = (names: readonly string[]): TSchema => Type.Union(names.map((name) => Type.Literal(name)));

const GPUS = ['auto', 'off', 'cuda', 'vulkan', 'metal'];
const FORMATS = ['pretty', 'json'];

/** In the order of the help. */
export const SETTINGS: readonly Setting[] = [
  setting({
    key: 'facade.port',
    flag: 'port',
    argument: 'N',
    kind: 'integer',
    help: 'port of the OpenAI API; 0 = any free (8642)',
    expected: 'a whole number from 0 to 65535',
    schema: Type.Integer({ minimum: 0, maximum: 65_535 }),
    fallback: 8642,
  }),
  setting({
    key: 'facade.host',
    flag: 'host',
    argument: 'H',
    form: 'host',
    help: 'address it listens on (127.0.0.1)',
    expected: 'an IP address or localhost',
    schema: shortText,
    fallback: '127.0.0.1',
  }),
  setting({
    key: 'name',
    flag: 'name',
    argument: 'NAME',
    help: 'what people see for this node (host name)',
    expected: '1 to 64 characters without control characters',
    schema: Type.String({ minLength: 1, maxLength: 64, pattern: '^[^\\u0000-\\u001f\\u007f-\\u009f]*$' }),
  }),
  setting({
    key: 'dataDir',
    flag: 'data-dir',
    argument: 'DIR',
    kind: 'path',
    help: 'identity, models and state of this node',
    expected: 'a directory',
    schema: shortText,
  }),
  setting({
    key: 'models.files',
    flag: 'model',
    argument: '[ID=]PATH',
    kind: 'list',
    form: 'model',
    help: 'a GGUF file to serve; repeatable',
    expected: 'PATH or ID=PATH, the id of letters, digits and . _ : / @ + - (at most 256)',
    schema: texts,
    fallback: [],
  }),
  setting({
    key: 'models.dir',
    flag: 'models-dir',
    argument: 'DIR',
    kind: 'path',
    help: 'serve every GGUF below it (DATA-DIR/models)',
    expected: 'a directory',
    schema: shortText,
  }),
  setting({
    key: 'network.listen',
    flag: 'listen',
    argument: 'MULTIADDR',
    kind: 'list',
    form: 'listen',
    help: 'where peers reach us; repeatable (tcp port 8643)',
    expected: 'a multiaddr such as /ip4/0.0.0.0/tcp/8643',
    schema: Type.Array(shortText, { minItems: 1, maxItems: 32 }),
    fallback: ['/ip4/0.0.0.0/tcp/8643', '/ip6/::/tcp/8643'],
  }),
  setting({
    key: 'network.peers',
    flag: 'peer',
    argument: 'MULTIADDR',
    kind: 'list',
    form: 'peer',
    help: 'a node to dial where multicast is blocked',
    expected: 'a multiaddr such as /ip4/192.168.1.5/tcp/8643',
    schema: texts,
    fallback: [],
  }),
  setting({
    key: 'network.mdns',
    flag: 'no-mdns',
    argument: '',
    kind: 'switch',
    help: 'no multicast at all: only --peer finds nodes',
    expected: 'true or false',
    schema: Type.Boolean(),
    fallback: true,
  }),
  setting({
    key: 'network.dht',
    flag: 'no-dht',
    argument: '',
    kind: 'switch',
    help: 'no distributed model index (for debugging)',
    expected: 'true or false',
    schema: Type.Boolean(),
    fallback: true,
  }),
  setting({
    key: 'upstreams',
    flag: 'upstream',
    argument: 'NAME=URL',
    kind: 'list',
    form: 'upstream',
    help: 'an OpenAI-compatible server as a backend',
    expected: 'NAME=URL with an http or https URL',
    schema: texts,
    fallback: [],
    hidden: true,
  }),
  setting({
    key: 'facade.apiKeyFile',
    flag: 'api-key-file',
    argument: 'FILE',
    kind: 'path',
    help: 'HTTP clients must show the key in this file',
    expected: 'a file',
    schema: shortText,
  }),
  setting({
    key: 'facade.allowHosts',
    flag: 'allow-host',
    argument: 'H',
    kind: 'list',
    form: 'host-name',
    help: 'a Host header to accept; repeatable',
    expected: 'a host name, or NAME:PORT',
    schema: texts,
    fallback: [],
  }),
  setting({
    key: 'facade.allowOrigins',
    flag: 'allow-origin',
    argument: 'O',
    kind: 'list',
    form: 'origin',
    help: 'a web origin that may call the API; repeatable',
    expected: 'an origin such as https://chat.example',
    schema: texts,
    fallback: [],
  }),
  setting({
    key: 'engine.gpu',
    flag: 'gpu',
    argument: 'KIND',
    help: 'auto, off, cuda, vulkan or metal (auto)',
    expected: 'auto, off, cuda, vulkan or metal',
    schema: choice(GPUS),
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
    key: 'log.format',
    flag: 'log-format',
    argument: 'F',
    help: 'pretty or json: one event a line (pretty)',
    expected: 'pretty or json',
    schema: choice(FORMATS),
    fallback: 'pretty',
  }),
  setting({
    key: 'log.level',
    flag: 'log-level',
    argument: 'L',
    help: 'fatal error warn info debug trace silent (warn)',
    expected: LOG_LEVELS.join(', '),
    schema: choice(LOG_LEVELS),
    fallback: 'warn',
  }),
];
