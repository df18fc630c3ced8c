/** What FIRST tells of its clusters: `list-endpoints`, `jobs` and `status`. Reads memory only. */
import type { Federation } from '../../routing/federation.ts';
import type { EndpointState } from '../../storage/fixtures/fixture-types.ts';
import { MESH_CLUSTER, MESH_ENDPOINTS, MESH_FRAMEWORK, type MeshViews, meshModels } from './mesh-cluster.ts';

export interface ClusterSources extends MeshViews {
  readonly federation: Federation;
  /** Does this node take no work now? */
  readonly meshIsPaused: () => boolean;
}

interface ListedFramework {
  /** Sorted. */
  readonly models: readonly string[];
  /** For example `/v1/chat/completions`. */
  readonly endpoints: readonly string[];
}

interface ListedCluster {
  readonly base_url: string;
  readonly frameworks: Readonly<Record<string, ListedFramework>>;
}

/** Under which column of `jobs` a model stands. */
type JobColumn = 'running' | 'queued' | 'stopped' | 'others';

interface Job {
  /** Comma list; here always one. */
  readonly Models: string;
  readonly Framework: string;
  readonly Cluster: string;
  readonly 'Model Status': string;
}

const COLUMNS: Readonly<Record<EndpointState, JobColumn>> = {
  running: 'running',
  queued: 'queued',
  cold: 'stopped',
  stopped: 'stopped',
  offline: 'stopped',
  unknown: 'others',
};

/** Is the cluster one of the fixtures, or the mesh? A fixture of the name `mesh` hides the mesh. */
export function isKnownCluster({ federation }: ClusterSources, name: string): boolean {
  return name === MESH_CLUSTER || federation.cluster(name) !== null;
}

/** `GET list-endpoints`: what the callers of this node may use. */
export function listEndpoints(sources: ClusterSources): { readonly clusters: Record<string, ListedCluster> } {
  const { federation } = sources;
  const clusters: Record<string, ListedCluster> = Object.create(null) as Record<string, ListedCluster>;
  const models = meshModels(sources).map(({ id }) => id);
  if (models.length > 0) {
    clusters[MESH_CLUSTER] = clusterOf(MESH_CLUSTER, [[MESH_FRAMEWORK, models]], MESH_ENDPOINTS);
  }
  for (const cluster of federation.clusters().filter((one) => federation.mayUseCluster(one))) {
    const own = federation.endpoints().filter((one) => one.cluster === cluster.name && federation.mayUseEndpoint(one));
    const byFramework = cluster.frameworks.map((framework): [string, string[]] => [
      framework,
      own.flatMap((one) => (one.framework === framework ? [one.model] : [])),
    ]);
    clusters[cluster.name] = clusterOf(cluster.name, byFramework, cluster.openaiEndpoints);
  }
  return { clusters };
}

function clusterOf(
  name: string,
  byFramework: readonly (readonly [string, readonly string[]])[],
  endpoints: readonly string[],
): ListedCluster {
  const paths = endpoints.map((endpoint) => `/v1/${endpoint}`);
  const listed = byFramework
    .filter(([, models]) => models.length > 0)
    .map(([framework, models]) => [framework, { models: models.toSorted(), endpoints: paths }] as const);
  return { base_url: `/resource_server/${name}`, frameworks: Object.fromEntries(listed) };
}

/** `GET {cluster}/jobs` of a known cluster. Under maintenance everything is stopped. */
export function clusterJobs(sources: ClusterSources, cluster: string) {
  const { federation } = sources;
  const jobs: Record<JobColumn, Job[]> = { running: [], queued: [], stopped: [], others: [] };
  const paused = isPaused(sources, cluster);
  const add = (column: JobColumn, framework: string, model: string, status: string): void => {
    const job: Job = {
      Models: model,
      Framework: framework,
      Cluster: cluster,
      'Model Status': paused ? 'stopped' : status,
    };
    jobs[paused ? 'stopped' : column].push(job);
  };
  let freeNodes = -1;
  if (federation.cluster(cluster) === null) {
    for (const { id, state } of meshModels(sources)) {
      if (state === 'resident') add('running', MESH_FRAMEWORK, id, 'running');
      else if (state === 'loading') add('queued', MESH_FRAMEWORK, id, 'starting');
      else add('stopped', MESH_FRAMEWORK, id, 'stopped');
    }
  }
  for (const endpoint of federation.endpoints()) {
    if (endpoint.cluster !== cluster || !federation.mayUseEndpoint(endpoint)) continue;
    const { state, freeNodes: free } = federation.stateOf(endpoint.slug);
    if (free !== null) freeNodes = Math.max(freeNodes, free);
    const column = COLUMNS[state];
    add(column, endpoint.framework, endpoint.model, column === 'others' ? state : column);
  }
  return {
    ...jobs,
    private_batch_running: [],
    private_batch_queued: [],
    cluster_status: { free_nodes: freeNodes },
  };
}

/** `GET status`: which clusters take requests. */
export function clusterStatus(sources: ClusterSources): Readonly<Record<string, boolean>> {
  const names = sources.federation.clusters().map(({ name }) => name);
  const all = new Set([MESH_CLUSTER, ...names]);
  return Object.fromEntries([...all].map((name) => [name, !isPaused(sources, name)]));
}

/** Does the cluster take no requests? */
export function isPaused({ federation, meshIsPaused }: ClusterSources, cluster: string): boolean {
  const isMesh = cluster === MESH_CLUSTER && federation.cluster(cluster) === null;
  return federation.isUnderMaintenance(cluster) || (isMesh && meshIsPaused());
}
