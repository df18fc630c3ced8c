/** The node about itself: root, health, metrics, status and peers. */
import type { FastifyInstance } from 'fastify';
import type { FacadeComponents } from '../components.ts';

/** Adds `/`, `/health`, `/metrics`, `/api/v1/node` and `/api/v1/peers`. */
export function addNodeRoutes(app: FastifyInstance, components: FacadeComponents, draining: () => boolean): void {
  const { localModels, remoteModels, node, peers, metrics } = components;

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
    const remote = new Set(remoteModels().map(({ entry }) => entry.id)).size;
    const healthy = local + remote > 0 && !draining();
    const status = draining() ? 'draining' : healthy ? 'ok' : 'no models';
    const onlinePeers = peers().filter((peer) => peer.status === 'online').length;
    return reply.code(healthy ? 200 : 503).send({ status, models: { local, remote }, peers: { online: onlinePeers } });
  });

  app.get('/metrics', async (_request, reply) => {
    return reply.type(metrics.registry.contentType).send(await metrics.registry.metrics());
  });

  app.get('/api/v1/node', async () => ({ ...node(), draining: node().draining || draining(), models: localModels() }));
  app.get('/api/v1/peers', async () => ({ peers: peers() }));
}
