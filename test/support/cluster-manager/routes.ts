/** The calls of the stand-in manager, once they are known to be signed well. */
import type { AppProxy } from './app-proxy.ts';
import { badParameters, noSuch, Problem } from './problem.ts';
import type { Folder, Service, Services } from './services.ts';
import { SESSION_STATES, type Sessions } from './sessions.ts';

type Body = Readonly<Record<string, unknown>>;

export interface ManagerRoutesComponents {
  readonly sessions: Sessions;
  readonly services: Services;
  readonly app: AppProxy;
  readonly nowMs: () => number;
}

export class ManagerRoutes {
  readonly #components: ManagerRoutesComponents;
  readonly #sessionPrefix: 'session' | 'kernel';

  /** Majors up to 4 know `/kernel` only. */
  constructor(
    components: ManagerRoutesComponents,
    { sessionPrefix }: { readonly sessionPrefix: 'session' | 'kernel' },
  ) {
    this.#components = components;
    this.#sessionPrefix = sessionPrefix;
  }

  /** The answer to a call that was signed well; undefined: 204. @throws Problem. */
  answer(accessKey: string, method: string, { pathname, searchParams }: URL, text: string): object | undefined {
    const [, first = '', ...rest] = pathname.split('/');
    const body = (): Body => parsed(text);
    if (first === 'auth' && rest[0] === 'test' && method === 'GET') {
      return { authorized: 'yes', echo: searchParams.get('echo') };
    }
    if (first === 'auth' && rest[0] === 'role' && method === 'GET') return { global_role: 'user', domain_role: 'user' };
    if (first === 'folders' && method === 'GET' && rest.length === 0)
      return this.#components.services.folders.map(shownFolder);
    if (first === 'services') return this.#service(accessKey, method, rest, searchParams, body);
    if (first === this.#sessionPrefix) return this.#session(accessKey, method, rest, searchParams, body);
    if (first === 'admin' && rest[0] === 'graphql' && method === 'POST') return this.#graphql(accessKey, body());
    throw new Problem(404, 'url-not-found', 'No such API.', `${method} ${pathname}`);
  }

  #service(
    accessKey: string,
    method: string,
    rest: readonly string[],
    query: URLSearchParams,
    body: () => Body,
  ): object {
    const [id, action] = rest;
    const { services } = this.#components;
    if (id === undefined) {
      if (method === 'POST') return this.#listed(services.create(accessKey, body()));
      const name = query.get('name');
      const own = services.all.filter((each) => each.accessKey === accessKey && (name === null || each.name === name));
      return own.map((each) => this.#listed(each));
    }
    const service = services.get(accessKey, id);
    switch (`${method} ${action ?? ''}`) {
      case 'GET ':
        return this.#detail(service);
      case 'DELETE ':
        return services.delete(service);
      case 'POST scale':
        return services.scale(service, body()['to']);
      case 'POST token':
        return services.token(service, body(), this.#components.nowMs());
      case 'GET errors':
        return { errors: service.errors.map((error) => ({ session_id: null, error: { repr: error } })), retries: 1 };
      default:
        throw new Problem(404, 'url-not-found', 'No such API.');
    }
  }

  #listed(service: Service): object {
    const { id, name, desired, active, isPublic } = service;
    const counts = { desired_session_count: desired, active_route_count: active };
    return { id, name, ...counts, service_endpoint: this.#components.app.endpointOf(service), is_public: isPublic };
  }

  #detail(service: Service): object {
    const { id, name, desired, active, isPublic } = service;
    const routes = Array.from({ length: active }, (_, index) => {
      return { route_id: `${id}-${index}`, session_id: `${id}-s${index}`, traffic_ratio: 1 };
    });
    const common = { service_endpoint: this.#components.app.endpointOf(service), is_public: isPublic };
    return { endpoint_id: id, name, desired_session_count: desired, active_routes: routes, ...common };
  }

  #session(
    accessKey: string,
    method: string,
    rest: readonly string[],
    query: URLSearchParams,
    body: () => Body,
  ): object | undefined {
    const { sessions } = this.#components;
    const isCreate = this.#sessionPrefix === 'kernel' ? rest.join('/') === 'create' : rest.length === 0;
    if (method === 'POST' && isCreate) return sessions.create(accessKey, body());
    const [name, action] = rest;
    if (name === undefined) throw noSuch('session', 'no name');
    const session = sessions.get(accessKey, decodeURIComponent(name));
    switch (`${method} ${action ?? ''}`) {
      case 'GET ':
        return sessions.shown(session);
      case 'GET logs':
        return { result: { logs: session.logs } };
      case 'POST ':
        return sessions.execute(session, body());
      case 'DELETE ':
        return sessions.destroy(session, query.get('forced') === 'true');
      default:
        throw new Problem(404, 'url-not-found', 'No such API.');
    }
  }

  #graphql(accessKey: string, { query, variables }: Body): object {
    if (typeof query !== 'string' || !query.includes('compute_session_list')) throw badParameters('only that list');
    const { limit, offset, status } = (variables ?? {}) as { limit?: number; offset?: number; status?: string };
    if (!Number.isInteger(limit) || !Number.isInteger(offset)) throw badParameters('limit and offset are required');
    const rows = this.#components.sessions.rows(accessKey, status?.split(',') ?? SESSION_STATES);
    const items = rows.slice(offset, (offset ?? 0) + (limit ?? 0));
    return { compute_session_list: { items, total_count: rows.length } };
  }
}

function shownFolder({ id, name, usage_mode }: Folder): object {
  return {
    id,
    name,
    usage_mode,
    permission: 'rw',
    is_owner: true,
    type: 'user',
    status: 'ready',
    host: 'local:volume1',
  };
}

function parsed(text: string): Body {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null) return value as Body;
  } catch {
    // Said below.
  }
  throw badParameters('the body is no JSON object');
}
