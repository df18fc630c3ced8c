/** THE file to read: every part of a node, built and started in order, stopped in reverse. */

import { serveInference } from '../protocols/inference/server.ts';
import { CATALOG_PROTOCOL, INFERENCE_PROTOCOL } from '../protocols/protocol-id.ts';
import { Facade } from './api/server.ts';
import type { Engine, EngineEvent } from './backends/backend.ts';
import { demoModelPath } from './backends/llama-cpp/demo/demo-model.ts';
import { LlamaEngine } from './backends/llama-cpp/engine.ts';
import { PeerBackend } from './backends/peer.ts';
import { abortable, systemClock } from './common/clock.ts';
import { type Startable, startAll, stopAll } from './common/lifecycle.ts';
import type { Logger } from './common/logger.ts';
import { Metrics } from './common/metrics.ts';
import type { Config } from './config.ts';
import { CatalogExchange } from './network/catalog-exchange.ts';
import { Discovery } from './network/discovery.ts';
import { ModelIndex } from './network/model-index.ts';
import { PeerStreams } from './network/peer-streams.ts';
import { type PeerChange, PeerTable } from './network/peer-table.ts';
import { ProviderRecords } from './network/provider-records.ts';
import { type StreamHandler, Swarm } from './network/swarm.ts';
import type { NodeEvent } from './node-event.ts';
import { statusViews } from './node-status.ts';
import { Breakers } from './routing/breakers.ts';
import { Inbound } from './routing/inbound.ts';
import { MeshDispatcher } from './routing/mesh-dispatcher.ts';
import { Router } from './routing/router.ts';
import { RoutingStats } from './routing/routing-stats.ts';
import { prepareDataDir } from './storage/data-dir.ts';
import { DataDirLock } from './storage/data-dir-lock.ts';
import { loadIdentity } from './storage/identity.ts';
import { KnownPeers } from './storage/known-peers.ts';
import { ModelFiles } from './storage/model-files.ts';
import { readSecretFile } from './storage/private-file.ts';
import { RuntimeFile } from './storage/runtime-file.ts';
import { StateFile } from './storage/state-file.ts';
import { version } from './version.ts';

/** What may be put in place of a part: for tests with faults that real parts do not have on demand. */
export interface MeshNodeParts {
  readonly logger: Logger;
  /** Default: llama.cpp. */
  readonly engine?: (components: { fingerprint: string; models: ModelFiles; logger: Logger }) => Engine;
}

/** A stop in all: answers get the first part of it to finish. */
const STOP_BOUND_MS = 30_000;
const FINISH_BOUND_MS = 25_000;

/** The parts of a node that runs. */
interface Running {
  readonly facade: Facade;
  readonly inbound: Inbound;
  readonly exchange: CatalogExchange;
  /** In start order. */
  readonly parts: readonly Startable[];
}

export class MeshNode {
  readonly #config: Config;
  readonly #parts: MeshNodeParts;
  readonly #listeners = new Set<(event: NodeEvent) => void>();
  readonly #runtimeFile: RuntimeFile;
  readonly #lock: DataDirLock;
  readonly #epoch = Date.now();
  #starting: Promise<void> | null = null;
  #stopping: Promise<void> | null = null;
  #running: Running | null = null;
  #draining = false;

  constructor(config: Config, parts: MeshNodeParts) {
    this.#config = config;
    this.#parts = parts;
    this.#runtimeFile = new RuntimeFile(config.dataDir);
    this.#lock = new DataDirLock(config.dataDir);
  }

  /** Subscribe before `start`; returns the unsubscribe. */
  onEvent(listener: (event: NodeEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** @throws MeshError with one line that names what to do; nothing is left running then. */
  start(): Promise<void> {
    this.#starting ??= this.#start();
    return this.#starting;
  }

  /** Refuses new work, says goodbye to peers, finishes what runs (30 s at most), ends. Idempotent. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #start(): Promise<void> {
    await prepareDataDir(this.#config.dataDir);
    await this.#lock.start();
    try {
      await this.#build();
    } catch (error) {
      this.#lock.stop();
      throw error;
    }
  }

  async #build(): Promise<void> {
    const config = this.#config;
    const { logger } = this.#parts;
    const clock = systemClock;
    const metrics = new Metrics();
    const stateFile = new StateFile(config.dataDir);
    const privateKey = await loadIdentity(config.dataDir);
    const apiKey = config.facade.apiKeyFile === null ? null : await readSecretFile(config.facade.apiKeyFile);
    const listen = keptListen(config.network.listen, (await stateFile.read()).listenPort);

    // Models and the engine that runs them.
    const models = new ModelFiles(
      { clock, warn: (message) => this.#emit({ event: 'warning', message }) },
      { dataDir: config.dataDir, ...config.models, demoPath: demoModelPath() },
    );
    // The swarm: its handlers are lent by parts that are built after it.
    const handlers = new Map<string, StreamHandler>([
      [CATALOG_PROTOCOL, (stream, from) => exchange.serve(stream, from)],
      [
        INFERENCE_PROTOCOL,
        (stream, from) => {
          const reserveBytes = (bytes: number): (() => void) | null => inbound.reserveBytes(bytes);
          return serveInference(stream, from, (request, context) => inbound.serve(request, context), {
            clock,
            reserveBytes,
            onViolation: () => disconnect(from),
          });
        },
      ],
    ]);
    const { mdns, dht, peers } = config.network;
    const swarm = new Swarm({ clock, logger }, { privateKey, handlers, listen, mdns, dht });
    const { fingerprint } = swarm;
    const disconnect = (peer: string): void => swarm.disconnect(peer);
    const engine =
      this.#parts.engine?.({ fingerprint, models, logger }) ??
      new LlamaEngine({ fingerprint, models, clock, logger }, config.engine);

    // Who is there, and what they serve.
    const table = new PeerTable();
    const index = new ModelIndex({ table });
    const knownPeers = new KnownPeers({ clock, logger }, { dataDir: config.dataDir });
    const self = {
      hello: () => ({ version, name: config.name, epoch: this.#epoch, engineBuild: engine.build }),
      entries: () => engine.catalog(),
      load: () => ({ ...engine.load(), draining: this.#draining }),
    };
    const exchange: CatalogExchange = new CatalogExchange(
      { clock, logger, swarm, table, self },
      { onHints: (addresses) => discovery.hints(addresses) },
    );
    const isSilent = (peer: string): boolean => exchange.isSilent(peer);
    const discovery: Discovery = new Discovery({ clock, logger, swarm, table, knownPeers, isSilent }, { peers });
    const streams = new PeerStreams({ clock, logger, swarm });
    const ownIds = (): string[] => engine.catalog().map((entry) => entry.id);
    const providers = new ProviderRecords({ clock, logger, swarm, table, models: ownIds });

    // Where a request goes, whoever asks.
    const stats = new RoutingStats();
    const breakers = new Breakers({ clock });
    const peerBackend = (peer: string): PeerBackend =>
      new PeerBackend({ streams, peers: table, clock, onViolation: disconnect }, peer);
    const router = new Router({ local: engine, index, providers, stats, peerBackend });
    const dispatcher = new MeshDispatcher({ router, breakers, stats, metrics, clock, logger });
    const inbound: Inbound = new Inbound({ local: engine, metrics, isDraining: () => this.#draining });

    // What clients see.
    const { host, port, allowHosts, allowOrigins } = config.facade;
    const facade: Facade = new Facade(
      {
        ...statusViews({ engine, table, index, stats, breakers, self: () => this.#self(facade, swarm) }),
        dispatcher,
        metrics,
        logger,
        clock,
      },
      { host, port, apiKey, allowHosts, allowOrigins },
    );

    engine.onCatalogChange(() => {
      exchange.changed();
      providers.changed();
    });
    engine.onEvent((event) => this.#emit(ofEngine(event)));
    table.onChange((change) => this.#peerChanged(change));
    metrics.gauge('meshnode_peers_online', 'Peers whose models can be used now.', () => onlineCount(table));
    metrics.gauge('meshnode_inbound_requests', 'Requests of peers that run or wait here.', () => inbound.active());

    const parts = [models, engine, knownPeers, swarm, exchange, streams, providers, discovery, facade];
    await startAll(parts, () => AbortSignal.timeout(STOP_BOUND_MS));
    this.#running = { facade, inbound, exchange, parts };
    await stateFile.write({ listenPort: swarm.listenPort });
    const api = facade.address();
    await this.#runtimeFile.write({ pid: process.pid, api, fingerprint, startedAt: this.#epoch });
    const multiaddrs = swarm.multiaddrs();
    this.#emit({
      event: 'ready',
      api,
      fingerprint,
      multiaddrs,
      pid: process.pid,
      name: config.name,
      version,
      models: ownIds(),
    });
  }

  async #stop(): Promise<void> {
    await this.#starting?.catch(() => {});
    const running = this.#running;
    this.#running = null;
    if (running === null) return;
    const { facade, inbound, exchange, parts } = running;
    const bound = AbortSignal.timeout(STOP_BOUND_MS);
    const finish = AbortSignal.timeout(FINISH_BOUND_MS);
    this.#draining = true;
    facade.drain();
    this.#emit({ event: 'draining' });
    await abortable(exchange.goodbye(), finish).catch(() => {});
    await Promise.allSettled([facade.stop(finish), inbound.whenIdle(finish)]);
    for (const failure of await stopAll(parts, bound))
      this.#parts.logger.warn({ failure }, 'a part did not stop cleanly');
    await this.#runtimeFile.remove();
    this.#lock.stop();
    this.#emit({ event: 'stopped' });
  }

  #self(facade: Facade, swarm: Swarm) {
    return {
      name: this.#config.name,
      version,
      fingerprint: swarm.fingerprint,
      epoch: this.#epoch,
      uptimeMs: Date.now() - this.#epoch,
      api: facade.address(),
      multiaddrs: swarm.multiaddrs(),
      draining: this.#draining,
    };
  }

  #peerChanged({ kind, peer, reason }: PeerChange): void {
    const { fingerprint, name } = peer;
    const models = peer.models.map((entry) => entry.id);
    if (kind === 'up') this.#emit({ event: 'peer_up', fingerprint, name, models });
    if (kind === 'models') this.#emit({ event: 'peer_models', fingerprint, name, models });
    if (kind === 'down') this.#emit({ event: 'peer_down', fingerprint, name, reason: reason ?? 'lost' });
  }

  #emit(event: NodeEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}

/** The listen addresses with the port of the last run, when that was one of the next after a taken one. */
function keptListen(listen: readonly string[], kept: number | null): readonly string[] {
  return listen.map((address) => {
    const wanted = Number(/\/tcp\/(\d+)$/.exec(address)?.[1] ?? 0);
    const wasShifted = kept !== null && wanted !== 0 && kept > wanted && kept <= wanted + MAX_PORT_SHIFT;
    return wasShifted ? address.replace(/\d+$/, String(kept)) : address;
  });
}

/** As far as the swarm moves on from a taken port. */
const MAX_PORT_SHIFT = 20;

const onlineCount = (table: PeerTable): number => table.list().filter((peer) => peer.status === 'online').length;

function ofEngine(event: EngineEvent): NodeEvent {
  const { model } = event;
  if (event.type === 'loading') return { event: 'model_loading', model, fraction: event.fraction };
  if (event.type === 'resident') return { event: 'model_resident', model, loadMs: event.loadMs };
  return { event: 'model_failed', model, message: event.message };
}
