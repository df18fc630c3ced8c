/** What every inference route asks of a request before it looks at its fields. */
import { MeshError } from '../common/errors.ts';
import type { FacadeComponents } from './components.ts';

/** Tells clients of a draining node when to come back: by then another node, or a restarted one, answers. */
const DRAIN_RETRY_MS = 2_000;

/**
 * A hook that lets requests in while the node takes work.
 *
 * @throws MeshError `draining`, or whatever the service state refuses with.
 */
export function admitting(components: FacadeComponents, stopping: () => boolean): () => Promise<void> {
  return async () => {
    if (stopping())
      throw new MeshError('draining', 'This node is shutting down; ask again soon.', { retryAfterMs: DRAIN_RETRY_MS });
    const refused = components.service?.refusal('local') ?? null;
    if (refused !== null) throw refused;
  };
}

/**
 * The body as it came.
 *
 * @throws MeshError `invalid_request` when there is none.
 */
export function bodyBytes(body: unknown): Uint8Array {
  if (!(body instanceof Uint8Array) || body.length === 0) {
    throw new MeshError('invalid_request', 'The request has no body. Send a JSON object.');
  }
  return body;
}
