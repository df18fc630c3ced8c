/** The services beyond the mesh that a node fronts, put together. */
import { ClusterControl } from './backends/cluster/cluster-control.ts';
import { Clusters } from './backends/cluster/clusters.ts';
import { ProvisionRules } from './backends/cluster-sessions/provision-rules.ts';
import { ProvisionedClusters } from './backends/cluster-sessions/provisioned-clusters.ts';
import { type Gateway, Gateways } from './backends/gateway.ts';
import { HttpNodes } from './backends/openai-http/http-nodes.ts';
import type { Clock } from './common/clock.ts';
import type { Logger } from './common/logger.ts';
import type { Config } from './config.ts';
import { type FirstFace, openFederation, openStreamCallbacks } from './node-federation.ts';
import { openFixtureSites } from './node-fixtures.ts';
import { ClusterRegistry } from './storage/cluster-registry.ts';
import type { EndpointStates, FixtureSource } from './storage/fixtures/fixture-types.ts';
import type { NodeRegistry } from './storage/node-registry.ts';
import type { SecretStore } from './storage/secret-store.ts';

export interface GatewayComponents {
  readonly registry: NodeRegistry;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly secrets: SecretStore;
  /** Gets one line for people. */
  readonly warn: (message: string) => void;
}

/** All of them as one, and what their owner may do with each kind. */
export interface NodeGateways extends Gateway {
  readonly clusters: ClusterControl;
  readonly fixtures: FixtureSource;
  readonly endpointStates: EndpointStates;
  /** FIRST's face: the fixtures as they count now, and where streamed answers from Globus Compute arrive. */
  readonly first: FirstFace;
}

/** To be started after the registry, which starts the secrets too. @throws MeshError when the streaming secret is unusable. */
export async function openGateways(
  { registry, clock, logger, secrets, warn }: GatewayComponents,
  { dataDir, federation, streaming }: Pick<Config, 'dataDir' | 'federation' | 'streaming'>,
): Promise<NodeGateways> {
  const callbacks = await openStreamCallbacks({ clock }, streaming);
  const clusterRegistry = new ClusterRegistry({ clock, warn, secrets }, { dataDir });
  const clusters = new Clusters({ registry: clusterRegistry, clock, logger });
  const rules = new ProvisionRules({ clock, warn }, { dataDir });
  const provisioned = new ProvisionedClusters({ clusters, rules, clock, logger });
  const { fixtures, sites } = openFixtureSites({ secrets, clock, logger, warn, callbacks }, { dataDir });
  const gateways = new Gateways([new HttpNodes({ registry, clock, logger }), provisioned, sites]);
  const control = new ClusterControl({ registry: clusterRegistry, clusters, clock });
  const federated = openFederation({ gateways, fixtures, states: sites, clock }, federation);
  const first = { federation: federated.federation, ...(callbacks !== null && { streamCallbacks: callbacks }) };
  return Object.assign(federated, { clusters: control, fixtures, endpointStates: sites, first });
}
