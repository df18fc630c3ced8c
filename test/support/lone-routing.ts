/** The real routing core of a node that has no peers. */
import type { LocalBackend } from '../../node/backends/backend.ts';
import { systemClock } from '../../node/common/clock.ts';
import { silentLogger } from '../../node/common/logger.ts';
import { Metrics } from '../../node/common/metrics.ts';
import { Breakers } from '../../node/routing/breakers.ts';
import { MeshDispatcher } from '../../node/routing/mesh-dispatcher.ts';
import { Router, type RouterComponents } from '../../node/routing/router.ts';
import { RoutingStats } from '../../node/routing/routing-stats.ts';

/** Where no model is served here. */
export const NO_ENGINE: LocalBackend = {
  id: 'here',
  kind: 'engine',
  catalog: () => [],
  onCatalogChange: () => () => {},
  infer() {
    throw new Error('nothing is served here');
  },
};

/** What a router is told of peers where there are none. */
export const NO_PEERS: Pick<RouterComponents, 'index' | 'providers' | 'peerBackend'> = {
  index: { holders: () => [], drop: () => {} },
  providers: { find: async () => [] },
  peerBackend: () => {
    throw new Error('no peers here');
  },
};

/** Routes between the engine here and the services that the node fronts. */
export function loneDispatcher({ local, gateways }: Pick<RouterComponents, 'local' | 'gateways'>): MeshDispatcher {
  const common = { clock: systemClock, logger: silentLogger, metrics: new Metrics() };
  const stats = new RoutingStats({ clock: systemClock });
  const router = new Router({ ...NO_PEERS, local, stats, ...(gateways !== undefined && { gateways }) });
  return new MeshDispatcher({ router, breakers: new Breakers(common), stats, ...common });
}
