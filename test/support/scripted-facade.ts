/** A facade on a free loopback port in front of a scripted dispatcher. */
import type { FacadeComponents, FacadeOptions, PeerStatus } from '../../node/api/components.ts';
import { Facade } from '../../node/api/server.ts';
import { systemClock } from '../../node/common/clock.ts';
import { silentLogger } from '../../node/common/logger.ts';
import { Metrics } from '../../node/common/metrics.ts';
import type { CatalogEntry } from '../../protocols/catalog/catalog.ts';
import { type Script, ScriptedDispatcher } from './scripted-backend.ts';

export function catalogEntry(id: string, overrides: Partial<CatalogEntry> = {}): CatalogEntry {
  return {
    id,
    digest: null,
    quantization: 'F16',
    contextLength: 2048,
    sizeBytes: 5_000_000,
    state: 'resident',
    slots: 4,
    tokensPerSecond: null,
    ...overrides,
  };
}

export const OTHER_NODE = '12D3KooWOther';

export function peerStatus(overrides: Partial<PeerStatus> = {}): PeerStatus {
  return {
    fingerprint: OTHER_NODE,
    name: 'other',
    version: '0.1.0',
    status: 'online',
    addresses: ['/ip4/127.0.0.1/tcp/8643'],
    latencyMs: 12,
    load: { inFlight: 0, queued: 0, engineAgeMs: 0, draining: false },
    models: [catalogEntry('far/model')],
    priority: 5,
    ...overrides,
  };
}

export interface ScriptedFacade {
  readonly facade: Facade;
  readonly dispatcher: ScriptedDispatcher;
  readonly url: string;
  readonly port: number;
  readonly metrics: Metrics;
  stop(): Promise<void>;
}

/** Starts one; every script is a local model, and one peer has `far/model`. */
export async function startFacade(
  scripts: Readonly<Record<string, Script>>,
  options: Partial<FacadeOptions> = {},
  views: Partial<FacadeComponents> = {},
): Promise<ScriptedFacade> {
  const dispatcher = new ScriptedDispatcher(scripts);
  const metrics = new Metrics();
  const facade: Facade = new Facade(
    {
      dispatcher,
      localModels: () => Object.keys(scripts).map((id) => catalogEntry(id)),
      remoteModels: () => [{ fingerprint: OTHER_NODE, entry: catalogEntry('far/model') }],
      node: () => ({
        name: 'here',
        version: '0.1.0',
        fingerprint: '12D3KooWHere',
        epoch: 1_760_000_000_123,
        uptimeMs: 1000,
        api: facade.address(),
        multiaddrs: [],
        draining: false,
        engineBuild: 'b1234',
      }),
      peers: () => [peerStatus()],
      routingStats: () => [
        {
          fingerprint: OTHER_NODE,
          totalRequests: 150,
          successCount: 147,
          failureCount: 3,
          avgLatencyMs: 42.5,
          activeRequests: 2,
          circuitOpen: false,
          consecutiveFailures: 0,
        },
      ],
      loadBalancing: () => ({ enabled: true, strategy: 'least-loaded', failureThreshold: 3, resetTimeoutSecs: 60 }),
      metrics,
      logger: silentLogger,
      clock: systemClock,
      ...views,
    },
    { host: '127.0.0.1', port: 0, apiKey: null, allowHosts: [], allowOrigins: [], ...options },
  );
  await facade.start();
  const url = facade.address();
  const stop = async (): Promise<void> => facade.stop(AbortSignal.abort());
  return { facade, dispatcher, url, port: Number(new URL(url).port), metrics, stop };
}
