/** What a path or method that nobody serves is told: 404 with the paths that exist, 405 with the methods that do. */
import type { FastifyInstance } from 'fastify';
import { MeshError } from '../common/errors.ts';

/** Collects the routes that are added to `app` from here on, and answers all others. */
export function answerUnknownRoutes(app: FastifyInstance, baseUrl: () => string): void {
  const methodsByPath = new Map<string, Set<string>>();
  app.addHook('onRoute', ({ url, method }) => {
    const methods = methodsByPath.get(url) ?? new Set<string>();
    for (const one of [method].flat()) methods.add(one);
    methodsByPath.set(url, methods);
  });
  app.setNotFoundHandler(async (request, reply) => {
    const path = pathOf(request.url);
    const methods = methodsByPath.get(path) ?? methodsOfWildcard(methodsByPath, path);
    if (methods === null) {
      throw new MeshError('not_found', `There is no ${path.slice(0, 200)} here. The OpenAI API is at ${baseUrl()}/v1.`);
    }
    const allow = [...methods].join(', ');
    reply.header('allow', allow);
    throw new MeshError('method_not_allowed', `${path.slice(0, 200)} takes ${allow}, not ${request.method}.`);
  });
}

function pathOf(url: string): string {
  const path = url.split('?', 1)[0] ?? '';
  return path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path;
}

function methodsOfWildcard(methodsByPath: ReadonlyMap<string, Set<string>>, path: string): Set<string> | null {
  for (const [pattern, methods] of methodsByPath) {
    if (pattern.endsWith('/*') && path.startsWith(pattern.slice(0, -1))) return methods;
  }
  return null;
}
