/** Services beyond the mesh that this node's owner lets other nodes use: what of them peers may know and ask for. */
import { createHash } from 'node:crypto';
import type { CatalogEntry } from '../../protocols/catalog/catalog.ts';
import type { AcceptedEvent, Boundary, InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import type { LocalBackend } from '../backends/backend.ts';
import type { Gateway } from '../backends/gateway.ts';
import { type ErrorCode, MeshError, toMeshError } from '../common/errors.ts';
import { furthest } from './candidate.ts';
import { MeshDispatcher } from './mesh-dispatcher.ts';
import type { MeshDispatcherComponents } from './mesh-dispatcher-components.ts';
import { Router } from './router.ts';
import type { RoutingStats } from './routing-stats.ts';
import { DEFAULT_ROUTING_SETTINGS, type RoutingSettings } from './settings.ts';

export interface SharedBackendsComponents extends Omit<MeshDispatcherComponents, 'router'> {
  readonly stats: RoutingStats;
  readonly gateways: Pick<Gateway, 'holders' | 'models' | 'drop' | 'onChange'>;
  /** Called when `catalog()` may have changed. */
  readonly onChange?: () => void;
}

/** Of a prompt of which no token is known. */
const NO_TOKENS = createHash('sha256').digest('hex');
const OWN_FAULT: ReadonlySet<ErrorCode> = new Set(['client_closed', 'draining']);
const ASKERS_FAULT: ReadonlySet<ErrorCode> = new Set([
  'invalid_request',
  'context_length_exceeded',
  'payload_too_large',
  'unsupported_media_type',
  'request_timeout',
]);
const NOT_HERE: ReadonlySet<ErrorCode> = new Set([
  'model_not_loaded',
  'model_not_available',
  'unauthorized',
  'forbidden',
]);

/**
 * The same strategies, breakers, failover and continuation as for this node's own clients, among shared services only.
 * Peers learn ids of models and how far away they are: no name, address or word of a service.
 */
export class SharedBackends {
  readonly #gateways: SharedBackendsComponents['gateways'];
  readonly #settings: RoutingSettings;
  readonly #fingerprint: string;
  readonly #dispatcher: MeshDispatcher;

  /** `fingerprint`: of this node. */
  constructor(components: SharedBackendsComponents, { fingerprint }: { readonly fingerprint: string }) {
    const { gateways, stats, settings = DEFAULT_ROUTING_SETTINGS, onChange } = components;
    this.#gateways = gateways;
    this.#fingerprint = fingerprint;
    // Names that this node's owner made up for himself are not for others.
    this.#settings = { loadBalancing: () => settings.loadBalancing(), remote: (id) => settings.remote(id) };
    const router = new Router({
      local: nobody(fingerprint),
      index: { holders: () => [], drop: () => {} },
      providers: { find: async () => [] },
      peerBackend: () => nobody(fingerprint),
      gateways: {
        holders: (model) => gateways.holders(model).filter(({ shared }) => shared === true),
        drop: (id, model) => gateways.drop(id, model),
      },
      stats,
      settings: this.#settings,
    });
    this.#dispatcher = new MeshDispatcher({ ...components, settings: this.#settings, router });
    if (onChange !== undefined) gateways.onChange(onChange);
  }

  /** What peers may be told of it, each model once and as near as it is; none while load balancing is off. */
  catalog(): readonly CatalogEntry[] {
    if (!this.#settings.loadBalancing().enabled) return [];
    const found = new Map<string, CatalogEntry>();
    for (const { fingerprint, entry, shared, boundary: place } of this.#gateways.models()) {
      if (shared !== true) continue;
      const boundary = furthest('mesh', place ?? this.#boundaryOf(fingerprint, entry.id));
      const known = found.get(entry.id);
      if (known === undefined || isNearer(boundary, known.boundary)) found.set(entry.id, told(entry, boundary));
    }
    return [...found.values()];
  }

  /** Is there somebody to hand a request for it on to? */
  serves(model: string): boolean {
    if (!this.#settings.loadBalancing().enabled) return false;
    return this.#gateways.holders(model).some(({ shared }) => shared === true);
  }

  /** As any backend. @throws MeshError that says nothing of who failed. */
  async *infer(request: InferenceRequest, { signal }: { signal: AbortSignal }): AsyncGenerator<InferenceEvent> {
    if (request.resume !== undefined) {
      throw new MeshError('cannot_resume', 'A server behind this node cannot go on from the tokens of another');
    }
    try {
      const { events } = this.#dispatcher.dispatch(request, { signal, stream: true });
      for await (const event of events) yield event.type === 'accepted' ? this.#accepted() : event;
    } catch (thrown) {
      throw asOwn(toMeshError(thrown));
    }
  }

  #boundaryOf(fingerprint: string, model: string): Boundary {
    const holder = this.#gateways.holders(model).find(({ backend }) => backend.id === fingerprint);
    return (holder?.place ?? this.#settings.remote(fingerprint)).boundary;
  }

  #accepted(): AcceptedEvent {
    const node = this.#fingerprint;
    return { type: 'accepted', node, promptTokens: 0, promptDigest: NO_TOKENS, artifact: null };
  }
}

const isNearer = (a: Boundary, b: Boundary = 'mesh'): boolean => a !== b && furthest(a, b) === b;

/** Neither what it is made of nor how fast it is: both would tell services apart. */
function told({ id, contextLength, state, slots }: CatalogEntry, boundary: Boundary): CatalogEntry {
  const unsaid = { digest: null, quantization: null, sizeBytes: 0, tokensPerSecond: null };
  return { id, contextLength, state, slots, ...unsaid, boundary };
}

/**
 * The failure as this node's own: what a service says may hold its address. The model here is to blame for it, never the
 * node as a whole, whose engine is well.
 */
function asOwn({ code, facts }: MeshError): MeshError {
  const param = facts.param === undefined ? {} : { param: facts.param };
  const retry = facts.retryAfterMs === undefined ? {} : { retryAfterMs: facts.retryAfterMs };
  if (OWN_FAULT.has(code)) return new MeshError(code, 'The request was given up', retry);
  if (ASKERS_FAULT.has(code)) {
    return new MeshError(code, 'A server behind this node refused the request as it is', param);
  }
  if (code === 'model_starting') {
    return new MeshError(code, 'A server behind this node is being started, or could not be: come back later', retry);
  }
  if (NOT_HERE.has(code))
    return new MeshError('model_not_loaded', 'No server behind this node takes the request now', param);
  return new MeshError('engine_failed', 'A server behind this node could not answer', retry);
}

/** In place of the engine and of peers, which are not meant. */
function nobody(id: string): LocalBackend {
  return {
    id,
    kind: 'engine',
    catalog: () => [],
    onCatalogChange: () => () => {},
    infer: async function* () {
      yield* [];
      throw new MeshError('model_not_loaded', 'Nobody is here');
    },
  };
}
