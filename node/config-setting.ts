/** One setting: what the table of settings says of it. */
import type { TSchema } from 'typebox';
import type { AliasTable } from './routing/model-aliases.ts';
import type { Upstream } from './storage/remote-node.ts';

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
  | 'engine.keepAlive'
  | 'engine.memory'
  | 'models.files'
  | 'models.dir'
  | 'models.pin'
  | 'models.aliases'
  | 'loadBalancing.enabled'
  | 'loadBalancing.strategy'
  | 'loadBalancing.failoverEnabled'
  | 'failover.midStream'
  | 'upstreams'
  | 'federation.prefer'
  | 'federation.groups'
  | 'federation.maintenance'
  | 'federation.requestsPerSecond'
  | 'streaming.publicUrl'
  | 'streaming.secretFile'
  | 'secrets.store'
  | 'secrets.passphraseFile'
  | 'log.format'
  | 'log.level';

export type SettingValue = string | number | boolean | null | readonly string[] | readonly Upstream[] | AliasTable;

/**
 * How a text becomes a value: `switch` is a flag without value that turns a default-on boolean off; the text of `json` is
 * what the config file would hold.
 */
export type SettingKind = 'text' | 'path' | 'integer' | 'switch' | 'list' | 'json';

/** What the text of one value (or one list element) must be, beyond its JSON type. */
export type SettingForm =
  | 'any'
  | 'host'
  | 'listen'
  | 'peer'
  | 'model'
  | 'model-id'
  | 'duration'
  | 'size'
  | 'upstream'
  | 'origin'
  | 'host-name';

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
  /** Left out of the help, which is one screen. */
  readonly hidden: boolean;
  /** A running node takes a change of the config file over at once; all others wait for the next start. */
  readonly live: boolean;
}

/** What has no default below. */
type Row = Partial<Setting> & Pick<Setting, 'key' | 'flag' | 'argument' | 'help' | 'expected' | 'schema'>;

/** A row of the table, with what most rows have in common. */
export function setting(row: Row): Setting {
  const env = `MESHNODE_${row.flag.toUpperCase().replaceAll('-', '_')}`;
  return { kind: 'text', form: 'any', fallback: null, hidden: false, live: false, env, ...row };
}
