/** The services beyond the mesh that a node fronts, put together. */
import { type Gateway, Gateways } from './backends/gateway.ts';
import { HttpNodes } from './backends/openai-http/http-nodes.ts';
import type { Clock } from './common/clock.ts';
import type { Logger } from './common/logger.ts';
import type { NodeRegistry } from './storage/node-registry.ts';

export interface GatewayComponents {
  readonly registry: NodeRegistry;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** To be started after the registry. */
export function openGateways({ registry, clock, logger }: GatewayComponents): Gateway {
  return new Gateways([new HttpNodes({ registry, clock, logger })]);
}
