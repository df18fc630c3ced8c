/** What other nodes serve, as far as requests may go there. */
import type { FacadeComponents, RemoteModel } from './components.ts';

/** Empty while load balancing is off: what cannot be reached is not listed. */
export function usableRemoteModels(
  views: Pick<FacadeComponents, 'remoteModels' | 'loadBalancing'>,
): readonly RemoteModel[] {
  return views.loadBalancing().enabled ? views.remoteModels() : [];
}
