/** The node about itself: root, health, metrics, status and peers. */
import type { FastifyInstance } from 'fastify';
import type { ServiceMode } from '../../routing/service-state.ts';
import type { FacadeComponents, PeerStatus } from '../components.ts';
import { publicUrl } from '../public-url.ts';
import { usableRemoteModels } from '../remote-models.ts';

/** Adds `/`, `/health`, `/metrics`, `/api/v1/node` and `/api/v1/peers`. */
export function addNodeRoutes(app: FastifyInstance, components: FacadeComponents, stopping: () => boolean): void {
  const { localModels, node, peers, metrics, service } = components;
  const state = (): ServiceMode => (stopping() ? 'draining' : (service?.mode ?? 'open'));

  app.get('/', async () => {
    const { version, api } = node();
    return {
      name: 'meshnode',
      version,
      api: `${api}/v1`,
      health: '/health',
      models: '/v1/models',
      peers: '/api/v1/peers',
    };
  });

  app.get('/health', async (_request, reply) => {
    const local = localModels().length;
    const remote = new Set(usableRemoteModels(components).map(({ entry }) => entry.id)).size;
    const draining = state() === 'draining';
    const healthy = local + remote > 0 && !draining;
    const status = draining ? 'draining' : healthy ? 'ok' : 'no models';
    const onlinePeers = peers().filter((peer) => peer.status === 'online').length;
    return reply.code(healthy ? 200 : 503).send({ status, models: { local, remote }, peers: { online: onlinePeers } });
  });

  app.get('/metrics', async (_request, reply) => {
    return reply.type(metrics.registry.contentType).send(await metrics.registry.metrics());
  });

  app.get('/api/v1/node', async () => {
    const self = node();
    const draining = self.draining || state() === 'draining';
    return { ...self, draining, state: draining ? 'draining' : state(), models: localModels() };
  });
  app.get('/api/v1/peers', async () => ({ peers: peers().map(shown) }));
}

/** An HTTP node's address is its URL, without anything secret in either. */
function shown(peer: PeerStatus): PeerStatus {
  const url = publicUrl(peer.url);
  return url === null ? peer : { ...peer, url, addresses: [url] };
}
