/** The models that one request may be answered by, in order, and the request as each of them gets it. */
import type { InferenceKind, InferenceRequest } from '../../protocols/inference/events.ts';
import { withModel } from './named-model.ts';

export class ModelChain {
  readonly models: readonly string[];
  /** What the client named. */
  readonly asked: string;
  #request: InferenceRequest;
  #step = 0;
  #shown: string;

  /** `models`: not empty. */
  constructor(request: InferenceRequest, models: readonly string[]) {
    const first = models[0] ?? request.model;
    this.asked = request.model;
    this.models = substitutes(request.kind, models);
    this.#request = named(request, first);
    this.#shown = first;
  }

  /** As the model that is asked now gets it. */
  get request(): InferenceRequest {
    return this.#request;
  }

  /** The model that the client is told of: the one that was asked when the first content went out. */
  get shown(): string {
    return this.#shown;
  }

  get hasNext(): boolean {
    return this.#step + 1 < this.models.length;
  }

  /** What errors call it. */
  get label(): string {
    return this.models.length === 1 ? this.#request.model : `${this.asked} (${this.models.join(', ')})`;
  }

  /** The next one is asked from now on. `isCommitted`: content of an earlier one has gone out. */
  next({ isCommitted }: { readonly isCommitted: boolean }): void {
    const model = this.models[this.#step + 1];
    if (model === undefined) return;
    this.#step += 1;
    this.#request = named(this.#request, model);
    if (!isCommitted) this.#shown = model;
  }
}

/**
 * Those of the models that may answer such a request. Only chats and completions have substitutes: vectors of two models
 * cannot be compared, and tokens belong to one.
 */
export function substitutes(kind: InferenceKind, models: readonly string[]): readonly string[] {
  return kind === 'chat' || kind === 'completion' ? models : models.slice(0, 1);
}

function named(request: InferenceRequest, model: string): InferenceRequest {
  return request.model === model ? request : { ...request, model, body: withModel(request.body, model) };
}
