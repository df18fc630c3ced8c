/** What this node tells its peers of itself: who it is, which models can be asked of it, how busy it is. */
import type { CatalogEntry } from '../protocols/catalog/catalog.ts';
import type { Engine } from './backends/backend.ts';
import type { CatalogExchangeComponents } from './network/catalog-exchange.ts';
import type { ServiceState } from './routing/service-state.ts';
import { version } from './version.ts';

export interface OwnCatalogSources {
  readonly engine: Engine;
  /** Requests that wait for the engine. */
  readonly queued: () => number;
  /** What peers may use of services beyond the mesh. Default: nothing. */
  readonly shared?: () => readonly CatalogEntry[];
  readonly service: ServiceState;
  /** What people see. */
  readonly name: string;
  /** Start of this process, Unix milliseconds. */
  readonly epoch: number;
}

export function ownCatalog({
  engine,
  queued,
  shared = () => [],
  service,
  name,
  epoch,
}: OwnCatalogSources): CatalogExchangeComponents['self'] {
  return {
    hello: () => ({ version, name, epoch, engineBuild: engine.build }),
    entries: () => {
      const own = engine.catalog();
      const ids = new Set(own.map(({ id }) => id));
      return [...own, ...shared().filter(({ id }) => !ids.has(id))];
    },
    load: () => {
      const load = engine.load();
      return { ...load, queued: load.queued + queued(), draining: service.mode !== 'open' };
    },
  };
}
