/** The registered HTTP nodes of this node: one backend each, asked in the background for what they serve. */
import type { CatalogEntry } from '../../../protocols/catalog/catalog.ts';
import type { InferenceRequest } from '../../../protocols/inference/events.ts';
import type { CancelTimer, Clock } from '../../common/clock.ts';
import type { Logger } from '../../common/logger.ts';
import type { NodeRegistry, RemoteNode } from '../../storage/node-registry.ts';
import type { Gateway, GatewayHolder, GatewayView } from '../gateway.ts';
import { ContinuationBackend } from './continuation-backend.ts';
import { OpenAiHttpBackend, type OpenAiHttpLimits } from './openai-http.ts';

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

/** A server under observation. */
interface Watched {
  readonly backend: OpenAiHttpBackend;
  readonly continuing: ContinuationBackend;
  readonly node: RemoteNode;
  readonly url: string;
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
  readonly #listeners = new Set<() => void>();
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
    const polls = [...this.#watched.values()].map((watched) => watched.polling);
    for (const watched of this.#watched.values()) {
      this.#end(watched);
      watched.backend.close();
    }
    this.#watched.clear();
    await Promise.allSettled(polls);
  }

  /** Who has a model, in the order of the registry; a server that is offline has none. */
  holders(modelId: string): readonly GatewayHolder[] {
    return [...this.#watched.values()].flatMap(({ backend, continuing }) => {
      const entry = backend.models.find((model) => model.id === modelId);
      if (entry === undefined) return [];
      const continuesText = (request: InferenceRequest): boolean => continuing.continuesText(request);
      return [{ backend: continuing, entry, suspect: backend.status !== 'online', continuesText }];
    });
  }

  /** Every model of every server that can be used now. */
  models(): readonly { readonly fingerprint: string; readonly entry: CatalogEntry }[] {
    return [...this.#watched.values()].flatMap(({ backend }) =>
      backend.status === 'unauthorized' ? [] : backend.models.map((entry) => ({ fingerprint: backend.id, entry })),
    );
  }

  list(): readonly GatewayView[] {
    return [...this.#watched.values()].map(({ node, url, backend }) => {
      const { status, latencyMs, models, problem } = backend;
      return { fingerprint: node.fingerprint, kind: 'http', name: node.name, url, status, latencyMs, models, problem };
    });
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

  #follow(): void {
    const wanted = new Map(this.#components.registry.list().map((node) => [node.fingerprint, node]));
    for (const [fingerprint, watched] of this.#watched) {
      const node = wanted.get(fingerprint);
      if (node?.url === watched.url && node.name === watched.node.name) continue;
      this.#end(watched);
      this.#watched.delete(fingerprint);
    }
    for (const node of wanted.values()) {
      const watched = this.#watched.get(node.fingerprint);
      if (watched !== undefined) this.#rekey(watched);
      else if (node.url !== null) this.#begin(node, node.url);
    }
    this.#changed();
  }

  #begin(node: RemoteNode, url: string): void {
    const { clock, registry } = this.#components;
    const { fingerprint, name } = node;
    const key = (): string | null => registry.keyOf(fingerprint);
    const backend = new OpenAiHttpBackend(
      { clock, key, onChange: () => this.#changed(), onTrouble: () => this.#pollIn(watched, FIRST_RETRY_MS) },
      { fingerprint, name, url, ...(this.#options.limits === undefined ? {} : { limits: this.#options.limits }) },
    );
    const life = new AbortController();
    const continuing = new ContinuationBackend({ backend, clock }, { name, url });
    const polled = { polling: null, isStale: false, cancel: () => {} };
    const watched: Watched = { backend, continuing, node, url, life, key: key(), ...polled };
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
    const key = this.#components.registry.keyOf(watched.node.fingerprint);
    if (key === watched.key) return;
    watched.key = key;
    watched.backend.rekeyed();
    if (watched.polling === null) this.#poll(watched);
    else watched.isStale = true;
  }

  #poll(watched: Watched): void {
    if (watched.polling !== null || watched.life.signal.aborted) return;
    const { backend, life, node } = watched;
    const before = backend.status;
    watched.cancel();
    watched.isStale = false;
    watched.polling = backend
      .poll(life.signal)
      .then(
        () => {
          const { status, problem } = backend;
          const facts = { node: node.name, status, problem };
          if (status !== before) this.#components.logger.info(facts, 'an HTTP node changed its status');
          // Whoever was away may have come back as another program.
          if (status !== before && status === 'online') void this.#probe(watched);
          this.#pollIn(watched, this.#delayMs(backend.failures));
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
  #delayMs(failures: number): number {
    const pollMs = this.#options.pollMs ?? POLL_MS;
    return failures === 0 ? pollMs : Math.min(pollMs, FIRST_RETRY_MS * 2 ** Math.min(failures - 1, 10));
  }

  #changed(): void {
    for (const listener of this.#listeners) listener();
  }
}
