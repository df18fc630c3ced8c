/** The pool as Backend.AI GO shows it: inference status, distributed status, routing statistics. Field names are fixed. */
import type { FastifyInstance } from 'fastify';
import type { FacadeComponents, PeerRoutingStats, PeerStatus } from '../components.ts';
import { publicUrl } from '../public-url.ts';
import { usableRemoteModels } from '../remote-models.ts';

/** Adds `/api/v1/inference/status` and the two under `/api/v1/pool`; `port` is the facade's own. */
export function addPoolRoutes(app: FastifyInstance, components: FacadeComponents, port: () => number): void {
  app.get('/api/v1/inference/status', async () => inferenceStatus(components, port()));
  app.get('/api/v1/pool/distributed-status', async () => distributedStatus(components));
  app.get('/api/v1/pool/routing-stats', async () => routingStats(components));
}

function inferenceStatus(components: FacadeComponents, routerPort: number): object {
  const local = components.localModels();
  const loadedModels = local.filter((entry) => entry.state === 'resident').length;
  const remoteModels = new Set(usableRemoteModels(components).map(({ entry }) => entry.id)).size;
  const { enabled, strategy } = components.loadBalancing();
  return {
    available: local.length + remoteModels > 0,
    routerRunning: true,
    routerPort,
    loadedModels,
    llmModels: loadedModels,
    diffusionModels: 0,
    ...(enabled ? { distributed: { enabled, strategy, ...nodeCounts(components.peers()), remoteModels } } : {}),
  };
}

function distributedStatus(components: FacadeComponents): object {
  const { enabled, strategy } = components.loadBalancing();
  const peers = enabled ? components.peers() : [];
  const availableOn = new Map<string, Set<string>>();
  for (const { fingerprint, entry } of usableRemoteModels(components)) {
    const nodes = availableOn.get(entry.id) ?? new Set();
    availableOn.set(entry.id, nodes.add(fingerprint));
  }
  return {
    enabled,
    strategy,
    ...nodeCounts(peers),
    models: [...availableOn].map(([id, nodes]) => ({ id, availableOn: [...nodes] })),
    endpoints: peers.map((peer) => ({
      fingerprint: peer.fingerprint,
      // Peers speak libp2p, not HTTP; the field keeps its name and type for readers of the original shape.
      baseUrl: publicUrl(peer.url) ?? `libp2p://${peer.fingerprint}`,
      status: peer.status,
      latencyMs: peer.latencyMs ?? 0,
      loadedModelCount: peer.models.filter((entry) => entry.state === 'resident').length,
      priority: peer.priority,
      name: peer.name,
    })),
  };
}

/** Other nodes; this one is not counted. */
function nodeCounts(peers: readonly PeerStatus[]): { totalNodes: number; onlineNodes: number } {
  return { totalNodes: peers.length, onlineNodes: peers.filter((peer) => peer.status === 'online').length };
}

function routingStats(components: FacadeComponents): object {
  const nodes = components.routingStats();
  const { failureThreshold, resetTimeoutSecs } = components.loadBalancing();
  const sum = (count: (node: PeerRoutingStats) => number): number =>
    nodes.reduce((total, node) => total + count(node), 0);
  return {
    nodes,
    totalRequests: sum((node) => node.totalRequests),
    totalSuccesses: sum((node) => node.successCount),
    totalFailures: sum((node) => node.failureCount),
    circuitBreaker: { failureThreshold, resetTimeoutSecs },
  };
}
