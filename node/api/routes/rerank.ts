/** `POST /v1/rerank`, and `/rerank` as other servers have it. */
import type { FastifyInstance } from 'fastify';
import { parseRerankBody } from '../../../protocols/inference/bodies/rerank-body.ts';
import type { FacadeComponents } from '../components.ts';
import { addResultRoute, type ResultRouteOptions } from './results.ts';

/** Adds the route under `prefix`; the empty prefix is the root. */
export function addRerankRoutes(
  app: FastifyInstance,
  prefix: string,
  components: FacadeComponents,
  options: ResultRouteOptions,
): void {
  const path = `${prefix}/rerank`;
  addResultRoute(app, components, options, { path, kind: 'rerank', parse: parseRerankBody });
}
