/** The registered HTTP nodes of this node: one backend each, asked in the background for what they serve. */
import type { InferenceRequest } from '../../../protocols/inference/events.ts';
import type { CancelTimer, Clock } from '../../common/clock.ts';
import type { Logger } from '../../common/logger.ts';
import type { NodeRegistry } from '../../storage/node-registry.ts';
import type { Gateway, GatewayHolder, GatewayModel, GatewayView } from '../gateway.ts';
import { ContinuationBackend } from './continuation-backend.ts';
import { type HttpTarget, keyFor, targetsOf } from './http-target.ts';
import { ManifestWatch } from './manifest-watch.ts';
import { askNamed } from './model-list.ts';
import type { OpenAiHttpLimits } from './openai-exchange.ts';
import { OpenAiHttpBackend } from './openai-http.ts';

export interface HttpNodesComponents {
  readonly registry: Pick<NodeRegistry, 'list' | 'keyOf' | 'onChange'>;
  readonly clock: Clock;
  readonly logger: Logger;
}

export interface HttpNodesOptions {
  /** Between two questions for the model list of a server that answers, milliseconds. Default 30,000. */
  readonly pollMs?: number;
  readonly limits?: Partial<OpenAiHttpLimits>;
}

const POLL_MS = 30_000;
const FIRST_RETRY_MS = 1000;
/** A server that has too much to do is soon looked at again. */
const BUSY_POLL_MS = 5000;

/** A server under observation. */
interface Watched {
  readonly backend: OpenAiHttpBackend;
  readonly continuing: ContinuationBackend;
  /** As of now: what changes without another server being asked is taken over. */
  target: HttpTarget;
  readonly life: AbortController;
  key: string | null;
  polling: Promise<void> | null;
  /** The poll that runs shows the key of before. */
  isStale: boolean;
  cancel: CancelTimer;
}

/** Follows the registry: servers come, go and change while the node runs. */
export class HttpNodes implements Gateway {
  readonly #components: HttpNodesComponents;
  readonly #options: HttpNodesOptions;
  readonly #watched = new Map<string, Watched>();
  readonly #manifests = new Map<string, ManifestWatch>();
  readonly #listeners = new Set<() => void>();
  /** Servers that are not asked. */
  #idle: readonly GatewayView[] = [];
  #unsubscribe: (() => void) | null = null;

  constructor(components: HttpNodesComponents, options: HttpNodesOptions = {}) {
    this.#components = components;
    this.#options = options;
  }

  /** The registry must have been started. Waits for no server. */
  start(): void {
    if (this.#unsubscribe !== null) return;
    this.#unsubscribe = this.#components.registry.onChange(() => this.#follow());
    this.#follow();
  }

  async stop(): Promise<void> {
    this.#unsubscribe?.();
    this.#unsubscribe = null;
    const manifests = [...this.#manifests.values()].map((manifest) => manifest.stop());
    const polls = [...this.#watched.values()].map((watched) => watched.polling);
    for (const watched of this.#watched.values()) {
      this.#end(watched);
      watched.backend.close();
    }
    this.#watched.clear();
    this.#manifests.clear();
    this.#idle = [];
    await Promise.allSettled([...polls, ...manifests]);
  }

  /** Who has a model, in the order of the registry; a server that is offline has none. */
  holders(modelId: string): readonly GatewayHolder[] {
    return [...this.#watched.values()].flatMap(({ backend, continuing, target: { node } }) => {
      const entry = backend.models.find((model) => model.id === modelId);
      if (entry === undefined) return [];
      const { priority, boundary, shared } = node;
      const continuesText = (request: InferenceRequest): boolean => continuing.continuesText(request);
      const suspect = backend.status !== 'online';
      return [{ backend: continuing, entry, suspect, continuesText, shared, place: { priority, boundary } }];
    });
  }

  /** Every model of every server that can be used now. */
  models(): readonly GatewayModel[] {
    return [...this.#watched.values()].flatMap(({ backend, target: { node } }) => {
      const { shared, boundary } = node;
      if (backend.status === 'unauthorized') return [];
      return backend.models.map((entry) => ({ fingerprint: backend.id, entry, shared, boundary }));
    });
  }

  list(): readonly GatewayView[] {
    const asked = [...this.#watched.values()].map((watched) => this.#view(watched));
    return [...asked, ...this.#idle];
  }

  /** A server said that it does not serve a model after all: as the model index's `drop`. Unknown ids are ignored. */
  drop(fingerprint: string, modelId: string): void {
    this.#watched.get(fingerprint)?.backend.forget(modelId);
  }

  /** Called after each change of `models()` or of a status; returns the unsubscribe. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #view({ target, backend, key }: Watched): GatewayView {
    const { fingerprint, name, shownUrl, node } = target;
    const { status, latencyMs, models } = backend;
    const stale = this.#manifests.get(node.fingerprint)?.problem ?? null;
    const problem = backend.problem ?? stale;
    const { priority, boundary } = node;
    const said = { hasKey: key !== null, place: { priority, boundary } };
    return { fingerprint, kind: 'http', name, url: shownUrl, status, latencyMs, models, problem, ...said };
  }

  #follow(): void {
    const nodes = this.#components.registry.list();
    const manifests = nodes.flatMap(({ fingerprint, manifest }) =>
      manifest === null ? [] : [[fingerprint, manifest] as const],
    );
    this.#followManifests(new Map(manifests));
    const all = nodes.map((node) => targetsOf(node, this.#manifests.get(node.fingerprint) ?? null));
    this.#idle = all.flatMap(({ idle }) => idle);
    const wanted = new Map(all.flatMap(({ targets }) => targets).map((target) => [target.fingerprint, target]));
    for (const [fingerprint, watched] of this.#watched) {
      const target = wanted.get(fingerprint);
      if (target !== undefined && isSameServer(target, watched.target)) continue;
      this.#end(watched);
      this.#watched.delete(fingerprint);
    }
    for (const target of wanted.values()) {
      const watched = this.#watched.get(target.fingerprint);
      if (watched === undefined) this.#begin(target);
      else {
        watched.target = target;
        this.#rekey(watched);
      }
    }
    this.#changed();
  }

  #followManifests(wanted: ReadonlyMap<string, string>): void {
    for (const [fingerprint, watch] of this.#manifests) {
      if (wanted.get(fingerprint) === watch.manifest) continue;
      void watch.stop();
      this.#manifests.delete(fingerprint);
    }
    const { clock } = this.#components;
    for (const [fingerprint, manifest] of wanted) {
      if (this.#manifests.has(fingerprint)) continue;
      const watch = new ManifestWatch({ clock, onChange: () => this.#follow() }, { manifest });
      this.#manifests.set(fingerprint, watch);
      watch.look();
    }
  }

  #keyOf(target: HttpTarget): string | null {
    return keyFor(target, this.#components.registry.keyOf(target.node.fingerprint));
  }

  #begin(target: HttpTarget): void {
    const { clock } = this.#components;
    const { fingerprint, name, url, publicOnly, models } = target;
    const { limits } = this.#options;
    const options = { fingerprint, name, url, publicOnly, ...(limits !== undefined && { limits }) };
    const backend = new OpenAiHttpBackend(
      {
        clock,
        key: () => this.#keyOf(watched.target),
        onChange: () => this.#changed(),
        onTrouble: () => this.#pollIn(watched, FIRST_RETRY_MS),
        ...(models !== null && { askModels: askNamed(models) }),
      },
      options,
    );
    const life = new AbortController();
    const continuing = new ContinuationBackend({ backend, clock }, options);
    const polled = { polling: null, isStale: false, cancel: () => {} };
    const watched: Watched = { backend, continuing, target, life, key: this.#keyOf(target), ...polled };
    this.#watched.set(fingerprint, watched);
    this.#poll(watched);
  }

  /** Asked no longer; requests that run there go on to their end. */
  #end({ backend, life, cancel }: Watched): void {
    cancel();
    life.abort();
    backend.retire();
  }

  #rekey(watched: Watched): void {
    const key = this.#keyOf(watched.target);
    if (key === watched.key) return;
    watched.key = key;
    watched.backend.rekeyed();
    if (watched.polling === null) this.#poll(watched);
    else watched.isStale = true;
  }

  #poll(watched: Watched): void {
    if (watched.polling !== null || watched.life.signal.aborted) return;
    const { backend, life, target } = watched;
    const before = backend.status;
    watched.cancel();
    watched.isStale = false;
    watched.polling = backend
      .poll(life.signal)
      .then(
        () => {
          const { status, problem } = backend;
          const facts = { node: target.name, status, problem };
          if (status !== before) this.#components.logger.info(facts, 'an HTTP node changed its status');
          // Whoever was away may have come back as another program.
          if (status !== before && status === 'online') void this.#probe(watched);
          this.#pollIn(watched, this.#delayMs(backend));
        },
        () => {},
      )
      .finally(() => {
        watched.polling = null;
        if (watched.isStale) this.#poll(watched);
      });
  }

  /** Never rejects. */
  #probe({ continuing, life, key }: Watched): Promise<void> {
    return continuing.probe({ key, signal: life.signal });
  }

  #pollIn(watched: Watched, delayMs: number): void {
    watched.cancel();
    if (watched.life.signal.aborted) return;
    watched.cancel = this.#components.clock.after(delayMs, () => this.#poll(watched));
  }

  /** A dead server is asked after 1, 2, 4, … seconds, at last as seldom as one that lives. */
  #delayMs({ failures, status }: OpenAiHttpBackend): number {
    const pollMs = this.#options.pollMs ?? POLL_MS;
    if (failures === 0) return status === 'busy' ? Math.min(pollMs, BUSY_POLL_MS) : pollMs;
    return Math.min(pollMs, FIRST_RETRY_MS * 2 ** Math.min(failures - 1, 10));
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }
}

/** What else its owner or manifest says of it may change without its being asked anew. */
function isSameServer(a: HttpTarget, b: HttpTarget): boolean {
  const models = (target: HttpTarget): string => JSON.stringify(target.models);
  const sameKey = a.endpointId === b.endpointId && a.publicOnly === b.publicOnly;
  return a.url === b.url && a.name === b.name && sameKey && models(a) === models(b);
}
