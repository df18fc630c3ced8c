/** A facade with FIRST's face over the real routing core; each endpoint of the fixtures is a real server. */
import type { FacadeComponents, FacadeOptions } from '../../node/api/components.ts';
import { OpenAiHttpBackend } from '../../node/backends/openai-http/openai-http.ts';
import { systemClock } from '../../node/common/clock.ts';
import { FederatedGateway } from '../../node/routing/federated-gateway.ts';
import { DEFAULT_FEDERATION, Federation, type FederationOptions } from '../../node/routing/federation.ts';
import type { Fixtures } from '../../node/storage/fixtures/fixture-types.ts';
import { FirstParts, type Held, HeldGateway } from './first-parts.ts';
import { loneDispatcher } from './lone-routing.ts';
import { OpenAiServer } from './openai-server.ts';
import { ScriptedEngine } from './scripted-engine.ts';
import { type ScriptedFacade, startFacade } from './scripted-facade.ts';

export interface FirstFace {
  readonly url: string;
  readonly parts: FirstParts;
  readonly gateway: HeldGateway;
  readonly federation: Federation;
  readonly facade: ScriptedFacade;
  /** The server of an endpoint, by its slug. */
  server(slug: string): OpenAiServer;
  stop(): Promise<void>;
}

export interface FirstFaceOptions {
  readonly fixtures: Partial<Fixtures>;
  readonly federation?: Partial<FederationOptions>;
  /** Models of the engine here. */
  readonly local?: readonly string[];
  readonly facade?: Partial<FacadeOptions>;
  readonly views?: Partial<FacadeComponents>;
}

/** Starts all of it on loopback. */
export async function startFirstFace(options: FirstFaceOptions): Promise<FirstFace> {
  const parts = new FirstParts(options.fixtures);
  const servers = new Map<string, OpenAiServer>();
  const held: Held[] = [];
  for (const { slug, model } of parts.current().endpoints) {
    const server = await OpenAiServer.start();
    servers.set(slug, server);
    const where = { fingerprint: `globus:${slug}`, name: slug, url: server.url };
    held.push({ model, backend: new OpenAiHttpBackend({ clock: systemClock, key: () => null }, where) });
  }
  const gateway = new HeldGateway(held);
  const federation = new Federation(
    { fixtures: parts, states: parts, clock: systemClock },
    { ...DEFAULT_FEDERATION, ...options.federation },
  );
  const gateways = new FederatedGateway({ gateways: gateway, federation });
  const local = new ScriptedEngine({ fingerprint: '12D3KooWHere', models: options.local ?? [], tokenDelayMs: 0 });
  const dispatcher = loneDispatcher({ local, gateways });
  const facade = await startFacade({}, options.facade, {
    dispatcher,
    federation,
    localModels: () => local.catalog(),
    remoteModels: () => gateways.models(),
    ...options.views,
  });
  return {
    url: `${facade.url}/resource_server`,
    ...{ parts, gateway, federation, facade },
    server(slug) {
      const server = servers.get(slug);
      if (server === undefined) throw new Error(`no fixture ${slug}`);
      return server;
    },
    async stop() {
      await facade.stop();
      for (const server of servers.values()) await server.stop();
    },
  };
}
