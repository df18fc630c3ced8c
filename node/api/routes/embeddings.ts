/** `POST /v1/embeddings`. */
import type { FastifyInstance } from 'fastify';
import { parseEmbeddingBody } from '../../../protocols/inference/bodies/embedding-body.ts';
import type { FacadeComponents } from '../components.ts';
import { addResultRoute, type ResultRouteOptions } from './results.ts';

/** Adds the route under `prefix`, for example `/v1`. */
export function addEmbeddingRoutes(
  app: FastifyInstance,
  prefix: string,
  components: FacadeComponents,
  options: ResultRouteOptions,
): void {
  const path = `${prefix}/embeddings`;
  addResultRoute(app, components, options, { path, kind: 'embedding', parse: parseEmbeddingBody });
}
