/** Reads the text of a status manifest from a file or over HTTP, with every redirect checked. */
import { readFile, stat } from 'node:fs/promises';
import type { Clock } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';
import { boundaryOf, parseManifestUrl } from '../../storage/node-url.ts';
import { MAX_MANIFEST_BYTES } from '../../storage/status-manifest.ts';
import { HttpClient, type HttpLimits } from './http-client.ts';
import { readText } from './read-text.ts';

const LIMITS: HttpLimits = { connectMs: 3000, headersMs: 10_000, silenceMs: 5000 };
const MAX_REDIRECTS = 3;
const NAME = 'its status manifest';

/** Is it read from the disk of this node? */
export const isManifestFile = (manifest: string): boolean => !/^https?:/i.test(manifest);

/**
 * `manifest`: an absolute path, or a URL that is asked without any key. A redirect may lead neither to a link-local or
 * metadata address, nor from https to http, nor from the internet into a private network.
 *
 * @throws MeshError `invalid_request` (file, forbidden redirect), `peer_unreachable`, `upstream_error`.
 */
export async function readManifest(
  { clock }: { readonly clock: Clock },
  { manifest, signal }: { readonly manifest: string; readonly signal: AbortSignal },
): Promise<string> {
  if (isManifestFile(manifest)) return await readManifestFile(manifest);
  let url = parseManifestUrl(manifest);
  for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects += 1) {
    const found = await ask(clock, url, signal);
    if (typeof found === 'string') return found;
    url = checkedRedirect(url, found);
  }
  throw new MeshError('upstream_error', `${NAME} redirects more than ${MAX_REDIRECTS} times`);
}

async function readManifestFile(path: string): Promise<string> {
  try {
    if ((await stat(path)).size > MAX_MANIFEST_BYTES) throw new Error(`larger than ${MAX_MANIFEST_BYTES} bytes`);
    return await readFile(path, 'utf8');
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code ?? (cause as Error).message;
    throw new MeshError('invalid_request', `${NAME} cannot be read (${reason})`, { cause });
  }
}

/** The text, or where it is said to be. */
async function ask(clock: Clock, url: URL, signal: AbortSignal): Promise<string | URL> {
  const options = { name: NAME, url: url.origin, publicOnly: boundaryOf(url) === 'public' };
  const client = new HttpClient({ clock }, options);
  try {
    const headers = { accept: 'application/json' };
    const answer = await client.call({ method: 'GET', path: `${url.pathname}${url.search}`, headers }, LIMITS, signal);
    try {
      const { location } = answer.headers;
      const isRedirect = [301, 302, 303, 307, 308].includes(answer.status) && location !== undefined;
      if (isRedirect) return URL.parse(location, url.href) ?? refused('to something that is no URL');
      if (answer.status === 200) return await readText(answer.body, MAX_MANIFEST_BYTES, NAME);
      throw new MeshError('upstream_error', `${NAME} answered ${answer.status}`, { httpStatus: answer.status });
    } finally {
      answer.close();
    }
  } finally {
    client.destroy();
  }
}

function checkedRedirect(from: URL, to: URL): URL {
  let next: URL;
  try {
    next = parseManifestUrl(to.href);
  } catch {
    return refused('to a link-local or metadata address, or to no web address');
  }
  if (from.protocol === 'https:' && next.protocol === 'http:') return refused('from https to http');
  if (boundaryOf(from) === 'public' && boundaryOf(next) !== 'public') return refused('into a private network');
  return next;
}

function refused(where: string): never {
  throw new MeshError('invalid_request', `${NAME} redirects ${where}, which is not followed`);
}
