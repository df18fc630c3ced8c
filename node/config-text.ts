/** Small pure readings of the texts that settings are made of. */
import { isIP } from 'node:net';
import path from 'node:path';
import { durationMs, sizeBytes } from './config-amounts.ts';
import type { SettingForm } from './config-setting.ts';

interface Places {
  readonly flags: Readonly<Record<string, readonly string[]>>;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  readonly home: string;
}

const MODEL_ID = /^[A-Za-z0-9][A-Za-z0-9._:/@+ -]{0,255}$/;

/** The data dir when none is set: `$XDG_DATA_HOME/meshnode`, by default `~/.local/share/meshnode`. */
export function defaultDataDir(places: Pick<Places, 'env' | 'home'>): string {
  return path.join(xdgHome(places, 'XDG_DATA_HOME', '.local/share'), 'meshnode');
}

/** Which config file to read; `named` ones must exist, the default one (`$XDG_CONFIG_HOME/meshnode/config.json`) may be absent. */
export function configPath(places: Places): { readonly path: string; readonly named: boolean } {
  const given = places.flags['config']?.at(-1) ?? places.env['MESHNODE_CONFIG'] ?? '';
  if (given !== '') return { path: absolutePath(given, places.cwd, places.home), named: true };
  return { path: path.join(xdgHome(places, 'XDG_CONFIG_HOME', '.config'), 'meshnode/config.json'), named: false };
}

function xdgHome(places: Pick<Places, 'env' | 'home'>, variable: string, fallback: string): string {
  const given = places.env[variable] ?? '';
  // The XDG specification: a relative path there is invalid and ignored.
  return path.isAbsolute(given) ? given : path.join(places.home, fallback);
}

/** `text` against `base`; a leading `~/` is the home directory. */
export function absolutePath(text: string, base: string, home: string): string {
  if (text === '~') return home;
  return text.startsWith('~/') ? path.join(home, text.slice(2)) : path.resolve(base, text);
}

/** `ID=PATH` or `PATH`. What begins with `/`, `.` or `~` is a path, whatever follows, so `./a=b.gguf` names a file. */
export function splitNamed(text: string): { readonly id: string | null; readonly path: string } {
  const at = text.indexOf('=');
  if (at < 0 || text.startsWith('/') || text.startsWith('.') || text.startsWith('~')) return { id: null, path: text };
  return { id: text.slice(0, at), path: text.slice(at + 1) };
}

/** Is `text` of this form? */
export function hasForm(form: SettingForm, text: string): boolean {
  switch (form) {
    case 'any':
    // Read by a file of its own.
    case 'upstream':
      return true;
    case 'host':
      return text === 'localhost' || isIP(text) !== 0;
    case 'host-name':
      return /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)(:\d{1,5})?$/.test(text);
    case 'listen':
      return isTcpMultiaddr(text, 0);
    case 'peer':
      return isTcpMultiaddr(text, 1);
    case 'model': {
      const { id, path: file } = splitNamed(text);
      return file !== '' && !file.includes('\0') && (id === null || MODEL_ID.test(id));
    }
    case 'model-id':
      return MODEL_ID.test(text);
    case 'duration':
      return durationMs(text) !== null;
    case 'size':
      return (sizeBytes(text) ?? 0) > 0;
    case 'origin':
      return /^https?:\/\//.test(text) && URL.canParse(text) && new URL(text).origin === text;
  }
}

function isTcpMultiaddr(text: string, minPort: number): boolean {
  const match = /^\/(ip4|ip6|dns|dns4|dns6)\/([^/]+)\/tcp\/(\d{1,5})(\/p2p\/[A-Za-z0-9]{16,128})?$/.exec(text);
  if (match === null) return false;
  const [, protocol = '', host = '', port = ''] = match;
  const family = isIP(host);
  if (protocol === 'ip4' ? family !== 4 : protocol === 'ip6' ? family !== 6 : family !== 0) return false;
  return Number(port) >= minPort && Number(port) <= 65_535;
}

/** The known name most like `name`, or null when none is near: at most 3 edits and fewer than half of its letters. */
export function nearestName(name: string, known: readonly string[]): string | null {
  let best: string | null = null;
  let bestEdits = Math.min(3, Math.ceil(name.length / 2) - 1) + 1;
  for (const candidate of known) {
    const edits = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (edits < bestEdits) [best, bestEdits] = [candidate, edits];
  }
  return best;
}

/** Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`. */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1] ? 0 : 1;
      let edits = Math.min(
        (previous[column] ?? 0) + 1,
        (current[column - 1] ?? 0) + 1,
        (previous[column - 1] ?? 0) + same,
      );
      const swapped = row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      if (swapped) edits = Math.min(edits, (before[column - 2] ?? 0) + 1);
      current.push(edits);
    }
    [before, previous] = [previous, current];
  }
  return previous[b.length] ?? 0;
}
