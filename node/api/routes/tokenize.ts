/** `POST /v1/tokenize` and `/v1/detokenize`, and both at the root as other servers have them. */
import type { FastifyInstance } from 'fastify';
import { parseBody } from '../../../protocols/inference/bodies/openai-body.ts';
import { parseDetokenizeBody, parseTokenizeBody } from '../../../protocols/inference/bodies/tokenize-body.ts';
import type { FacadeComponents } from '../components.ts';
import { addResultRoute, type ResultRouteOptions } from './results.ts';

/** Adds both routes under `prefix`; the empty prefix is the root. */
export function addTokenizeRoutes(
  app: FastifyInstance,
  prefix: string,
  components: FacadeComponents,
  options: ResultRouteOptions,
): void {
  addResultRoute(app, components, options, {
    path: `${prefix}/tokenize`,
    kind: 'tokenize',
    parse: (bytes) => {
      const body = parseTokenizeBody(bytes);
      return body.text === null ? parseBody('chat', bytes) : body;
    },
  });
  addResultRoute(app, components, options, {
    path: `${prefix}/detokenize`,
    kind: 'detokenize',
    parse: parseDetokenizeBody,
  });
}
