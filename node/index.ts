/** The public API: build a node, and find the one that runs here. Light to import: the stack loads with the first node. */
import { systemClock } from './common/clock.ts';
import { createLogger } from './common/logger.ts';
import type { Config } from './config.ts';
import type { ConfigSource } from './config-watch.ts';
import type { NodeEvent } from './node-event.ts';
import { prepareDataDir } from './storage/data-dir.ts';
import { IssuedKeys } from './storage/issued-keys.ts';
import { type NodeRegistry, openNodeRegistry } from './storage/node-registry.ts';

export type { CatalogEntry, NodeLoad } from '../protocols/catalog/catalog.ts';
export { BOUNDARIES, type Boundary } from '../protocols/inference/events.ts';
export { type ConfigEdit, editConfig, settingOf, settingValue } from './config-edit.ts';
export type { Origin, SettingKey } from './config-setting.ts';
export { SETTINGS } from './config-settings.ts';
export { nearestName } from './config-text.ts';
export { type ConfigSource, configSource } from './config-watch.ts';
export type { NodeEvent } from './node-event.ts';
export { type NodeProbe, probeHttpNode } from './node-probe.ts';
export type { RequestRecord } from './routing/request-record.ts';
export type { IssuedKeyView } from './storage/issued-keys.ts';
export { findModelFiles, scanModel } from './storage/model-scan.ts';
export { readSecretFile } from './storage/private-file.ts';
export { findRunningNode, type RunningNode } from './storage/runtime-file.ts';

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
 * keeps there what is changed over HTTP.
 */
export async function createMeshNode(config: Config, source?: ConfigSource): Promise<MeshNode> {
  const { MeshNode } = await import('./mesh-node.ts');
  const { pino } = await import('pino');
  const parts = { logger: createLogger(config.log.level, pino.destination(2)), ...(source && { source }) };
  return new MeshNode(config, parts);
}

/** What the owner said about remote nodes. A running node takes changes over within a second. */
export async function openRegistry(dataDir: string): Promise<NodeRegistry> {
  await prepareDataDir(dataDir);
  return await openNodeRegistry(dataDir);
}

/** The keys that the node of this data dir gives out. A running node takes changes over within a second. */
export async function openIssuedKeys(dataDir: string): Promise<IssuedKeys> {
  await prepareDataDir(dataDir);
  return new IssuedKeys({ clock: systemClock }, { dataDir });
}
