/** `meshnode config set`: keys of the config file, changed in one step or not at all. */
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, realpathSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { MeshError } from './common/errors.ts';
import { type ConfigInput, type LoadedConfig, mergeConfig } from './config.ts';
import { readConfigFile } from './config-file.ts';
import type { Setting, SettingKey, SettingValue } from './config-setting.ts';
import { SETTINGS } from './config-settings.ts';
import { configPath, nearestName } from './config-text.ts';
import { textToJson, valueFromJson, where } from './config-values.ts';

/** What became of an edit. */
export interface ConfigEdit {
  readonly key: SettingKey;
  /** As the file now holds it; null = removed. */
  readonly value: SettingValue;
  readonly path: string;
  /** A running node takes it over at once. */
  readonly live: boolean;
  /** The variable of this environment that wins over the file, or null. */
  readonly overriddenBy: string | null;
}

const EDITABLE = SETTINGS.filter((setting) => setting.key !== 'upstreams');

/**
 * The setting of this key.
 *
 * @throws MeshError `invalid_request` that names the nearest key.
 */
export function settingOf(key: string): Setting {
  const known = EDITABLE.find((setting) => setting.key === key);
  if (known !== undefined) return known;
  const keys = EDITABLE.map((setting) => setting.key);
  const lastNames = keys.map((each) => each.slice(each.lastIndexOf('.') + 1));
  const byLast = nearestName(key.slice(key.lastIndexOf('.') + 1), lastNames);
  const nearest = nearestName(key, keys) ?? (byLast === null ? null : (keys[lastNames.indexOf(byLast)] ?? null));
  const hint = nearest === null ? 'see meshnode config show' : `did you mean ${nearest}?`;
  throw new MeshError('invalid_request', `there is no setting ${key.slice(0, 100)}: ${hint}`, { param: key });
}

/**
 * Writes texts by key (lists: separated by commas; null: removes the key) into the config file, made where absent.
 *
 * @throws MeshError `invalid_request` when the value, or the configuration with it, is not valid; the file is
 *   untouched then.
 */
export function editConfig(
  input: ConfigInput,
  changes: Readonly<Record<string, string | null>>,
): readonly ConfigEdit[] {
  const { path: file } = configPath(input);
  const values: Record<string, unknown> = { ...readConfigFile({ path: file, named: false })?.values };
  const edits = Object.entries(changes).map(([key, text]) => {
    const setting = settingOf(key);
    const value = text === null ? null : checkedValue(setting, text, input);
    if (value === null) delete values[setting.key];
    else values[setting.key] = value;
    return { key: setting.key, value, path: file, live: setting.live };
  });
  const { origins } = mergeConfig(input, { path: file, values });
  replaceFile(file, `${JSON.stringify(nested(values), null, 2)}\n`);
  return edits.map((edit) => {
    const origin = origins[edit.key];
    return { ...edit, overriddenBy: origin === 'flag' || origin === 'env' ? where(edit.key, origin) : null };
  });
}

/** Settings that the file has elsewhere than the configuration. */
const ELSEWHERE: Partial<Record<SettingKey, string>> = { 'failover.midStream': 'loadBalancing.midStream' };

/** The value in force of a setting, as `config get` shows it. */
export function settingValue(loaded: LoadedConfig, key: SettingKey): unknown {
  return (ELSEWHERE[key] ?? key)
    .split('.')
    .reduce<unknown>((at, part) => (at as Record<string, unknown>)[part], loaded.config);
}

/** Checked as a flag would be, so that paths belong to the working directory of whoever types them. */
function checkedValue(setting: Setting, text: string, input: ConfigInput): SettingValue {
  const parts = text.split(',').filter((part) => part.trim() !== '');
  const asFlag = (): unknown => textToJson(setting, 'flag', setting.kind === 'list' ? parts : [text]);
  try {
    // A switch is the negation of its key: --no-mdns, but network.mdns.
    const json = setting.kind === 'switch' ? textToJson(setting, 'flag', [text]) !== true : asFlag();
    return valueFromJson(setting, 'flag', json, input);
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    const message = error.message.replace(`--${setting.flag} `, `${setting.key} `);
    throw new MeshError('invalid_request', message, { param: setting.key });
  }
}

/** Dotted keys as objects in objects, in the order of the table of settings. */
function nested(values: Readonly<Record<string, unknown>>): object {
  const root: Record<string, unknown> = {};
  for (const { key } of SETTINGS) {
    if (!Object.hasOwn(values, key)) continue;
    const [section = '', name] = key.split('.');
    if (name === undefined) root[section] = values[key];
    else root[section] = { ...(root[section] as object | undefined), [name]: values[key] };
  }
  return root;
}

/** Readers see the old or the new content. A link to the file stays a link; its mode stays its mode. */
function replaceFile(file: string, text: string): void {
  try {
    mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
    const existing = statSync(file, { throwIfNoEntry: false });
    const target = existing === undefined ? file : realpathSync(file);
    const temporary = `${target}.${randomBytes(6).toString('hex')}.tmp`;
    try {
      writeFileSync(temporary, text, { flag: 'wx', mode: 0o600, flush: true });
      if (existing !== undefined) chmodSync(temporary, existing.mode & 0o777);
      renameSync(temporary, target);
    } catch (error) {
      rmSync(temporary, { force: true });
      throw error;
    }
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? 'error';
    throw new MeshError('invalid_request', `${file}: cannot be written (${code})`, { cause, param: 'config' });
  }
}
