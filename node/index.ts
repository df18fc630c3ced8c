/** The public API: build a node, and find the one that runs here. Light to import: the stack loads with the first node. */
import { createLogger } from './common/logger.ts';
import type { Config } from './config.ts';
import type { NodeEvent } from './node-event.ts';

export type { CatalogEntry, NodeLoad } from '../protocols/catalog/catalog.ts';
export { type Origin, SETTINGS, type SettingKey } from './config-settings.ts';
export { nearestName } from './config-text.ts';
export type { NodeEvent } from './node-event.ts';
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

/** Builds a node; nothing runs before its `start`. Its logs go to stderr. */
export async function createMeshNode(config: Config): Promise<MeshNode> {
  const { MeshNode } = await import('./mesh-node.ts');
  const { pino } = await import('pino');
  return new MeshNode(config, { logger: createLogger(config.log.level, pino.destination(2)) });
}
