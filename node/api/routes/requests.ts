/** `GET /api/v1/requests/{id}`: how one of the last requests went, and why it went there. */
import type { FastifyInstance } from 'fastify';
import { MeshError } from '../../common/errors.ts';
import type { FacadeComponents } from '../components.ts';

/** Adds the route, when the node remembers requests at all. */
export function addRequestRoutes(app: FastifyInstance, { requestRecord }: FacadeComponents): void {
  if (requestRecord === undefined) return;
  // Ids that clients choose may contain slashes, so the rest of the path is the id.
  app.get<{ Params: { '*': string } }>('/api/v1/requests/*', async (request) => {
    const id = request.params['*'];
    const record = requestRecord(id);
    if (record !== null) return record;
    throw new MeshError(
      'not_found',
      `No request "${id.slice(0, 128)}" is remembered here: use the x-request-id of an answer that this node gave lately.`,
    );
  });
}
