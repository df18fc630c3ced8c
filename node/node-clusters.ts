/** The Backend.AI clusters of a node: its registry, put together for the node and for commands, and one look at each. */
import { type ClusterProbe, probeCluster } from './backends/cluster/cluster-probe.ts';
import { type Clock, systemClock } from './common/clock.ts';
import type { Config } from './config.ts';
import { openSecrets, type SecretsComponents } from './node-secrets.ts';
import { ClusterRegistry } from './storage/cluster-registry.ts';
import { prepareDataDir } from './storage/data-dir.ts';
import type { SecretStore } from './storage/secret-store.ts';

const PROBE_MS = 20_000;

/** What the owner said about clusters, read once: for commands. A running node takes changes over within a second. */
export async function openClusterRegistry(config: Config, components: SecretsComponents): Promise<ClusterRegistry> {
  await prepareDataDir(config.dataDir);
  const secrets: SecretStore = openSecrets({ clock: systemClock, ...components }, config);
  const registry = new ClusterRegistry({ clock: systemClock, warn: components.warn, secrets }, config);
  await registry.load();
  return registry;
}

/** Asks one cluster what it runs, for 20 s at most. Its secret must have been unlocked. @throws MeshError `not_found`. */
export async function lookAtCluster(
  registry: Pick<ClusterRegistry, 'get' | 'secretOf'>,
  name: string,
  clock: Clock = systemClock,
): Promise<ClusterProbe> {
  const record = registry.get(name);
  return await probeCluster({ clock }, record, registry.secretOf(record.slug), AbortSignal.timeout(PROBE_MS));
}
