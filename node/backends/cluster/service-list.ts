/** The model services of a cluster, as its manager lists them. Pure. */
import { isIP } from 'node:net';
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import { MeshError, toMeshError } from '../../common/errors.ts';
import { parseClusterUrl } from '../../storage/cluster-registry.ts';
import { hostOf } from '../../storage/node-url.ts';

/** A service that answers now. */
export interface ServiceFacts {
  readonly id: string;
  /** Unique within its list. */
  readonly name: string;
  /** OpenAI's API is below it; without trailing slash and `/v1`. */
  readonly url: string;
  /** It wants no token. */
  readonly isPublic: boolean;
}

export interface ServiceList {
  readonly usable: readonly ServiceFacts[];
  /** Services that have an address which nothing may be sent to; one sentence each. */
  readonly problems: readonly string[];
}

/** Of which cluster it is. */
export interface ServiceOrigin {
  readonly name: string;
  readonly endpoint: string;
  readonly allowHttp: boolean;
}

const MAX_SERVICES = 256;
const ID = /^[\w-]{1,64}$/;
const NAME = /^[\w.-]{1,64}$/;

/**
 * `GET /services` of a manager: those that have a route and an address.
 *
 * @throws MeshError `upstream_error` when it is no such list.
 */
export function parseServices(json: unknown, origin: ServiceOrigin): ServiceList {
  if (!Array.isArray(json)) throw new MeshError('upstream_error', `${origin.name} gave no list of services`);
  const usable = new Map<string, ServiceFacts>();
  const problems: string[] = [];
  for (const item of json.slice(0, MAX_SERVICES) as unknown[]) {
    const raw = readService(item);
    if (raw === null) continue;
    const name = NAME.test(raw.name) && !usable.has(raw.name) ? raw.name : raw.id;
    try {
      const url = serviceUrl(raw.endpoint, origin).href.replace(/\/$/, '');
      usable.set(name, { id: raw.id, name, url, isPublic: raw.isPublic });
    } catch (error) {
      problems.push(`service ${name}: ${toMeshError(error).message}`);
    }
  }
  return { usable: [...usable.values()], problems };
}

function readService(
  item: unknown,
): { readonly id: string; readonly name: string; readonly endpoint: string; readonly isPublic: boolean } | null {
  if (!isRecord(item)) return null;
  const { id, name, service_endpoint: endpoint, active_route_count: routes, is_public: isPublic } = item;
  if (typeof id !== 'string' || !ID.test(id)) return null;
  if (typeof routes !== 'number' || !(routes > 0)) return null;
  if (typeof endpoint !== 'string' || endpoint === '') return null;
  return { id, name: typeof name === 'string' ? name : id, endpoint, isPublic: isPublic === true };
}

/** A manager elsewhere has no business with what listens on the loopback of this machine. */
function serviceUrl(endpoint: string, { endpoint: manager, allowHttp }: ServiceOrigin): URL {
  const url = parseClusterUrl(endpoint, { allowHttp });
  if (!isLoopback(url) || isLoopback(new URL(manager))) return url;
  throw new MeshError('invalid_request', `${url.host} is this machine, not the cluster`);
}

function isLoopback(url: URL): boolean {
  const host = hostOf(url);
  if (isIP(host) === 0) return /(^|\.)localhost$/.test(host);
  return host.startsWith('127.') || host === '::1' || host.startsWith('::ffff:7f');
}
