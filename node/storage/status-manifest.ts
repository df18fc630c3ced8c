/** A status manifest, as the FIRST gateway reads it: which servers there are, whether they live, and their models. Pure. */
import { toMeshError } from '../common/errors.ts';
import { parseNodeUrl } from './node-url.ts';
import { keptUrl } from './remote-node.ts';

/** One server of a manifest. `url` and `endpointId` are for this node alone: never show them. */
export interface ManifestEntry {
  /** Its key in the manifest. */
  readonly id: string;
  /** What people call its model; the id where it is not said. */
  readonly title: string;
  /** `Live`; requests go to no other. */
  readonly isLive: boolean;
  /** As the manifest says it: `Live`, `Offline`, `Maintenance`, `Stopped`, … */
  readonly status: string;
  /** Base URL without `/v1` and trailing slash. */
  readonly url: string;
  /** Picks its key. */
  readonly endpointId: string;
  /** Exact model ids. */
  readonly models: readonly string[];
}

/** An entry that cannot be used, and why, without its url. */
export interface BadManifestEntry {
  readonly id: string;
  readonly problem: string;
}

export interface StatusManifest {
  readonly entries: readonly ManifestEntry[];
  readonly bad: readonly BadManifestEntry[];
}

export const MAX_MANIFEST_BYTES = 1024 * 1024;
const MAX_ENTRIES = 256;
const MAX_MODELS = 256;
/** One line without control characters. */
const LINE = /^[^\p{C}\p{Zl}\p{Zp}]{1,256}$/u;

/**
 * Reads the text of a manifest. One bad entry does not void the others.
 *
 * @throws Error with a reason that may be shown when it is none at all.
 */
export function parseManifest(text: string): StatusManifest {
  let json: unknown;
  try {
    json = JSON.parse(text.replace(/^\uFEFF/, '')) as unknown;
  } catch {
    throw new Error('it is no JSON');
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw new Error('it is no JSON object');
  const all = Object.entries(json);
  if (all.length > MAX_ENTRIES) throw new Error(`it has more than ${MAX_ENTRIES} entries`);
  const entries: ManifestEntry[] = [];
  const bad: BadManifestEntry[] = [];
  for (const [id, fields] of all) {
    const read = parseEntry(id, fields as unknown);
    if ('problem' in read) bad.push(read);
    else entries.push(read);
  }
  return { entries, bad };
}

function parseEntry(id: string, json: unknown): ManifestEntry | BadManifestEntry {
  const shownId = LINE.test(id) ? id : 'an entry';
  const refuse = (problem: string): BadManifestEntry => ({ id: shownId, problem });
  if (!LINE.test(id)) return refuse('its name is no single line');
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return refuse('it is no object');
  const { status, model, url, endpoint_id: endpointId, experts } = json as Record<string, unknown>;
  if (typeof status !== 'string' || !LINE.test(status)) return refuse('"status" is missing');
  if (typeof url !== 'string') return refuse('"url" is missing');
  if (typeof endpointId !== 'string' || !LINE.test(endpointId)) return refuse('"endpoint_id" is missing');
  if (!Array.isArray(experts) || experts.length > MAX_MODELS) return refuse('"experts" is no list of model ids');
  const models = experts.filter((expert): expert is string => typeof expert === 'string' && LINE.test(expert));
  if (models.length !== experts.length) return refuse('"experts" holds something that is no model id');
  const base = baseUrl(url);
  if ('problem' in base) return refuse(`"url": ${base.problem}`);
  const title = typeof model === 'string' && LINE.test(model) ? model : id;
  return { id, title, isLive: status === 'Live', status, url: base.url, endpointId, models: [...new Set(models)] };
}

/** The reason of a refusal may name the host, which is not to be shown. */
function baseUrl(url: string): { readonly url: string } | { readonly problem: string } {
  try {
    return { url: keptUrl(parseNodeUrl(url)) };
  } catch (error) {
    const { message } = toMeshError(error);
    return {
      problem: message.includes('link-local') ? 'a link-local, multicast or metadata address' : 'no usable URL',
    };
  }
}
