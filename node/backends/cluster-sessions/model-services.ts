/** Model services of a cluster, and the vFolders that hold their models. */
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import { MeshError } from '../../common/errors.ts';
import { countOf, given, listOf, type ManagedCluster, objectOf, textOf } from './manager-caller.ts';
import type { ResourceDemand } from './resource-demand.ts';

export interface ModelService {
  readonly id: string;
  readonly name: string;
  /** Replicas that somebody wants, and those that answer. */
  readonly desired: number;
  readonly active: number;
  /** Null before the first replica. */
  readonly endpoint: string | null;
  readonly isPublic: boolean;
}

export interface ServiceTemplate extends ResourceDemand {
  /** 4 to 24 letters, digits, `-` and `_`. */
  readonly name: string;
  /** vFolder with the model, by name or id. */
  readonly folder: string;
  readonly replicas: number;
  /** Anybody may use it without a token. */
  readonly isPublic: boolean;
}

/** A vFolder. */
export interface ClusterFolder {
  readonly id: string;
  readonly name: string;
  /** Services take `model` ones only. */
  readonly usage: string;
  readonly permission: string;
  readonly host: string;
}

/** What a model wants at the least; whoever knows better says so. */
export const SERVICE_RESOURCES = { cpu: '4', mem: '32g', 'cuda.shares': '1' };

const CREATE_MS = 30_000;

export class ModelServices {
  readonly #components: ManagedCluster;

  constructor(components: ManagedCluster) {
    this.#components = components;
  }

  /** All that the key may see. */
  async list(signal: AbortSignal): Promise<readonly ModelService[]> {
    const { manager, cluster } = this.#components;
    return listOf(await manager.call<unknown>({ method: 'GET', path: '/services' }, signal), cluster).map(readService);
  }

  /** By name, which is its key's own; null when there is none. */
  async find(name: string, signal: AbortSignal): Promise<ModelService | null> {
    const { manager, cluster } = this.#components;
    const path = `/services?name=${encodeURIComponent(name)}`;
    const found = listOf(await manager.call<unknown>({ method: 'GET', path }, signal), cluster).map(readService);
    return found.find((each) => each.name === name) ?? null;
  }

  /** By name or id. @throws MeshError `not_found` that names what there is. */
  async get(nameOrId: string, signal: AbortSignal): Promise<ModelService> {
    const all = await this.list(signal);
    const found = all.find(({ name }) => name === nameOrId) ?? all.find(({ id }) => id === nameOrId);
    if (found !== undefined) return found;
    const names = all.map(({ name }) => name).slice(0, 20);
    const there = names.length === 0 ? 'there is none' : `there are: ${names.join(', ')}`;
    throw new MeshError('not_found', `${this.#components.cluster} has no service "${nameOrId}"; ${there}`);
  }

  /** @throws MeshError `invalid_request` (name, folder, quota), as the manager says. */
  async create(template: ServiceTemplate, signal: AbortSignal): Promise<ModelService> {
    checkServiceName(template.name);
    const { manager, cluster } = this.#components;
    const ask = { method: 'POST', path: '/services', body: creation(template), timeoutMs: CREATE_MS } as const;
    const answer = objectOf(await manager.call<unknown>(ask, signal), cluster);
    // Some managers tell no more than the id.
    return { ...readService(answer), name: template.name, desired: template.replicas };
  }

  /** 0 parks it. */
  async scale(id: string, to: number, signal: AbortSignal): Promise<void> {
    const path = `/services/${encodeURIComponent(id)}/scale`;
    await this.#components.manager.call<unknown>({ method: 'POST', path, body: { to } }, signal);
  }

  async delete(id: string, signal: AbortSignal): Promise<void> {
    const path = `/services/${encodeURIComponent(id)}`;
    await this.#components.manager.call<unknown>({ method: 'DELETE', path }, signal);
  }

  /** What went wrong with its replicas, oldest first, one line each. */
  async problems(id: string, signal: AbortSignal): Promise<readonly string[]> {
    const { manager, cluster } = this.#components;
    const path = `/services/${encodeURIComponent(id)}/errors`;
    const answer = objectOf(await manager.call<unknown>({ method: 'GET', path }, signal), cluster);
    return listOf(answer['errors'] ?? [], cluster).map(problemLine);
  }

  /** Those that the key may see. */
  async folders(signal: AbortSignal): Promise<readonly ClusterFolder[]> {
    const { manager, cluster } = this.#components;
    const found = listOf(await manager.call<unknown>({ method: 'GET', path: '/folders' }, signal), cluster);
    return found.map((fields) => ({
      id: textOf(fields, 'id'),
      name: textOf(fields, 'name'),
      usage: textOf(fields, 'usage_mode') || 'general',
      permission: textOf(fields, 'permission'),
      host: textOf(fields, 'host'),
    }));
  }
}

/** @throws MeshError `invalid_request`. */
export function checkServiceName(name: string): void {
  if (/^[\w-]{4,24}$/.test(name)) return;
  throw new MeshError('invalid_request', 'A service name has 4 to 24 letters, digits, - and _', { param: 'name' });
}

function readService(fields: Readonly<Record<string, unknown>>): ModelService {
  const endpoint = textOf(fields, 'service_endpoint');
  return {
    id: textOf(fields, 'id') || textOf(fields, 'endpoint_id'),
    name: textOf(fields, 'name'),
    desired: countOf(fields, 'desired_session_count'),
    active: countOf(fields, 'active_route_count'),
    endpoint: endpoint === '' ? null : endpoint,
    isPublic: fields['is_public'] === true,
  };
}

function creation(template: ServiceTemplate): object {
  const { name, image, folder, replicas, isPublic, resources, environ, group, domain, scalingGroup, shmem } = template;
  const mount = { model: folder, model_version: 1, model_mount_destination: '/models' };
  const options = shmem === null ? {} : { resource_opts: { shmem } };
  const config = given({ ...mount, environ, scaling_group: scalingGroup, resources, ...options });
  const cluster = { cluster_size: 1, cluster_mode: 'SINGLE_NODE', tag: 'meshnode' };
  return { name, desired_session_count: replicas, image, group, domain, ...cluster, open_to_public: isPublic, config };
}

const MAX_PROBLEM = 300;

function problemLine(fields: Readonly<Record<string, unknown>>): string {
  const { error } = fields;
  const said = isRecord(error) ? textOf(error, 'repr') || textOf(error, 'message') : error;
  const text = typeof said === 'string' && said !== '' ? said : 'it does not say what';
  return text
    .replace(/[\p{C}\s]+/gu, ' ')
    .trim()
    .slice(0, MAX_PROBLEM);
}
