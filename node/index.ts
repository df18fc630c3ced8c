/** The public API: build a node, and find the one that runs here. Light to import: the stack loads with the first node. */
import { systemClock } from './common/clock.ts';
import { createLogger } from './common/logger.ts';
import type { Config } from './config.ts';
import type { ConfigSource } from './config-watch.ts';
import type { NodeEvent } from './node-event.ts';
import { openSecrets, type SecretsComponents } from './node-secrets.ts';
import { prepareDataDir } from './storage/data-dir.ts';
import { IssuedKeys } from './storage/issued-keys.ts';
import { type NodeRegistry, openNodeRegistry } from './storage/node-registry.ts';
import type { PassphraseSource } from './storage/secret-keys.ts';
import type { SecretStore } from './storage/secret-store.ts';

export type { CatalogEntry, NodeLoad } from '../protocols/catalog/catalog.ts';
export { BOUNDARIES, type Boundary } from '../protocols/inference/events.ts';
export type { ModelResidency } from './backends/backend.ts';
export type { ClusterProbe } from './backends/cluster/cluster-probe.ts';
export type { ComputeSession } from './backends/cluster-sessions/compute-sessions.ts';
export { type ModelService, SERVICE_RESOURCES } from './backends/cluster-sessions/model-services.ts';
export { type ProvisionRule, provisionRule } from './backends/cluster-sessions/provision-rule.ts';
export { resourceDemand } from './backends/cluster-sessions/resource-demand.ts';
export { durationMs } from './config-amounts.ts';
export { type ConfigEdit, editConfig, settingOf, settingValue } from './config-edit.ts';
export type { Origin, SettingKey } from './config-setting.ts';
export { SETTINGS } from './config-settings.ts';
export { nearestName } from './config-text.ts';
export { type ConfigSource, configSource } from './config-watch.ts';
export { type ClusterWork, openClusterWork } from './node-cluster-work.ts';
export { lookAtCluster, openClusterRegistry } from './node-clusters.ts';
export type { NodeEvent } from './node-event.ts';
export {
  credentialsOf,
  type FixtureCredentials,
  globusAccountProblem,
  openFixtureStore,
  readFixtureFiles,
} from './node-fixture-files.ts';
export { manifestPlace, type NodeProbe, probeHttpNode } from './node-probe.ts';
export type { RequestRecord } from './routing/request-record.ts';
export type { ClusterRecord } from './storage/cluster-registry.ts';
export type { IssuedKeyView } from './storage/issued-keys.ts';
export { findModelFiles, scanModel } from './storage/model-scan.ts';
export { readSecretFile } from './storage/private-file.ts';
export type { RemoteNode, RemoteNodePatch } from './storage/remote-node.ts';
export { findRunningNode, type RunningNode } from './storage/runtime-file.ts';
export { SECRET_STORES, type SecretStoreKind } from './storage/secret-file.ts';
export type { PassphraseSource } from './storage/secret-keys.ts';
export { checkedPassphrase, readPassphrase } from './storage/secret-passphrase.ts';
export type { SecretStore, SecretStoreView } from './storage/secret-store.ts';

/** A node as whoever starts it sees it. */
export interface MeshNode {
  /** @throws MeshError with one line that names what to do. */
  start(): Promise<void>;
  /** Drains for at most 30 s. Idempotent. */
  stop(): Promise<void>;
  /** Subscribe before `start`; returns the unsubscribe. */
  onEvent(listener: (event: NodeEvent) => void): () => void;
}

/**
 * Builds a node; nothing runs before its `start`. Its logs go to stderr. With `source` it follows its config file, and
 * keeps there what is changed over HTTP. `passphrase` asks a person, where keys are encrypted and no file opens them.
 */
export async function createMeshNode(
  config: Config,
  source?: ConfigSource,
  passphrase?: PassphraseSource,
): Promise<MeshNode> {
  const { MeshNode } = await import('./mesh-node.ts');
  const { pino } = await import('pino');
  const logger = createLogger(config.log.level, pino.destination(2));
  const parts = { logger, ...(source && { source }), ...(passphrase && { passphrase }) };
  return new MeshNode(config, parts);
}

/** What the owner said about remote nodes. A running node takes changes over within a second. */
export async function openRegistry(config: Config, components: SecretsComponents): Promise<NodeRegistry> {
  await prepareDataDir(config.dataDir);
  return await openNodeRegistry(config, openSecrets({ clock: systemClock, ...components }, config));
}

/** The keys that this node shows to others: which kind of store it is, and how to move them. Not read yet: `load`. */
export function openSecretStore(config: Config, components: SecretsComponents): SecretStore {
  return openSecrets({ clock: systemClock, ...components }, config);
}

/** The keys that the node of this data dir gives out. A running node takes changes over within a second. */
export async function openIssuedKeys(dataDir: string): Promise<IssuedKeys> {
  await prepareDataDir(dataDir);
  return new IssuedKeys({ clock: systemClock }, { dataDir });
}
