/** What the gateway of fixtures needs of one endpoint, of either kind. */
import type { EndpointState, FixtureEndpoint } from '../../storage/fixtures/fixture-types.ts';
import type { GatewayHolder, GatewayView } from '../gateway.ts';

export interface FixtureSite {
  readonly endpoint: FixtureEndpoint;
  /** As `Backend.id`. */
  readonly fingerprint: string;
  readonly state: EndpointState;
  /** Of its cluster; null when unknown. */
  readonly freeNodes: number | null;
  /** Null while it cannot be asked at all. */
  holder(): GatewayHolder | null;
  view(): GatewayView;
  /** The server said that it does not serve the model after all. */
  drop(): void;
  /** Credentials may be others now. */
  rekeyed(): void;
  /** Asked no longer; requests that run there go on. */
  retire(): Promise<void>;
  /** Breaks what runs. */
  close(): void;
}
