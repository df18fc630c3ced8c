/** One service of a cluster as a backend: a token that expired is replaced in the middle of a request. */
import type { InferenceEvent, InferenceRequest } from '../../../protocols/inference/events.ts';
import { type MeshError, toMeshError } from '../../common/errors.ts';
import type { Backend } from '../backend.ts';

export interface ServiceBackendComponents {
  /** The service itself; reads its token for every request. */
  readonly backend: Backend;
  /** The service refused the token: gets another. Resolves with whether there is one now. */
  readonly renew: (signal: AbortSignal) => Promise<boolean>;
  /** The service says that nothing stands behind it. */
  readonly onVacant: () => void;
}

export class ServiceBackend implements Backend {
  readonly kind = 'http';
  readonly id: string;
  readonly #components: ServiceBackendComponents;

  constructor(components: ServiceBackendComponents) {
    this.#components = components;
    this.id = components.backend.id;
  }

  async *infer(request: InferenceRequest, options: { signal: AbortSignal }): AsyncGenerator<InferenceEvent> {
    const { backend, renew, onVacant } = this.#components;
    for (let isFirst = true; ; isFirst = false) {
      let hasBegun = false;
      try {
        for await (const event of backend.infer(request, options)) {
          hasBegun = true;
          yield event;
        }
        return;
      } catch (thrown) {
        const error = toMeshError(thrown);
        if (isVacant(error)) onVacant();
        const mayRenew = isFirst && !hasBegun && error.code === 'unauthorized' && !options.signal.aborted;
        if (!mayRenew || !(await renew(options.signal))) throw error;
      }
    }
  }
}

/** What an application proxy says of a service without replicas; one that is only busy says 429. */
function isVacant({ code, facts }: MeshError): boolean {
  return facts.httpStatus === 503 && (code === 'upstream_error' || code === 'model_not_loaded');
}
