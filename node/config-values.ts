/** From what a user wrote to a checked value, or to one line that says what is wrong with it. */
import path from 'node:path';
import Value from 'typebox/value';
import { MeshError } from './common/errors.ts';
import type { Origin, Setting, SettingKey, SettingValue } from './config-setting.ts';
import { SETTINGS } from './config-settings.ts';
import { absolutePath, hasForm, splitNamed } from './config-text.ts';
import { readUpstreams } from './config-upstreams.ts';

interface Base {
  readonly cwd: string;
  readonly home: string;
  /** Set for values of the config file: relative paths there are relative to it. */
  readonly file?: string;
}

const ON = ['1', 'true', 'yes', 'on'];
const OFF = ['0', 'false', 'no', 'off'];

/** How the user knows a setting in that source, for example `--port`. */
export function where(key: SettingKey, origin: Origin): string {
  const setting = SETTINGS.find((row) => row.key === key);
  if (setting === undefined || origin === 'file' || origin === 'default') return key;
  return origin === 'flag' ? `--${setting.flag}` : setting.env;
}

/**
 * Texts of a flag or variable as the JSON value that the config file would hold. The last one wins unless it is a list.
 *
 * @throws MeshError `invalid_request`.
 */
export function textToJson(setting: Setting, origin: Origin, texts: readonly string[]): unknown {
  if (setting.kind === 'list') return texts;
  const text = texts.at(-1) ?? '';
  if (setting.kind === 'integer') return /^-?\d{1,15}$/.test(text) ? Number(text) : refuse(setting, origin, text);
  if (setting.kind === 'json') return jsonOf(setting, origin, text);
  if (setting.kind !== 'switch') return text;
  const word = text.toLowerCase();
  if (ON.includes(word)) return false;
  return OFF.includes(word) ? true : refuse(setting, origin, text);
}

/**
 * Checks a JSON value against its setting; paths become absolute.
 *
 * @throws MeshError `invalid_request`.
 */
export function valueFromJson(setting: Setting, origin: Origin, json: unknown, base: Base): SettingValue {
  if (!Value.Check(setting.schema, json)) return refuse(setting, origin, json);
  const resolve = (text: string): string =>
    absolutePath(text, base.file === undefined ? base.cwd : path.dirname(base.file), base.home);
  if (setting.form === 'upstream') return readUpstreams(where(setting.key, origin), json as unknown[], resolve);
  const value = json as SettingValue;
  const texts = typeof value === 'string' ? [value] : Array.isArray(value) ? (value as string[]) : [];
  const wrong = texts.find((text) => !hasForm(setting.form, text));
  if (wrong !== undefined) return refuse(setting, origin, wrong);
  if (setting.kind === 'path') return resolve(value as string);
  return setting.form === 'model' ? texts.map((text) => resolveModel(text, resolve)) : value;
}

function jsonOf(setting: Setting, origin: Origin, text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return refuse(setting, origin, text);
  }
}

function resolveModel(text: string, resolve: (text: string) => string): string {
  const model = splitNamed(text);
  return model.id === null ? resolve(model.path) : `${model.id}=${resolve(model.path)}`;
}

function refuse(setting: Setting, origin: Origin, value: unknown): never {
  const shown =
    typeof value === 'string' ? `"${value.replace(/\p{Cc}/gu, '?')}"` : (JSON.stringify(value) ?? 'nothing');
  const cut = shown.length > 200 ? `${shown.slice(0, 200)}…` : shown;
  const expected =
    origin === 'env' && setting.kind === 'switch' ? '1 or 0' : fileExpectation(setting, origin) + setting.expected;
  throw new MeshError('invalid_request', `${where(setting.key, origin)} is ${cut}: expected ${expected}`, {
    param: setting.key,
  });
}

function fileExpectation(setting: Setting, origin: Origin): string {
  return origin === 'file' && setting.kind === 'list' ? 'a list, each element ' : '';
}
