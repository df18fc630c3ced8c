/** FIRST's part of a node, put together: its federated models, and where its streamed answers arrive. */
import type { FacadeComponents } from './api/components.ts';
import { CallbackInbox } from './api/resource-server/callback-inbox.ts';
import type { Gateway } from './backends/gateway.ts';
import type { Clock } from './common/clock.ts';
import type { Config } from './config.ts';
import { FederatedGateway } from './routing/federated-gateway.ts';
import { Federation } from './routing/federation.ts';
import type { EndpointStates, FixtureSource } from './storage/fixtures/fixture-types.ts';
import { readSecretFile } from './storage/private-file.ts';

export interface FederationParts {
  readonly gateways: Gateway;
  readonly fixtures: FixtureSource;
  readonly states: EndpointStates;
  readonly clock: Clock;
}

/** What the facade gets of it. */
export type FirstFace = Pick<FacadeComponents, 'federation' | 'streamCallbacks'>;

/** The gateways under the rules of the fixtures. */
export function openFederation(
  { gateways, fixtures, states, clock }: FederationParts,
  { prefer, ...rest }: Config['federation'],
): FederatedGateway {
  const options = { ...rest, preferFreeOverQueued: prefer === 'free' };
  return new FederatedGateway({ gateways, federation: new Federation({ fixtures, states, clock }, options) });
}

/**
 * Null while no public URL is configured: remote functions have nowhere to push to then.
 *
 * @throws MeshError `invalid_request` for a secret file that cannot be read, or that holds the secret FIRST publishes.
 */
export async function openStreamCallbacks(
  components: { readonly clock: Clock },
  { publicUrl, secretFile }: Config['streaming'],
): Promise<CallbackInbox | null> {
  if (publicUrl === null) return null;
  const secret = secretFile === null ? null : await readSecretFile(secretFile);
  return new CallbackInbox(components, { publicUrl: publicUrl.replace(/\/$/, ''), secret });
}
