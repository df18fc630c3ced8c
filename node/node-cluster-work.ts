/** What a command may do on a registered cluster: sessions, services, folders, and the rules by which models start. */
import { ManagerClient } from './backends/cluster/manager-client.ts';
import { ComputeSessions } from './backends/cluster-sessions/compute-sessions.ts';
import { ModelServices } from './backends/cluster-sessions/model-services.ts';
import { ProvisionRules } from './backends/cluster-sessions/provision-rules.ts';
import { systemClock } from './common/clock.ts';
import type { Config } from './config.ts';
import { openClusterRegistry } from './node-clusters.ts';
import type { SecretsComponents } from './node-secrets.ts';
import type { ClusterRecord } from './storage/cluster-registry.ts';

/** One cluster, ready to be asked. Close it, or its connections keep the process alive. */
export interface ClusterWork {
  readonly record: ClusterRecord;
  readonly sessions: ComputeSessions;
  readonly services: ModelServices;
  /** Of all clusters; a running node takes changes over within a second. */
  readonly rules: ProvisionRules;
  close(): void;
}

/** Asks for the secret where it is locked. @throws MeshError `not_found` that names the clusters there are. */
export async function openClusterWork(
  config: Config,
  components: SecretsComponents,
  name: string,
): Promise<ClusterWork> {
  const registry = await openClusterRegistry(config, components);
  const record = registry.get(name);
  await registry.unlock();
  const clock = systemClock;
  const manager = new ManagerClient({ clock }, { ...record, secretKey: () => registry.secretOf(record.slug) });
  const rules = new ProvisionRules({ clock, warn: components.warn }, config);
  await rules.load();
  const parts = { manager, cluster: record.name };
  const sessions = new ComputeSessions({ ...parts, clock });
  return { record, sessions, services: new ModelServices(parts), rules, close: () => manager.close() };
}
