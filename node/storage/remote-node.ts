/** One remote node as its owner described it: the checks of each field, and the shape it has in a file. */
import { isAbsolute } from 'node:path';
import { BOUNDARIES, type Boundary } from '../../protocols/inference/events.ts';
import { MeshError } from '../common/errors.ts';
import { boundaryOf, parseManifestUrl, parseNodeUrl } from './node-url.ts';

/** One remote node. Never holds its key. */
export interface RemoteNode {
  /** A peer's `12D3…`, or `api:<slug>` of a server that speaks HTTP. */
  readonly fingerprint: string;
  /** What people call it; a peer's fingerprint while nobody named it. */
  readonly name: string;
  /** Base URL without `/v1`, credentials or trailing slash; null for peers, and where the manifest names the servers. */
  readonly url: string | null;
  /** -1000 to 1000, higher is preferred. */
  readonly priority: number;
  readonly boundary: Boundary;
  /** Other nodes may use it through this one. Never true of peers. */
  readonly shared: boolean;
  /** Its status manifest: an http or https URL, or an absolute path; null: servers are asked for their models. */
  readonly manifest: string | null;
  /** The environment variable of this node that holds its key; null: the key, if any, is in the store of keys. */
  readonly keyEnv: string | null;
  readonly hasKey: boolean;
  /** `config`: an entry of `upstreams`, to be changed there. */
  readonly origin: 'registry' | 'config';
}

/** As it is kept. */
export type RemoteEntry = Omit<RemoteNode, 'hasKey' | 'origin'>;

/** What its owner says of it; what is absent stays as it is. */
export type RemoteNodePatch = Partial<
  Pick<RemoteNode, 'name' | 'priority' | 'boundary' | 'shared' | 'manifest' | 'keyEnv'>
>;

/** An entry of the setting `upstreams`. */
export interface Upstream extends Omit<RemoteNodePatch, 'name'> {
  readonly name: string;
  /** Absent only beside `manifest`. */
  readonly url?: string;
}

const MAX_PRIORITY = 1000;
const PEER = /^12D3[1-9A-HJ-NP-Za-km-z]{1,80}$/;
const HTTP_NODE = /^api:[a-z0-9][a-z0-9-]{0,63}$/;
/** Letters, digits and punctuation of any language on one line: no control characters, no spaces at the ends. */
const NAME = /^(?! )[^\p{C}\p{Zl}\p{Zp}]{1,64}(?<! )$/u;
const VARIABLE = /^[A-Za-z_][A-Za-z0-9_]{0,127}$/;
const MAX_PATH_CHARS = 4096;

export const isPeer = (fingerprint: string): boolean => PEER.test(fingerprint);

/** A peer of whom nothing was said yet. */
export function newPeer(fingerprint: string): RemoteEntry {
  const unsaid = { shared: false, manifest: null, keyEnv: null };
  return { fingerprint, name: fingerprint, url: null, priority: 0, boundary: 'mesh', ...unsaid };
}

/**
 * What a server is when its owner said no more than `patch`. Its boundary is `mesh` on loopback and private addresses and
 * `public` elsewhere, so also where a manifest names the servers.
 *
 * @throws MeshError `invalid_request`.
 */
export function newServer(
  fingerprint: string,
  { name, url }: { readonly name: string; readonly url: string | null },
  patch: Omit<RemoteNodePatch, 'name'>,
): RemoteEntry {
  const parsed = url === null ? null : parseNodeUrl(url);
  if (parsed === null && (patch.manifest ?? null) === null) throw invalid('Give a URL, or a status manifest', 'url');
  const near: Boundary = parsed === null ? 'public' : boundaryOf(parsed);
  const { priority = 0, boundary = near, shared = false, keyEnv = null } = patch;
  const manifest = checkManifest(patch.manifest ?? null);
  return {
    fingerprint,
    name,
    url: parsed === null ? null : keptUrl(parsed),
    priority,
    boundary,
    shared,
    manifest,
    keyEnv,
  };
}

/** As it is kept and compared. */
export const keptUrl = (url: URL): string => url.href.replace(/\/$/, '');

/** @throws MeshError `invalid_request` that names the field. */
export function checkPatch({ name, priority, boundary, shared, keyEnv }: RemoteNodePatch): void {
  if (priority !== undefined && !(Number.isInteger(priority) && Math.abs(priority) <= MAX_PRIORITY)) {
    throw invalid(`priority must be a whole number from -${MAX_PRIORITY} to ${MAX_PRIORITY}`, 'priority');
  }
  if (boundary !== undefined && !BOUNDARIES.includes(boundary)) {
    throw invalid(`boundary must be one of ${BOUNDARIES.join(', ')}`, 'boundary');
  }
  if (shared !== undefined && typeof shared !== 'boolean') throw invalid('shared must be true or false', 'shared');
  if (keyEnv !== undefined && keyEnv !== null && !(typeof keyEnv === 'string' && VARIABLE.test(keyEnv))) {
    // Not quoted: whoever takes the name for the key would see it in a log.
    throw invalid('keyEnv must be the name of an environment variable, never the key itself', 'keyEnv');
  }
  // A name that looks like a fingerprint would hide the node that has it.
  if (name !== undefined && (!NAME.test(name) || HTTP_NODE.test(name) || PEER.test(name))) {
    throw invalid('A name is 1 to 64 characters on one line, and no fingerprint', 'name');
  }
}

/** Strict: a boundary that was lost to a typing error would let requests go where they must not. @throws Error */
export function parseEntry(json: unknown, where: string): RemoteEntry {
  if (typeof json !== 'object' || json === null) throw new Error(`${where} is no object`);
  const fields = json as Record<string, unknown>;
  const { fingerprint, name = fingerprint, url = null, manifest = null } = fields;
  if (typeof fingerprint !== 'string' || typeof name !== 'string') throw new Error(`${where} has no fingerprint`);
  const hasPlace = typeof url === 'string' || (url === null && typeof manifest === 'string');
  const isHttp = hasPlace && HTTP_NODE.test(fingerprint);
  if (!isHttp && !(url === null && manifest === null && PEER.test(fingerprint))) {
    throw new Error(`${where}: fingerprint and url do not fit`);
  }
  const patch = definedOf(fields);
  checkPatch(name === fingerprint ? patch : { ...patch, name });
  if (isHttp) return newServer(fingerprint, { name, url }, patch);
  return { ...newPeer(fingerprint), ...patch, name, shared: false, manifest: null, keyEnv: null };
}

/** The fields of a patch as a file has them; `checkPatch` is still to come. */
function definedOf({ priority, boundary, shared, manifest, keyEnv }: Record<string, unknown>): RemoteNodePatch {
  return Object.fromEntries(
    Object.entries({ priority, boundary, shared, manifest, keyEnv }).filter(([, value]) => value !== undefined),
  );
}

function checkManifest(manifest: string | null): string | null {
  if (manifest === null) return null;
  if (typeof manifest !== 'string' || manifest.length > MAX_PATH_CHARS)
    throw invalid('This is no manifest', 'manifest');
  if (isAbsolute(manifest) && !manifest.includes('\0')) return manifest;
  return parseManifestUrl(manifest).href;
}

function invalid(message: string, param: string): MeshError {
  return new MeshError('invalid_request', message, { param });
}
