/** The answers that are being given: each has a signal that aborts when its client goes or the node stops. */
import type { ServerResponse } from 'node:http';
import { MeshError } from '../common/errors.ts';

/** Owns one abort controller per response from the request's arrival to the close of its response. */
export class OpenAnswers {
  readonly #controllers = new Set<AbortController>();
  #onIdle: (() => void)[] = [];

  get size(): number {
    return this.#controllers.size;
  }

  /** Aborts with `client_closed` when the response closes unfinished, or with what `abortAll` says. */
  open(response: ServerResponse): AbortSignal {
    const controller = new AbortController();
    this.#controllers.add(controller);
    response.once('close', () => {
      this.#controllers.delete(controller);
      if (!response.writableFinished) {
        controller.abort(new MeshError('client_closed', 'The client closed the connection.'));
      }
      if (this.#controllers.size === 0) for (const resolve of this.#onIdle.splice(0)) resolve();
    });
    return controller.signal;
  }

  /** Ends every answer with `reason`: a status when it has not begun, else an error event. */
  abortAll(reason: MeshError): void {
    for (const controller of this.#controllers) controller.abort(reason);
  }

  /** Resolves when no answer is open. */
  idle(): Promise<void> {
    if (this.#controllers.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.#onIdle.push(resolve));
  }
}
