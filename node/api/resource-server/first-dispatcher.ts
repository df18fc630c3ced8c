/** One HTTP request of FIRST's face on its way to the dispatcher: its target, the rules of the fixtures, the tokens used. */
import type { Boundary, InferenceEvent, InferenceRequest } from '../../../protocols/inference/events.ts';
import { MeshError, toMeshError } from '../../common/errors.ts';
import type { Dispatch, Dispatcher, DispatchOptions } from '../../routing/dispatch.ts';
import { slugOf } from '../../routing/federated-gateway.ts';
import type { Exhausted } from '../../routing/federated-usage.ts';
import { type Federation, pinOf } from '../../routing/federation.ts';
import { isWithin } from '../../routing/selector.ts';
import type { FixtureEndpoint } from '../../storage/fixtures/fixture-types.ts';
import { FirstRefusal } from './first-errors.ts';

export interface FirstDispatcherComponents {
  readonly dispatcher: Dispatcher;
  readonly federation: Federation;
}

export interface FirstDispatcherOptions {
  /** Whose tokens are counted. */
  readonly caller: string;
  /** The endpoint that the path names; `mesh`: this node and its peers; null: the federated route. */
  readonly place: { readonly cluster: string; readonly framework: string } | 'mesh' | null;
}

/** For one request only. */
export class FirstDispatcher implements Dispatcher {
  readonly #components: FirstDispatcherComponents;
  readonly #options: FirstDispatcherOptions;

  constructor(components: FirstDispatcherComponents, options: FirstDispatcherOptions) {
    this.#components = components;
    this.#options = options;
  }

  /** @throws FirstRefusal when the fixtures say no. */
  dispatch(request: InferenceRequest, options: DispatchOptions): Dispatch {
    const aimed = this.#aimed(request);
    const dispatch = this.#components.dispatcher.dispatch(aimed, options);
    return {
      events: this.#events(request, dispatch),
      get servedBy() {
        return dispatch.servedBy;
      },
      get model() {
        const { model = aimed.model } = dispatch;
        return model === aimed.model ? request.model : model;
      },
      get attempts() {
        return dispatch.attempts;
      },
      get resumed() {
        return dispatch.resumed;
      },
      get nodes() {
        return dispatch.nodes;
      },
    };
  }

  #aimed(request: InferenceRequest): InferenceRequest {
    const { place } = this.#options;
    if (place === 'mesh') return { ...request, boundary: nearer(request.boundary, 'mesh') };
    if (place !== null) return { ...request, model: pinOf(this.#pinned(request.model, place)) };
    this.#checkFederated(request.model);
    return request;
  }

  #pinned(model: string, place: { readonly cluster: string; readonly framework: string }): FixtureEndpoint {
    const { federation } = this.#components;
    const endpoint = federation.endpoint(place.cluster, place.framework, model);
    const where = `${place.cluster}/${place.framework}`;
    if (endpoint === null) {
      throw new FirstRefusal('endpoint_not_found', `There is no endpoint for ${shown(model)} at ${where}.`);
    }
    if (!federation.mayUseEndpoint(endpoint)) {
      throw new FirstRefusal('access_denied', `Callers of this node may not use ${shown(model)} at ${where}.`);
    }
    const exhausted = federation.usage.exhausted(endpoint, this.#options.caller);
    if (exhausted !== null) throw tooMany(endpoint.slug, exhausted);
    if (federation.stateOf(endpoint.slug).state === 'offline') throw unavailable(`${shown(model)} at ${where}`);
    return endpoint;
  }

  /** A model that no federated endpoint names is one of the mesh, and has no rules of fixtures. */
  #checkFederated(model: string): void {
    const { federation } = this.#components;
    const federated = federation.federated(model);
    if (federated === null) return;
    if (federated.targets.length === 0) {
      throw new FirstRefusal('internal_endpoint_error', `The federated endpoint ${federated.slug} has no targets.`);
    }
    const targets = federation.ranked(federated).map(({ endpoint }) => endpoint);
    if (targets.length === 0) {
      throw new FirstRefusal('unauthorized', `Callers of this node may use no target of ${shown(model)}.`);
    }
    const open = targets.filter(({ cluster }) => !federation.isUnderMaintenance(cluster));
    if (open.length === 0) {
      throw new FirstRefusal('cluster_under_maintenance', `Every cluster of ${shown(model)} is under maintenance.`);
    }
    const exhausted = open.map((target) => federation.usage.exhausted(target, this.#options.caller));
    const [first] = exhausted;
    if (first !== null && first !== undefined && !exhausted.includes(null)) throw tooMany(federated.slug, first);
  }

  async *#events(request: InferenceRequest, dispatch: Dispatch): AsyncGenerator<InferenceEvent> {
    try {
      for await (const event of dispatch.events) {
        if (event.type === 'end') {
          const { promptTokens, completionTokens } = event.usage;
          this.#count(dispatch.servedBy, promptTokens + completionTokens);
        }
        yield event;
      }
    } catch (thrown) {
      throw this.#told(toMeshError(thrown), request.model);
    }
  }

  #count(servedBy: string | null, tokens: number): void {
    const { federation } = this.#components;
    const slug = servedBy === null ? null : slugOf(servedBy);
    const endpoint = slug === null ? null : federation.endpointOfSlug(slug);
    if (endpoint !== null) federation.usage.countFor(endpoint.slug, this.#options.caller, tokens);
  }

  /** FIRST tells a model that does not exist (404) apart from one whose endpoints do not answer (503). */
  #told(error: MeshError, model: string): MeshError {
    if (error.code !== 'model_not_available') return error;
    const { place } = this.#options;
    const isKnown = place === null ? this.#components.federation.federated(model) !== null : place !== 'mesh';
    if (isKnown) return unavailable(shown(model));
    const message = `There is no endpoint for ${shown(model)}; GET /resource_server/list-endpoints lists what there is.`;
    return new MeshError('not_found', message, { param: 'model' });
  }
}

/** What a client may ask again for soon. */
const RETRY_AFTER_MS = 10_000;

function unavailable(what: string): MeshError {
  const message = `${what} is offline now; try again later`;
  return new MeshError('model_not_loaded', message, { retryAfterMs: RETRY_AFTER_MS });
}

function tooMany(slug: string, { limit, limitTokens, usedTokens, retryAfterMs }: Exhausted): FirstRefusal {
  const info = { limit, limit_tokens: limitTokens, used_tokens: usedTokens };
  const message = `${slug} has used ${usedTokens} of ${limitTokens} tokens of this minute (${limit}).`;
  return new FirstRefusal('too_many_requests', message, { info, retryAfterMs });
}

function nearer(limit: Boundary = 'public', other: Boundary): Boundary {
  return isWithin(limit, other) ? other : limit;
}

/** Model names of clients may be long. */
const shown = (model: string): string => `"${model.slice(0, 200)}"`;
