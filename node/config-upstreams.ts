/** The setting `upstreams`: OpenAI-compatible servers of the configuration, as texts or as objects, never with a key. */
import { fileURLToPath } from 'node:url';
import Type from 'typebox';
import Value from 'typebox/value';
import { MeshError } from './common/errors.ts';
import { type Setting, setting } from './config-setting.ts';
import { nearestName } from './config-text.ts';
import { checkPatch, newServer, type Upstream } from './storage/remote-node.ts';

const NAMED = /^([A-Za-z0-9][A-Za-z0-9._-]{0,63})=(https?:\/\/\S+)$/;
const MAX_UPSTREAMS = 64;
const text = Type.String({ minLength: 1, maxLength: 4096 });
const FIELDS = {
  name: text,
  url: Type.Optional(text),
  keyEnv: Type.Optional(text),
  boundary: Type.Optional(text),
  priority: Type.Optional(Type.Number()),
  shared: Type.Optional(Type.Boolean()),
  manifest: Type.Optional(text),
};
const Fields = Type.Object(FIELDS);

/** For the table of settings. */
export const UPSTREAM_SETTING: Setting = setting({
  key: 'upstreams',
  flag: 'upstream',
  argument: 'NAME=URL',
  kind: 'list',
  form: 'upstream',
  help: 'an OpenAI-compatible server as a backend',
  expected: 'NAME=URL with an http or https URL',
  schema: Type.Array(Type.Unknown(), { maxItems: MAX_UPSTREAMS }),
  fallback: [],
  live: true,
});

/**
 * The servers of one source; `place` is how its owner knows it (`--upstream`). Errors quote names only: a key may stand
 * where none belongs. `resolve` makes paths of manifests absolute.
 *
 * @throws MeshError `invalid_request`.
 */
export function readUpstreams(place: string, list: readonly unknown[], resolve: (path: string) => string): Upstream[] {
  const upstreams = list.map((item) => readUpstream(place, item, resolve));
  const names = upstreams.map(({ name }) => name.toLowerCase());
  const twice = names.find((name, at) => names.indexOf(name) !== at);
  if (twice !== undefined) throw bad(`${place}: "${twice}" is there twice: give each server a name of its own`);
  return upstreams;
}

function readUpstream(place: string, item: unknown, resolve: (path: string) => string): Upstream {
  const fields = typeof item === 'string' ? named(place, item) : item;
  if (typeof fields !== 'object' || fields === null || Array.isArray(fields)) {
    throw bad(`${place}: expected NAME=URL, or an object with name and url`);
  }
  refuseUnknownFields(place, fields);
  if (!Value.Check(Fields, fields)) {
    const wrong = Value.Errors(Fields, fields)[0];
    throw bad(`${place}: ${wrong?.instancePath.slice(1) || 'an object'} ${wrong?.message ?? 'is wrong'}`);
  }
  const { manifest, ...rest } = fields;
  const upstream = {
    ...rest,
    ...(manifest !== undefined && { manifest: locateManifest(manifest, resolve) }),
  } as Upstream;
  const { name, url = null, ...patch } = upstream;
  try {
    checkPatch({ ...patch, name });
    newServer('', { name, url }, patch);
  } catch (error) {
    throw bad(`${place}: ${name.slice(0, 64)}: ${(error as Error).message}`);
  }
  return upstream;
}

function named(place: string, item: string): { readonly name: string; readonly url: string } {
  const [, name, url] = NAMED.exec(item) ?? [];
  if (name !== undefined && url !== undefined) return { name, url };
  const at = item.indexOf('=');
  const shown = at < 0 ? item.replace(/\p{Cc}/gu, '?').slice(0, 100) : `${item.slice(0, Math.min(at, 64))}=…`;
  throw bad(`${place} is "${shown}": expected ${UPSTREAM_SETTING.expected}`);
}

function refuseUnknownFields(place: string, fields: object): void {
  const known = Object.keys(FIELDS);
  const unknown = Object.keys(fields).find((name) => !known.includes(name));
  if (unknown === undefined) return;
  const nearest = nearestName(unknown, known);
  const isKey = /^(api)?[_-]?(key|token|secret)$/i.test(unknown);
  const hint = isKey ? ': name a variable with keyEnv, or use meshnode backends add NAME URL --key-stdin' : '';
  const meant = hint === '' && nearest !== null ? `; did you mean ${nearest}?` : '';
  throw bad(`${place}: unknown key ${unknown.slice(0, 64)}${hint}${meant}`);
}

/** A URL, or the absolute path of a `file:` URL or path. @throws MeshError `invalid_request`. */
export function locateManifest(manifest: string, resolve: (path: string) => string): string {
  if (/^https?:/i.test(manifest)) return manifest;
  if (!/^file:/i.test(manifest)) return resolve(manifest);
  try {
    return fileURLToPath(manifest);
  } catch {
    throw bad(`${manifest.slice(0, 200)}: a file: URL is file:///path`);
  }
}

const bad = (message: string): MeshError => new MeshError('invalid_request', message, { param: 'upstreams' });
