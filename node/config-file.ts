/** The config file: one JSON object whose shape is that of `Config`. */
import { readFileSync, statSync } from 'node:fs';
import { MeshError } from './common/errors.ts';
import { SETTINGS } from './config-settings.ts';
import { nearestName } from './config-text.ts';

const MAX_FILE_BYTES = 1024 * 1024;
const KEYS: readonly string[] = SETTINGS.map((setting) => setting.key);

/** A config file as it was read: values by dotted key, not checked yet. */
export interface ConfigFile {
  readonly path: string;
  readonly values: Readonly<Record<string, unknown>>;
}

/**
 * Reads the file. Absent is null unless the user named it.
 *
 * @throws MeshError `invalid_request` for an unreadable file, bad JSON or an unknown key, naming the nearest known one.
 */
export function readConfigFile(from: { readonly path: string; readonly named: boolean }): ConfigFile | null {
  const text = readText(from);
  if (text === null) return null;
  const json = parse(from.path, text);
  if (!isObject(json)) throw bad(`${from.path}: expected one JSON object, as in config.example.json`);
  const values: Record<string, unknown> = {};
  collect(from.path, json, '', values);
  return { path: from.path, values };
}

function readText(from: { readonly path: string; readonly named: boolean }): string | null {
  try {
    if (statSync(from.path).size > MAX_FILE_BYTES) throw bad(`${from.path}: a config file has at most 1 MiB`);
    return readFileSync(from.path, 'utf8');
  } catch (error) {
    if (error instanceof MeshError) throw error;
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' && !from.named) return null;
    const reason = code === 'ENOENT' ? 'there is no such file; check --config' : `cannot be read (${code})`;
    throw bad(`${from.path}: ${reason}`, error);
  }
}

function parse(path: string, text: string): unknown {
  try {
    return JSON.parse(text.replace(/^\uFEFF/, ''));
  } catch (error) {
    throw bad(`${path}: not valid JSON: ${(error as Error).message.replace(/\s+/g, ' ')}`, error);
  }
}

function collect(path: string, object: object, prefix: string, into: Record<string, unknown>): void {
  for (const [name, value] of Object.entries(object)) {
    const key = prefix + name;
    if (KEYS.includes(key)) {
      // null says "as if it were not here", like the absent optional values of `meshnode config show --json`.
      if (value !== null) into[key] = value;
    } else if (KEYS.some((known) => known.startsWith(`${key}.`))) {
      if (!isObject(value)) throw bad(`${path}: ${key} is ${JSON.stringify(value)}: expected an object`);
      collect(path, value, `${key}.`, into);
    } else {
      const nearest = nearestKey(key, name);
      throw bad(`${path}: unknown key ${key}${nearest === null ? '' : `; did you mean ${nearest}?`}`);
    }
  }
}

/** Near as a whole, or the right last name in the wrong place (`port` for `facade.port`). */
function nearestKey(key: string, name: string): string | null {
  const whole = nearestName(key, KEYS);
  if (whole !== null) return whole;
  const lastNames = KEYS.map((known) => known.slice(known.lastIndexOf('.') + 1));
  const last = nearestName(name, lastNames);
  return last === null ? null : (KEYS[lastNames.indexOf(last)] ?? null);
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function bad(message: string, cause?: unknown): MeshError {
  return new MeshError('invalid_request', message, { param: 'config', cause });
}
