/** What the owner may change about routing while the node runs, from where it is kept. */
import type { Config } from './config.ts';
import type { ConfigWatch } from './config-watch.ts';
import { ModelAliases } from './routing/model-aliases.ts';
import type { RoutingSettings } from './routing/settings.ts';
import type { NodeRegistry } from './storage/node-registry.ts';

/** `watch`: null where the configuration stays what it was. */
export function routingSettings(
  { watch, registry }: { readonly watch: ConfigWatch | null; readonly registry: NodeRegistry },
  config: Config,
): RoutingSettings {
  const first = new ModelAliases(config.models.aliases);
  return {
    loadBalancing: () => watch?.loadBalancing() ?? config.loadBalancing,
    remote: (fingerprint) => registry.remote(fingerprint),
    aliases: () => watch?.aliases() ?? first,
  };
}
