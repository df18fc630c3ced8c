/** What the user can set, from four sources: flags > environment > config file > defaults. The result is frozen. */
import { MeshError } from './common/errors.ts';
import type { LogLevel } from './common/logger.ts';
import { durationMs, sizeBytes } from './config-amounts.ts';
import { type ConfigFile, readConfigFile } from './config-file.ts';
import type { Origin, Setting, SettingKey, SettingValue } from './config-setting.ts';
import { SETTINGS } from './config-settings.ts';
import { configPath, defaultDataDir, nearestName, splitNamed } from './config-text.ts';
import { textToJson, valueFromJson, where } from './config-values.ts';
import { type AliasTable, checkedAliases } from './routing/model-aliases.ts';
import type { LoadBalancing, StrategyName } from './routing/settings.ts';
import type { Upstream } from './storage/remote-node.ts';
import type { SecretStoreChoice } from './storage/secret-store.ts';

/** Which compute device the engine may use. */
export type GpuChoice = 'auto' | 'off' | 'cuda' | 'vulkan' | 'metal';

/** Everything that a node is told at start. Paths are absolute. */
export interface Config {
  /** What people see for this node. */
  readonly name: string;
  /** Identity, models and state; one process at a time. */
  readonly dataDir: string;
  readonly facade: {
    readonly host: string;
    /** 0 = any free port. */
    readonly port: number;
    /** File whose first line is the key that every HTTP client must show; null = no key, loopback only. */
    readonly apiKeyFile: string | null;
    /** Host header values that are accepted beside loopback names. */
    readonly allowHosts: readonly string[];
    /** Origins of web pages that may call the facade, for example `https://chat.example`. */
    readonly allowOrigins: readonly string[];
  };
  readonly network: {
    /** Multiaddrs; `tcp/0` = any free port. */
    readonly listen: readonly string[];
    /** Multiaddrs to dial for ever. */
    readonly peers: readonly string[];
    readonly mdns: boolean;
    readonly dht: boolean;
  };
  readonly engine: {
    readonly gpu: GpuChoice;
    /** Tokens per sequence; null = what fits memory. */
    readonly contextTokens: number | null;
    /** Sequences that one model generates at once. */
    readonly parallel: number;
    /** A model that nobody used for this long is unloaded; null = none is. */
    readonly keepAliveMs: number | null;
    /** For all loaded models together; null = most of what is free. */
    readonly memoryBytes: number | null;
  };
  readonly models: {
    /** Named explicitly; `id` null = the file's stem. */
    readonly files: readonly { readonly id: string | null; readonly path: string }[];
    /** Every GGUF file below it is served too. */
    readonly dir: string;
    /** Ids of models that are loaded at start and stay. */
    readonly pin: readonly string[];
    /** Names that stand for models, as they are at start: a running node follows its config file. */
    readonly aliases: AliasTable;
  };
  /** As it is at start; a running node follows its config file and `PUT /api/v1/config/load-balancing`. */
  readonly loadBalancing: LoadBalancing;
  /** Servers beside those of `meshnode backends add`; a running node follows its config file. */
  readonly upstreams: readonly Upstream[];
  /** FIRST's fixtures: `prefer`: a queued model or one that could start on free nodes. `groups`: null = nobody is asked. */
  readonly federation: {
    readonly prefer: 'queued' | 'free';
    readonly groups: readonly string[] | null;
    /** Clusters that take no requests. */
    readonly maintenance: readonly string[];
    /** Of one caller below `/resource_server`; 0 = no limit. */
    readonly requestsPerSecond: number;
  };
  /** Where remote functions push streamed answers, and the file with the secret that they show; null = none. */
  readonly streaming: { readonly publicUrl: string | null; readonly secretFile: string | null };
  readonly secrets: {
    /** Where the keys that this node shows to others are kept; `auto`: the keychain of the system where it works. */
    readonly store: SecretStoreChoice;
    /** File whose first line opens the encrypted store; null = asked for at a terminal. */
    readonly passphraseFile: string | null;
  };
  readonly log: { readonly format: 'pretty' | 'json'; readonly level: LogLevel };
}

/** Flags as given: every value in order of appearance; a switch such as `--no-mdns` has the value `true`. */
export type FlagValues = Readonly<Record<string, readonly string[]>>;

export interface ConfigInput {
  readonly flags: FlagValues;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Relative paths of flags and environment are resolved against it. */
  readonly cwd: string;
  readonly home: string;
  readonly hostName: string;
}

export interface LoadedConfig {
  readonly config: Config;
  /** Where each setting's value came from, by its key in the config file. */
  readonly origins: Readonly<Record<SettingKey, Origin>>;
  /** Where the config file is looked for. */
  readonly path: string;
  /** The config file that was read, null when there is none. */
  readonly file: string | null;
}

type Values = Record<SettingKey, SettingValue>;

/**
 * Reads the config file (if any) and merges the four sources.
 *
 * @throws MeshError `invalid_request` with one line that names the flag, variable or key, its value and what is expected.
 */
export function loadConfig(input: ConfigInput): LoadedConfig {
  refuseUnknownVariables(input.env);
  return mergeConfig(input, readConfigFile(configPath(input)));
}

/**
 * `loadConfig` with this content of the config file, whatever is on disk.
 *
 * @throws MeshError like it.
 */
export function mergeConfig(input: ConfigInput, file: ConfigFile | null): LoadedConfig {
  const values: Partial<Values> = {};
  const origins: Partial<Record<SettingKey, Origin>> = {};
  for (const setting of SETTINGS) {
    const origin = originOf(setting, input, file?.values ?? {});
    origins[setting.key] = origin;
    values[setting.key] = pickValue(setting, origin, input, file);
  }
  const config = assemble(values as Values, input);
  refuseContradictions(config, origins as Record<SettingKey, Origin>);
  return {
    config: deepFreeze(config),
    origins: origins as Record<SettingKey, Origin>,
    path: configPath(input).path,
    file: file?.path ?? null,
  };
}

function originOf(setting: Setting, input: ConfigInput, file: Readonly<Record<string, unknown>>): Origin {
  if ((input.flags[setting.flag]?.length ?? 0) > 0) return 'flag';
  // An empty variable counts as absent, so that `MESHNODE_PORT= meshnode start` means the default.
  if ((input.env[setting.env] ?? '') !== '') return 'env';
  return Object.hasOwn(file, setting.key) ? 'file' : 'default';
}

function pickValue(
  setting: Setting,
  origin: Origin,
  input: ConfigInput,
  file: { path: string; values: Readonly<Record<string, unknown>> } | null,
): SettingValue {
  switch (origin) {
    case 'flag':
      return valueFromJson(setting, origin, textToJson(setting, origin, input.flags[setting.flag] ?? []), input);
    case 'env': {
      const text = input.env[setting.env] ?? '';
      const parts = setting.kind === 'list' ? text.split(',').filter((part) => part.trim() !== '') : [text];
      return valueFromJson(setting, origin, textToJson(setting, origin, parts), input);
    }
    case 'file':
      return valueFromJson(setting, origin, file?.values[setting.key], { ...input, file: file?.path ?? '' });
    case 'default':
      return setting.fallback;
  }
}

function assemble(values: Values, input: ConfigInput): Config {
  const text = (key: SettingKey): string => values[key] as string;
  const list = (key: SettingKey): readonly string[] => values[key] as readonly string[];
  const dataDir = (values['dataDir'] as string | null) ?? defaultDataDir(input);
  return {
    name: (values['name'] as string | null) ?? (input.hostName.slice(0, 64) || 'node'),
    dataDir,
    facade: {
      host: text('facade.host'),
      port: values['facade.port'] as number,
      apiKeyFile: values['facade.apiKeyFile'] as string | null,
      allowHosts: list('facade.allowHosts'),
      allowOrigins: list('facade.allowOrigins'),
    },
    network: {
      listen: list('network.listen'),
      peers: list('network.peers'),
      mdns: values['network.mdns'] as boolean,
      dht: values['network.dht'] as boolean,
    },
    engine: {
      gpu: text('engine.gpu') as GpuChoice,
      contextTokens: values['engine.contextTokens'] as number | null,
      parallel: values['engine.parallel'] as number,
      keepAliveMs: finiteOrNull(durationMs(text('engine.keepAlive'))),
      memoryBytes: sizeBytes((values['engine.memory'] as string | null) ?? ''),
    },
    models: {
      files: list('models.files').map((entry) => splitNamed(entry)),
      dir: (values['models.dir'] as string | null) ?? `${dataDir}/models`,
      pin: list('models.pin'),
      aliases: checkedAliases(values['models.aliases'] as AliasTable),
    },
    loadBalancing: {
      enabled: values['loadBalancing.enabled'] as boolean,
      strategy: text('loadBalancing.strategy') as StrategyName,
      failoverEnabled: values['loadBalancing.failoverEnabled'] as boolean,
      midStream: values['failover.midStream'] as boolean,
    },
    upstreams: values['upstreams'] as readonly Upstream[],
    federation: {
      prefer: text('federation.prefer') as 'queued' | 'free',
      groups: list('federation.groups').length === 0 ? null : list('federation.groups'),
      maintenance: list('federation.maintenance'),
      requestsPerSecond: values['federation.requestsPerSecond'] as number,
    },
    streaming: {
      publicUrl: values['streaming.publicUrl'] as string | null,
      secretFile: values['streaming.secretFile'] as string | null,
    },
    secrets: {
      store: text('secrets.store') as SecretStoreChoice,
      passphraseFile: values['secrets.passphraseFile'] as string | null,
    },
    log: { format: text('log.format') as 'pretty' | 'json', level: text('log.level') as LogLevel },
  };
}

function finiteOrNull(value: number | null): number | null {
  return value === Number.POSITIVE_INFINITY ? null : value;
}

/** Rules that span settings. */
function refuseContradictions(config: Config, origins: Record<SettingKey, Origin>): void {
  if (!isLoopback(config.facade.host) && config.facade.apiKeyFile === null) {
    const source = where('facade.host', origins['facade.host']);
    throw new MeshError(
      'invalid_request',
      `${source} is ${config.facade.host}, which other machines can reach: that needs --api-key-file FILE as well`,
      { param: 'facade.host' },
    );
  }
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host);
}

function refuseUnknownVariables(env: ConfigInput['env']): void {
  const known = ['MESHNODE_CONFIG', ...SETTINGS.map((setting) => setting.env)];
  for (const name of Object.keys(env)) {
    if (!name.startsWith('MESHNODE_') || known.includes(name)) continue;
    const nearest = nearestName(name, known);
    throw new MeshError(
      'invalid_request',
      `${name}: no such setting${nearest === null ? '' : `; did you mean ${nearest}?`}`,
      {
        param: name,
      },
    );
  }
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) for (const inner of Object.values(value)) deepFreeze(inner);
  return Object.freeze(value);
}
