/** One endpoint as a target: it gets the request under its own model name, within its limit of tokens a minute. */
import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import type { Backend, BackendKind } from '../backends/backend.ts';
import { MeshError } from '../common/errors.ts';
import type { FixtureEndpoint } from '../storage/fixtures/fixture-types.ts';
import type { Exhausted, FederatedUsage } from './federated-usage.ts';
import { withModel } from './named-model.ts';

export interface FederatedBackendComponents {
  readonly backend: Backend;
  readonly usage: FederatedUsage;
}

export class FederatedBackend implements Backend {
  readonly id: string;
  readonly kind: BackendKind;
  readonly #components: FederatedBackendComponents;
  readonly #endpoint: FixtureEndpoint;

  constructor(components: FederatedBackendComponents, endpoint: FixtureEndpoint) {
    this.#components = components;
    this.#endpoint = endpoint;
    this.id = components.backend.id;
    this.kind = components.backend.kind;
  }

  /** The request as the endpoint gets it: by its own model name. */
  own(request: InferenceRequest): InferenceRequest {
    const { model } = this.#endpoint;
    return { ...request, model, body: withModel(request.body, model) };
  }

  /** @throws MeshError `rate_limited` before it is asked, while the endpoint's tokens of this minute are used up. */
  async *infer(request: InferenceRequest, options: { signal: AbortSignal }): AsyncGenerator<InferenceEvent> {
    const { backend, usage } = this.#components;
    const exhausted = usage.exhausted(this.#endpoint, null);
    if (exhausted !== null) throw tooManyTokens(this.#endpoint.slug, exhausted);
    for await (const event of backend.infer(this.own(request), options)) {
      if (event.type === 'end') {
        const { promptTokens, completionTokens } = event.usage;
        usage.count(this.#endpoint.slug, promptTokens + completionTokens);
      }
      yield event;
    }
  }
}

/** Says which limit is reached, with its figures. */
export function tooManyTokens(slug: string, { limit, limitTokens, usedTokens, retryAfterMs }: Exhausted): MeshError {
  const seconds = Math.ceil(retryAfterMs / 1000);
  const message = `${slug} has used ${usedTokens} of ${limitTokens} tokens of this minute (${limit}); try again in ${seconds} s`;
  return new MeshError('rate_limited', message, { retryAfterMs });
}
