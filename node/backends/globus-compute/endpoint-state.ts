/** What status and queue of a cluster say about one model there: pure. */
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import { MeshError } from '../../common/errors.ts';
import type { EndpointState } from '../../storage/fixtures/fixture-types.ts';
import { parseJson } from '../openai-http/parse-json.ts';
import type { GlobusEndpointStatus } from './globus-account.ts';

/** What FIRST's qstat function said of a cluster. */
export interface ClusterJobs {
  /** By model: is it up, or does its job start or wait? */
  readonly models: ReadonlyMap<string, 'running' | 'queued'>;
  /** Null when unknown. */
  readonly freeNodes: number | null;
}

/** All that is known. */
export interface EndpointFacts {
  /** Of the last answered question; null before it. */
  readonly status: GlobusEndpointStatus | null;
  /** Questions that failed one after the other since. */
  readonly failures: number;
  /** Null where there is no such function, or it failed. */
  readonly jobs: ClusterJobs | null;
}

/** A service that was seen and does not answer may be slow: so many failures make it offline. */
const OFFLINE_AFTER = 3;

/** A model that is listed nowhere, at an endpoint that does not say whether it has nodes, counts as cold. */
export function endpointState(model: string, { status, failures, jobs }: EndpointFacts): EndpointState {
  if (failures >= OFFLINE_AFTER || (status === null && failures > 0)) return 'offline';
  if (status === null) return 'unknown';
  if (!status.isOnline) return 'offline';
  const listed = jobs?.models.get(model);
  if (listed !== undefined) return listed;
  return status.managers !== null && status.managers > 0 ? 'running' : 'cold';
}

/** @throws MeshError `upstream_error` when it is not what FIRST's function returns. */
export function readJobs(text: string): ClusterJobs {
  const json = parseJson(text);
  if (!isRecord(json)) throw new MeshError('upstream_error', 'The qstat function returned no JSON object');
  const models = new Map<string, 'running' | 'queued'>();
  for (const job of listOf(json['queued'])) for (const model of modelsOf(job)) models.set(model, 'queued');
  for (const job of listOf(json['running'])) {
    // A job that has its nodes and still loads its model says `starting`.
    const state = job['Model Status'] === 'running' ? 'running' : 'queued';
    for (const model of modelsOf(job)) if (models.get(model) !== 'running') models.set(model, state);
  }
  const cluster = isRecord(json['cluster_status']) ? json['cluster_status'] : {};
  const free = cluster['free_nodes'];
  return { models, freeNodes: typeof free === 'number' && free >= 0 ? free : null };
}

function listOf(value: unknown): readonly Readonly<Record<string, unknown>>[] {
  return Array.isArray(value) ? (value as unknown[]).filter(isRecord) : [];
}

function modelsOf(job: Readonly<Record<string, unknown>>): readonly string[] {
  const { Models: models } = job;
  const list: unknown = typeof models === 'string' ? models.split(',') : models;
  if (!Array.isArray(list)) return [];
  return (list as unknown[]).flatMap((model) =>
    typeof model === 'string' && model.trim() !== '' ? [model.trim()] : [],
  );
}
