/** The node's state as the facade shows it: plain reads of what the parts know, nothing computed ahead. */

import type { FacadeComponents, PeerRoutingStats, PeerStatus } from './api/components.ts';
import type { Engine } from './backends/backend.ts';
import type { ModelIndex } from './network/model-index.ts';
import type { PeerTable } from './network/peer-table.ts';
import type { Breakers } from './routing/breakers.ts';
import type { RoutingStats } from './routing/routing-stats.ts';

export interface StatusSources {
  readonly engine: Engine;
  readonly table: PeerTable;
  readonly index: ModelIndex;
  readonly stats: RoutingStats;
  readonly breakers: Breakers;
  /** Everything about this node but what the engine knows. */
  readonly self: () => Omit<ReturnType<FacadeComponents['node']>, 'engineBuild'>;
}

type StatusViews = Pick<
  FacadeComponents,
  'localModels' | 'remoteModels' | 'node' | 'peers' | 'routingStats' | 'loadBalancing'
>;

/** Priorities are set by hand on the asking node; nobody has one so far. */
const DEFAULT_PRIORITY = 0;

export function statusViews({ engine, table, index, stats, breakers, self }: StatusSources): StatusViews {
  const peers = (): readonly PeerStatus[] => table.list().map((peer) => ({ ...peer, priority: DEFAULT_PRIORITY }));
  const routed = (fingerprint: string): PeerRoutingStats => {
    const { open, consecutiveFailures } = breakers.of(fingerprint).view();
    return { fingerprint, ...stats.of(fingerprint), circuitOpen: open, consecutiveFailures };
  };
  return {
    localModels: () => engine.catalog(),
    remoteModels: () => index.models(),
    node: () => ({ ...self(), engineBuild: engine.build }),
    peers,
    routingStats: () => table.list().map((peer) => routed(peer.fingerprint)),
    loadBalancing: () => ({
      enabled: true,
      strategy: 'least-loaded',
      failureThreshold: breakers.options.failureThreshold,
      resetTimeoutSecs: breakers.options.resetTimeoutMs / 1000,
    }),
  };
}
