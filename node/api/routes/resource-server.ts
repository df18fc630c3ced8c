/** FIRST's face: its routes under `/resource_server`, in its dialect, over the same dispatcher and guard as all others. */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Dispatcher } from '../../routing/dispatch.ts';
import type { Federation } from '../../routing/federation.ts';
import type { FacadeComponents } from '../components.ts';
import { requireJson } from '../guard-hook.ts';
import {
  type ClusterSources,
  clusterJobs,
  clusterStatus,
  isKnownCluster,
  isPaused,
  listEndpoints,
} from '../resource-server/cluster-views.ts';
import { FirstDispatcher, type FirstDispatcherOptions } from '../resource-server/first-dispatcher.ts';
import { FirstRefusal, sendFirstError } from '../resource-server/first-errors.ts';
import { MESH_CLUSTER, MESH_ENDPOINTS, MESH_FRAMEWORK } from '../resource-server/mesh-cluster.ts';
import { Throttle } from '../resource-server/throttle.ts';
import { addEmbeddingRoutes } from './embeddings.ts';
import { addInferenceRoutes, type InferenceRouteOptions } from './inference.ts';
import { addStreamingCallbacks } from './streaming-callbacks.ts';

export interface ResourceServerOptions extends InferenceRouteOptions {
  readonly federation: Federation;
}

/** Answered by anybody's name: no key is asked for. */
const KEYLESS = { config: { keyless: true } };

type PinnedRequest = FastifyRequest<{ Params: { cluster: string; framework: string; '*'?: string } }>;

/** Adds all of them. */
export function addResourceServer(
  app: FastifyInstance,
  components: FacadeComponents,
  options: ResourceServerOptions,
): void {
  const { federation } = options;
  const meshIsPaused = (): boolean => options.stopping() || components.service?.mode === 'draining';
  const sources: ClusterSources = { ...components, federation, meshIsPaused };
  const throttle = new Throttle(components, federation);
  void app.register(
    async (scope) => {
      speakFirst(scope, components);
      scope.get('/health', KEYLESS, async () => ({ status: 'ok' }));
      scope.get('/status', KEYLESS, async () => clusterStatus(sources));
      if (components.streamCallbacks !== undefined) addStreamingCallbacks(scope, components.streamCallbacks);
      await scope.register(async (limited) => {
        limited.addHook('onRequest', async (request) => checkRate(throttle, request));
        addViews(limited, sources, components);
        addFederated(limited, components, options);
        addPinned(limited, sources, components, options);
      });
    },
    { prefix: '/resource_server' },
  );
}

/** Whatever fails below, the guard's refusals too, is told as FIRST tells it. */
function speakFirst(scope: FastifyInstance, { logger }: FacadeComponents): void {
  scope.setErrorHandler((thrown, request, reply) => {
    const error = sendFirstError(reply, thrown, request.id);
    if (error.code === 'internal_error')
      logger.error({ requestId: request.id, err: error.cause ?? error }, 'request failed');
  });
}

function checkRate(throttle: Throttle, request: FastifyRequest): void {
  const retryAfterMs = throttle.take(callerOf(request));
  if (retryAfterMs === 0) return;
  throw new FirstRefusal('too_many_requests', 'You ask more often than this node allows one caller.', { retryAfterMs });
}

/** All callers of a node show the same key, if any: they are told apart by their addresses. */
const callerOf = (request: FastifyRequest): string => request.ip;

function addViews(scope: FastifyInstance, sources: ClusterSources, components: FacadeComponents): void {
  scope.get('/list-endpoints', async () => listEndpoints(sources));
  scope.get('/whoami', async (request) => {
    const { name, fingerprint } = components.node();
    return { id: callerOf(request), name, node: fingerprint, groups: sources.federation.groups ?? [] };
  });
  scope.get<{ Params: { cluster: string } }>('/:cluster/jobs', async ({ params: { cluster } }) => {
    if (!isKnownCluster(sources, cluster)) throw unknownCluster(cluster);
    checkAccess(sources, cluster);
    return clusterJobs(sources, cluster);
  });
  for (const path of ['/v1/batches', '/v1/batches/*']) scope.get(path, async () => Promise.reject(noBatches()));
}

/** Where a model is asked for by its name alone. */
function addFederated(scope: FastifyInstance, components: FacadeComponents, options: ResourceServerOptions): void {
  const dispatcherFor = (request: FastifyRequest): Dispatcher =>
    firstDispatcher(request, components, { federation: options.federation, place: null });
  const routes = { ...options, dispatcherFor };
  addInferenceRoutes(scope, '/v1', components, routes);
  addEmbeddingRoutes(scope, '/v1', components, { ...routes, loadWaitMs: options.times.loadWaitMs });
}

/** Where the path says which cluster answers. */
function addPinned(
  scope: FastifyInstance,
  sources: ClusterSources,
  components: FacadeComponents,
  options: ResourceServerOptions,
): void {
  const prefix = '/:cluster/:framework/v1';
  void scope.register(async (pinned) => {
    pinned.addHook('onRequest', async (request) => checkPlace(sources, request as PinnedRequest));
    const dispatcherFor = (request: FastifyRequest): Dispatcher => {
      const { cluster, framework } = (request as PinnedRequest).params;
      const isMesh = sources.federation.cluster(cluster) === null;
      const place = isMesh ? 'mesh' : { cluster, framework };
      return firstDispatcher(request, components, { federation: options.federation, place });
    };
    const routes = { ...options, dispatcherFor };
    addInferenceRoutes(pinned, prefix, components, routes);
    addEmbeddingRoutes(pinned, prefix, components, { ...routes, loadWaitMs: options.times.loadWaitMs });
    // What FIRST has beyond these is refused by `checkPlace`, or here.
    pinned.post(`${prefix}/*`, { onRequest: requireJson }, async () =>
      Promise.reject(new FirstRefusal('unsupported_endpoint', 'This node does not serve that endpoint.')),
    );
  });
}

function firstDispatcher(
  request: FastifyRequest,
  { dispatcher }: FacadeComponents,
  { federation, place }: Pick<FirstDispatcherOptions, 'place'> & { readonly federation: Federation },
): Dispatcher {
  return new FirstDispatcher({ dispatcher, federation }, { caller: callerOf(request), place });
}

/** Cluster, access, maintenance, framework and endpoint, in FIRST's order. */
function checkPlace(sources: ClusterSources, request: PinnedRequest): void {
  const { cluster, framework } = request.params;
  if (!isKnownCluster(sources, cluster)) throw unknownCluster(cluster);
  checkAccess(sources, cluster);
  if (isPaused(sources, cluster)) {
    throw new FirstRefusal('cluster_under_maintenance', `${cluster} is under maintenance.`);
  }
  const known = sources.federation.cluster(cluster);
  const frameworks = known?.frameworks ?? [MESH_FRAMEWORK];
  if (!frameworks.includes(framework)) {
    const message = `${cluster} has no framework ${framework.slice(0, 64)}, only ${frameworks.join(', ')}.`;
    throw new FirstRefusal('unsupported_framework', message);
  }
  const endpoint = endpointOf(request);
  if (endpoint === 'batches') throw noBatches();
  const endpoints = known?.openaiEndpoints ?? MESH_ENDPOINTS;
  if (!endpoints.includes(endpoint)) {
    const message = `${cluster} has no endpoint ${endpoint.slice(0, 64)}, only ${endpoints.join(', ')}.`;
    throw new FirstRefusal('unsupported_endpoint', message);
  }
}

/** What stands behind `v1/` in the path. */
function endpointOf(request: PinnedRequest): string {
  return /^(?:\/[^/]+){3}\/v1\/([^?]*?)\/?(?:\?|$)/.exec(request.url)?.[1] ?? '';
}

function checkAccess({ federation }: ClusterSources, name: string): void {
  const cluster = federation.cluster(name);
  if (cluster === null || federation.mayUseCluster(cluster)) return;
  throw new FirstRefusal('access_denied', `Callers of this node may not use ${name}.`);
}

const unknownCluster = (name: string): FirstRefusal =>
  new FirstRefusal(
    'cluster_not_found',
    `There is no cluster ${name === '' ? 'without a name' : name.slice(0, 64)}; one is ${MESH_CLUSTER}.`,
  );

const noBatches = (): FirstRefusal =>
  new FirstRefusal('batch_unavailable', 'This node has no batches of this form; use /v1/batches.');
