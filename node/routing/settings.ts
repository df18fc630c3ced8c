/** What the owner of a node can change about routing while it runs. */
import type { Boundary } from '../../protocols/inference/events.ts';
import type { ModelAliases } from './model-aliases.ts';

export const STRATEGY_NAMES = ['priority', 'round-robin', 'least-loaded', 'fastest'] as const;
export type StrategyName = (typeof STRATEGY_NAMES)[number];

/** `GET|PUT /api/v1/config/load-balancing`, keys `loadBalancing.*` of the config file. */
export interface LoadBalancing {
  /** False: every request is served here or not at all: no dial, no DHT query. Default true. */
  readonly enabled: boolean;
  /** Default `least-loaded`. */
  readonly strategy: StrategyName;
  /** Retry once elsewhere before commit. Default true. */
  readonly failoverEnabled: boolean;
  /**
   * An answer that breaks off goes on where a twin of what gave it exists; only while `failoverEnabled`. Key
   * `failover.midStream`. Default true.
   */
  readonly midStream: boolean;
}

export const DEFAULT_LOAD_BALANCING: LoadBalancing = {
  enabled: true,
  strategy: 'least-loaded',
  failoverEnabled: true,
  midStream: true,
};

/** What the owner said about one remote node, by its fingerprint (`12D3…` or `api:<slug>`). */
export interface RemoteSettings {
  /** -1000 to 1000, higher is preferred. Default 0. */
  readonly priority: number;
  /** How far away it is. Peers are `mesh`. */
  readonly boundary: Boundary;
}

/** Read at every decision, so that a change counts from the next request on. */
export interface RoutingSettings {
  loadBalancing(): LoadBalancing;
  remote(fingerprint: string): RemoteSettings;
  /** Names that stand for models. Absent: none. */
  aliases?(): ModelAliases;
}

export const DEFAULT_ROUTING_SETTINGS: RoutingSettings = {
  loadBalancing: () => DEFAULT_LOAD_BALANCING,
  remote: (fingerprint) => ({ priority: 0, boundary: fingerprint.startsWith('api:') ? 'public' : 'mesh' }),
};
