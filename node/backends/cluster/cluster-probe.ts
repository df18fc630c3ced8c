/** One look at a cluster and at all that it runs, as its owner registers or tests it. */
import type { Clock } from '../../common/clock.ts';
import { toMeshError } from '../../common/errors.ts';
import type { ClusterRecord } from '../../storage/cluster-registry.ts';
import { probeServer } from '../openai-http/model-list.ts';
import { type ClusterState, checkCluster } from './cluster-check.ts';
import { ManagerClient } from './manager-client.ts';
import type { ServiceFacts } from './service-list.ts';
import { ServiceTokens } from './service-tokens.ts';

/** One service that can be used. */
export interface ServiceProbe {
  readonly name: string;
  /** Ids. */
  readonly models: readonly string[];
  /** Why it gave none; null when it did. */
  readonly problem: string | null;
}

/** What was found. */
export interface ClusterProbe {
  readonly ok: boolean;
  readonly status: ClusterState;
  /** One sentence; null when all is well. Never holds a key. */
  readonly problem: string | null;
  /** For example `v8.20240315`; null where the manager could not be asked. */
  readonly apiVersion: string | null;
  readonly manager: string | null;
  /** The manager's clock minus ours, milliseconds. */
  readonly clockOffsetMs: number;
  readonly services: readonly ServiceProbe[];
}

/** More are not asked for their models. */
const MAX_ASKED = 32;

/** Asks as the running node does, once. Throws nothing but the signal's reason. */
export async function probeCluster(
  { clock }: { readonly clock: Clock },
  record: ClusterRecord,
  secretKey: string | null,
  signal: AbortSignal,
): Promise<ClusterProbe> {
  const client = new ManagerClient({ clock }, { ...record, secretKey: () => secretKey });
  try {
    const { ok, state, problem, version, services, clockOffsetMs } = await checkCluster(client, record, signal);
    const tokens = new ServiceTokens({ client, clock });
    const asked = (services?.usable ?? []).slice(0, MAX_ASKED);
    return {
      ...{ ok, status: state, problem, clockOffsetMs },
      apiVersion: version?.api ?? null,
      manager: version?.manager ?? null,
      services: await Promise.all(asked.map((service) => probeService(service, tokens, clock, signal))),
    };
  } finally {
    client.close();
  }
}

async function probeService(
  { id, name, url, isPublic }: ServiceFacts,
  tokens: ServiceTokens,
  clock: Clock,
  signal: AbortSignal,
): Promise<ServiceProbe> {
  try {
    if (!isPublic) await tokens.renew(id, signal);
    const { models } = await probeServer({ clock }, { name, url, key: tokens.get(id), signal });
    return { name, models: models.map((model) => model.id), problem: null };
  } catch (error) {
    return { name, models: [], problem: toMeshError(error).message };
  }
}
