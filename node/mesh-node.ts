/** THE file to read: every part of a node, built and started in order, stopped in reverse. */

import { type InferenceHandler, serveInference } from '../protocols/inference/server.ts';
import { CATALOG_PROTOCOL, INFERENCE_PROTOCOL } from '../protocols/protocol-id.ts';
import { Facade } from './api/server.ts';
import type { Engine } from './backends/backend.ts';
import { demoModelPath } from './backends/llama-cpp/demo/demo-model.ts';
import { LlamaEngine } from './backends/llama-cpp/engine.ts';
import { PeerBackend } from './backends/peer.ts';
import { abortable, systemClock } from './common/clock.ts';
import { type Startable, startAll, stopAll } from './common/lifecycle.ts';
import type { Logger } from './common/logger.ts';
import { Metrics } from './common/metrics.ts';
import type { Config } from './config.ts';
import { type ConfigSource, ConfigWatch } from './config-watch.ts';
import { engineEvent, peerEvent } from './event-source.ts';
import { keptListen } from './kept-listen.ts';
import { CatalogExchange } from './network/catalog-exchange.ts';
import { Discovery } from './network/discovery.ts';
import { ModelIndex } from './network/model-index.ts';
import { PeerStreams } from './network/peer-streams.ts';
import { PeerTable } from './network/peer-table.ts';
import { ProviderRecords } from './network/provider-records.ts';
import { type StreamHandler, Swarm } from './network/swarm.ts';
import { openBatches } from './node-batches.ts';
import type { NodeEvent } from './node-event.ts';
import { openGateways } from './node-gateways.ts';
import { openSecrets } from './node-secrets.ts';
import { routingSettings } from './node-settings.ts';
import { statusViews } from './node-status.ts';
import { ownCatalog } from './own-catalog.ts';
import { Admission } from './routing/admission.ts';
import { BackendHealth } from './routing/backend-health.ts';
import { Breakers } from './routing/breakers.ts';
import { Inbound } from './routing/inbound.ts';
import { MeshDispatcher } from './routing/mesh-dispatcher.ts';
import { PeerQuota } from './routing/peer-quota.ts';
import { RequestLog } from './routing/request-log.ts';
import { Router } from './routing/router.ts';
import { RoutingStats } from './routing/routing-stats.ts';
import { ServiceState } from './routing/service-state.ts';
import { SharedBackends } from './routing/shared-backends.ts';
import { prepareDataDir } from './storage/data-dir.ts';
import { DataDirLock } from './storage/data-dir-lock.ts';
import { loadIdentity } from './storage/identity.ts';
import { IssuedKeys } from './storage/issued-keys.ts';
import { KnownPeers } from './storage/known-peers.ts';
import { ModelFiles } from './storage/model-files.ts';
import { NodeRegistry } from './storage/node-registry.ts';
import { readSecretFile } from './storage/private-file.ts';
import { RuntimeFile } from './storage/runtime-file.ts';
import type { PassphraseSource } from './storage/secret-keys.ts';
import { StateFile } from './storage/state-file.ts';
import { version } from './version.ts';

/** What may be put in place of a part: for tests with faults that real parts do not have on demand. */
export interface MeshNodeParts {
  readonly logger: Logger;
  /** Where the configuration came from: followed while the node runs. Absent: it is what it was at the start. */
  readonly source?: ConfigSource;
  /** Asks for the passphrase of encrypted keys, where no file has it. Absent: nobody can be asked. */
  readonly passphrase?: PassphraseSource;
  /** Default: llama.cpp. */
  readonly engine?: (components: { fingerprint: string; models: ModelFiles; logger: Logger }) => Engine;
}

/** A stop in all: answers get the first part of it to finish. */
const STOP_BOUND_MS = 30_000;
const FINISH_BOUND_MS = 25_000;

/** Own programs send bursts (an agent's tools, a batch of tests): the predicted wait, not the number, is to refuse. */
const QUEUE_PER_SLOT = 16;

/** As many as a busy node asks of one peer at once: an idle stream costs little, opening one a millisecond on each side. */
const IDLE_STREAMS_PER_PEER = 64;

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
  readonly #service = new ServiceState();

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
    const warn = (message: string): void => this.#emit({ event: 'warning', message });

    // What the owner may change while the node runs.
    const source = this.#parts.source ?? null;
    const watch = source && new ConfigWatch({ clock, source, warn }, config.loadBalancing);
    const secrets = openSecrets({ clock, warn, passphrase: this.#parts.passphrase }, config);
    const registry = new NodeRegistry({ clock, warn, secrets }, config);
    const keys = new IssuedKeys({ clock }, config);
    const settings = routingSettings({ watch, registry }, config);

    // Models and the engine that runs them.
    const models = new ModelFiles(
      { clock, warn },
      { dataDir: config.dataDir, ...config.models, demoPath: demoModelPath() },
    );
    // The swarm: its handlers are lent by parts that are built after it.
    const disconnect = (peer: string): void => swarm.disconnect(peer);
    const reserveBytes = (bytes: number): (() => void) | null => inbound.reserveBytes(bytes);
    const serve: StreamHandler = (stream, from) => {
      const onViolation = (): void => disconnect(from);
      const handler: InferenceHandler = (request, context) => inbound.serve(request, context);
      return serveInference(stream, from, handler, { clock, reserveBytes, onViolation });
    };
    const handlers = new Map<string, StreamHandler>([
      [CATALOG_PROTOCOL, (stream, from) => exchange.serve(stream, from)],
      [INFERENCE_PROTOCOL, serve],
    ]);
    const { mdns, dht, peers } = config.network;
    const swarm = new Swarm({ clock, logger }, { privateKey, handlers, listen, mdns, dht });
    const { fingerprint } = swarm;
    const engine =
      this.#parts.engine?.({ fingerprint, models, logger }) ??
      new LlamaEngine({ fingerprint, models, clock, logger }, { ...config.engine, pinned: config.models.pin });

    // Who is there, and what they serve.
    const table = new PeerTable();
    const index = new ModelIndex({ table });
    const knownPeers = new KnownPeers({ clock, logger }, { dataDir: config.dataDir });
    const queued = (): number => admission.load().queued;
    const who = { name: config.name, epoch: this.#epoch, service: this.#service };
    const self = ownCatalog({ ...who, engine, queued, shared: () => shared.catalog() });
    const exchange: CatalogExchange = new CatalogExchange(
      { clock, logger, swarm, table, self },
      { onHints: (addresses) => discovery.hints(addresses) },
    );
    const isSilent = (peer: string): boolean => exchange.isSilent(peer);
    const discovery: Discovery = new Discovery({ clock, logger, swarm, table, knownPeers, isSilent }, { peers });
    const streams = new PeerStreams({ clock, logger, swarm }, { idleLimit: IDLE_STREAMS_PER_PEER });
    const ownIds = (): string[] => engine.catalog().map((entry) => entry.id);
    const providers = new ProviderRecords({ clock, logger, swarm, table, models: ownIds });

    // Where a request goes, whoever asks.
    const admission = new Admission({ engine, clock, state: this.#service }, { queuePerSlot: QUEUE_PER_SLOT });
    const gateways = await openGateways({ registry, clock, logger, secrets, warn }, config);
    const stats = new RoutingStats({ clock });
    const breakers = new Breakers({ clock });
    const health = new BackendHealth({ breakers, clock, ownTrouble: () => exchange.isStrained() });
    const requestLog = new RequestLog({ clock });
    const authorization = (peer: string): string | null => registry.keyOf(peer);
    const peerBackend = (peer: string): PeerBackend =>
      new PeerBackend({ streams, peers: table, clock, authorization, onViolation: disconnect }, peer);
    const { local } = admission;
    const remote = { index, providers, peerBackend, gateways };
    const router = new Router({ local, engineBuild: engine.build, ...remote, stats, settings });
    const routing = { router, breakers, health, stats, settings, requestLog };
    const dispatcher = new MeshDispatcher({ ...routing, metrics, clock, logger });
    const quota = new PeerQuota({ clock });
    const onChange = (): void => exchange.changed();
    const shared = new SharedBackends({ ...routing, gateways, metrics, clock, logger, onChange }, { fingerprint });
    const service = { state: this.#service, keys, quota };
    const inbound: Inbound = new Inbound({ local: engine, admission, shared, metrics, ...service });

    const batches = openBatches({ ...routing, admission, metrics, clock, logger, warn, state: this.#service }, config);

    // What clients see.
    const about = { ...who, swarm, api: () => facade.address() };
    const facade: Facade = new Facade(
      {
        ...statusViews({ ...routing, ...about, engine, table, index, gateways, registry, secrets }),
        dispatcher,
        ...(watch !== null && { setLoadBalancing: (patch) => watch.set(patch) }),
        ...(engine.residency !== undefined && { residency: engine.residency }),
        requestRecord: (idOrLabel) => requestLog.get(idOrLabel),
        service: this.#service,
        batches,
        clusters: gateways.clusters,
        ...gateways.first,
        events: (listener) => this.onEvent(listener),
        metrics,
        logger,
        clock,
      },
      { ...config.facade, apiKey },
    );

    engine.onCatalogChange(() => {
      exchange.changed();
      providers.changed();
    });
    this.#service.onChange(onChange);
    watch?.onLoad(({ upstreams }) => registry.configure(upstreams));
    registry.onChange(() => {
      for (const { fingerprint: known } of [...registry.list(), ...gateways.list()]) health.clearUnauthorized(known);
    });
    engine.onEvent((event) => this.#emit(engineEvent(event)));
    table.onChange((change) => {
      const { kind, peer, reason } = change;
      if (kind === 'up') health.peerReturned(peer.fingerprint);
      if (kind === 'down' && reason === 'lost') health.peerLost(peer.fingerprint, table.onlineCount());
      const event = peerEvent(change);
      if (event !== null) this.#emit(event);
    });
    metrics.gauge('meshnode_peers_online', 'Peers whose models can be used now.', () => table.onlineCount());
    metrics.gauge('meshnode_inbound_requests', 'Requests of peers that run or wait here.', () => inbound.active());

    const owned = watch === null ? [registry] : [watch, registry];
    const swarmParts = [knownPeers, swarm, exchange, streams, providers, discovery];
    const parts = [...owned, models, engine, ...swarmParts, gateways, batches, facade];
    await startAll(parts, () => AbortSignal.timeout(STOP_BOUND_MS));
    this.#running = { facade, inbound, exchange, parts };
    await stateFile.write({ listenPort: swarm.listenPort });
    const api = facade.address();
    await this.#runtimeFile.write({ pid: process.pid, api, fingerprint, startedAt: this.#epoch });
    const ready = { api, fingerprint, multiaddrs: swarm.multiaddrs(), pid: process.pid, name: config.name, version };
    this.#emit({ event: 'ready', ...ready, models: ownIds() });
  }

  async #stop(): Promise<void> {
    await this.#starting?.catch(() => {});
    const running = this.#running;
    this.#running = null;
    if (running === null) return;
    const { facade, inbound, exchange, parts } = running;
    const bound = AbortSignal.timeout(STOP_BOUND_MS);
    const finish = AbortSignal.timeout(FINISH_BOUND_MS);
    this.#service.close();
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

  #emit(event: NodeEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}
