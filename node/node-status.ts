/** The node's state as the facade shows it: plain reads of what the parts know, nothing computed ahead. */

import type { FacadeComponents, NodeStatus, PeerRoutingStats, PeerStatus } from './api/components.ts';
import type { Engine } from './backends/backend.ts';
import type { Gateway, GatewayView } from './backends/gateway.ts';
import type { ModelIndex } from './network/model-index.ts';
import type { PeerTable, PeerView } from './network/peer-table.ts';
import type { Swarm } from './network/swarm.ts';
import type { BackendHealth } from './routing/backend-health.ts';
import type { Breakers } from './routing/breakers.ts';
import type { RoutingStats } from './routing/routing-stats.ts';
import type { ServiceState } from './routing/service-state.ts';
import type { RoutingSettings } from './routing/settings.ts';
import type { NodeRegistry } from './storage/node-registry.ts';
import type { SecretStore } from './storage/secret-store.ts';
import { version } from './version.ts';

export interface StatusSources {
  readonly engine: Engine;
  readonly table: PeerTable;
  readonly index: ModelIndex;
  readonly gateways: Gateway;
  readonly registry: NodeRegistry;
  readonly secrets: SecretStore;
  readonly stats: RoutingStats;
  readonly breakers: Breakers;
  readonly health: BackendHealth;
  readonly settings: RoutingSettings;
  readonly service: ServiceState;
  readonly swarm: Swarm;
  /** What people see. */
  readonly name: string;
  /** Start of this process, Unix milliseconds. */
  readonly epoch: number;
  /** Base URL of the facade. */
  readonly api: () => string;
}

type StatusViews = Pick<
  FacadeComponents,
  'localModels' | 'remoteModels' | 'aliases' | 'node' | 'peers' | 'routingStats' | 'loadBalancing'
>;

export function statusViews(sources: StatusSources): StatusViews {
  const { engine, table, index, gateways, breakers, stats, settings } = sources;
  const peers = (): readonly PeerStatus[] => [
    ...table.list().map((peer) => peerStatus(peer, sources)),
    ...gateways.list().map((service) => gatewayStatus(service, sources)),
  ];
  const routed = (fingerprint: string): PeerRoutingStats => {
    const { open, consecutiveFailures } = breakers.view(fingerprint);
    return { fingerprint, ...stats.of(fingerprint), circuitOpen: open, consecutiveFailures };
  };
  return {
    localModels: () => engine.catalog(),
    remoteModels: () => [...index.models(), ...gateways.models()],
    aliases: () => settings.aliases?.().list() ?? [],
    node: () => nodeStatus(sources),
    peers,
    routingStats: () => peers().map((peer) => routed(peer.fingerprint)),
    loadBalancing: () => ({
      ...settings.loadBalancing(),
      failureThreshold: breakers.options.failureThreshold,
      resetTimeoutSecs: breakers.options.resetTimeoutMs / 1000,
    }),
  };
}

function nodeStatus({ engine, service, swarm, secrets, name, epoch, api }: StatusSources): NodeStatus {
  return {
    name,
    version,
    fingerprint: swarm.fingerprint,
    epoch,
    uptimeMs: Date.now() - epoch,
    api: api(),
    multiaddrs: swarm.multiaddrs(),
    draining: service.mode === 'draining',
    engineBuild: engine.build,
    secrets: secrets.view(),
  };
}

function peerStatus(peer: PeerView, { registry, health }: StatusSources): PeerStatus {
  const { fingerprint } = peer;
  const refused = peer.status === 'online' && health.isUnauthorized(fingerprint);
  const { priority, boundary } = registry.remote(fingerprint);
  const hasKey = registry.keyOf(fingerprint) !== null;
  const status = refused ? 'unauthorized' : peer.status;
  return { ...peer, status, priority, boundary, hasKey };
}

function gatewayStatus(service: GatewayView, { registry }: StatusSources): PeerStatus {
  const { kind, fingerprint, name, url, status, latencyMs, models } = service;
  const hasKey = service.hasKey ?? registry.keyOf(fingerprint) !== null;
  const { priority, boundary } = service.place ?? registry.remote(fingerprint);
  return {
    ...{ kind, fingerprint, name, url, status, latencyMs, models, hasKey },
    priority,
    boundary,
    addresses: [url],
    version: '',
    load: null,
  };
}
