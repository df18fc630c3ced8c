/** One look at a cluster: does it answer, does it take our signature, and what does it run? */
import { type MeshError, toMeshError } from '../../common/errors.ts';
import type { ManagerClient, ManagerVersion } from './manager-client.ts';
import { isDateRefusal } from './manager-problem.ts';
import { parseServices, type ServiceList, type ServiceOrigin } from './service-list.ts';

/**
 * connected; auth_error: it refuses the key, its secret, or what the key may do; clock_skew: the clocks differ by more
 * than 15 minutes (where `problem` says no more, requests are dated by the manager's clock and taken); unreachable: it
 * does not answer, or not as a manager does.
 */
export type ClusterState = 'connected' | 'auth_error' | 'unreachable' | 'clock_skew';

/** What was found. */
export interface ClusterCheck {
  readonly state: ClusterState;
  /** Services can be used. */
  readonly ok: boolean;
  /** One sentence; null when all is well. Never holds a key. */
  readonly problem: string | null;
  /** Null where the manager could not be asked. */
  readonly version: ManagerVersion | null;
  /** Services that answer now; null where they could not be listed. */
  readonly services: ServiceList | null;
  /** The manager's clock minus ours, milliseconds. */
  readonly clockOffsetMs: number;
}

type CheckedClient = Pick<ManagerClient, 'call' | 'version' | 'clockProblem' | 'clockOffsetMs'>;

/** Asks for the version, and with a signature for the services. Throws nothing but the signal's reason. */
export async function checkCluster(
  client: CheckedClient,
  origin: ServiceOrigin,
  signal: AbortSignal,
): Promise<ClusterCheck> {
  let version: ManagerVersion | null = null;
  try {
    version = await client.version(signal);
    const services = parseServices(await client.call<unknown>({ method: 'GET', path: '/services' }, signal), origin);
    const { clockProblem, clockOffsetMs } = client;
    const problem = clockProblem ?? services.problems[0] ?? null;
    return { state: stateOf(null, clockProblem), ok: true, problem, version, services, clockOffsetMs };
  } catch (thrown) {
    signal.throwIfAborted();
    const error = toMeshError(thrown);
    const { clockProblem, clockOffsetMs } = client;
    const state = stateOf(error, clockProblem);
    return { state, ok: false, problem: error.message, version, services: null, clockOffsetMs };
  }
}

/** What a call that ended so says of the cluster; `error` null: it was answered. Pure. */
export function stateOf(error: MeshError | null, clockProblem: string | null): ClusterState {
  if (error === null) return clockProblem === null ? 'connected' : 'clock_skew';
  if (isDateRefusal(error)) return 'clock_skew';
  return error.code === 'unauthorized' || error.code === 'forbidden' ? 'auth_error' : 'unreachable';
}
