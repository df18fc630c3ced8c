/** Puts the guard before every route, and CORS headers on what allowed origins read. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import {
  bodyRefusal,
  encodingRefusal,
  type GuardRules,
  keyRefusal,
  pageRefusal,
  type RequestFacts,
  refusal,
} from './guard.ts';

declare module 'fastify' {
  interface FastifyContextConfig {
    /** The route shows nothing that a key protects, or asks for a proof of its own. */
    keyless?: boolean;
    /** Its body, or its having none, is something that a page can send without a preflight. */
    simple?: boolean;
  }
}

const ALLOWED_METHODS = 'GET, POST, DELETE, OPTIONS';
/** `x-stainless-*` are the official clients' telemetry headers: a preflight that refuses them breaks those clients. */
const ALLOWED_HEADER =
  /^(?:authorization|content-type|accept|x-request-id|x-meshnode-boundary|openai-[a-z-]+|x-stainless-[a-z-]+)$/;
const EXPOSED_HEADERS = 'x-request-id, x-meshnode-node, x-meshnode-attempts, retry-after, x-should-retry';

/** Checks each request as soon as its headers are here, before a byte of its body is read. */
export function installGuard(app: FastifyInstance, rules: () => GuardRules): void {
  app.addHook('onRequest', async (request, reply) => {
    const facts = requestFacts(request);
    const origin = request.headers.origin;
    if (origin !== undefined && rules().allowedOrigins.has(origin.toLowerCase())) addCorsHeaders(reply, origin);
    const refused = refusal(facts, rules());
    if (refused !== null) throw refused;
    if (isPreflight(request)) return answerPreflight(request, reply);
    const pageRefused = request.routeOptions.config.simple === true ? pageRefusal(facts, rules()) : null;
    if (pageRefused !== null) throw pageRefused;
    if (request.routeOptions.config.keyless === true) return;
    const keyRefused = keyRefusal(facts, rules());
    if (keyRefused !== null) throw keyRefused;
  });
}

/** `onRequest` hook of routes that take a body. */
export async function requireJson(request: FastifyRequest): Promise<void> {
  const contentTypes = rawValues(request, 'content-type');
  const refused = bodyRefusal(contentTypes, request.headers['content-encoding'] ?? null);
  if (refused !== null) throw refused;
}

/** `onRequest` hook of routes that take a body of another kind. */
export async function requireIdentity(request: FastifyRequest): Promise<void> {
  const refused = encodingRefusal(request.headers['content-encoding'] ?? null);
  if (refused !== null) throw refused;
}

function isPreflight(request: FastifyRequest): boolean {
  return request.method === 'OPTIONS' && request.headers['access-control-request-method'] !== undefined;
}

function requestFacts(request: FastifyRequest): RequestFacts {
  const { headers } = request;
  const site = headers['sec-fetch-site'];
  return {
    url: request.raw.url ?? '',
    hosts: rawValues(request, 'host'),
    origins: rawValues(request, 'origin'),
    secFetchSite: typeof site === 'string' ? site : null,
    authorization: headers.authorization ?? null,
    referer: headers.referer ?? null,
    isKeyless: request.routeOptions.config.keyless === true,
  };
}

/** Every value of a header: `request.headers` keeps only the first `Host` and `Content-Type`, which hides a second. */
function rawValues(request: FastifyRequest, name: string): string[] {
  const { rawHeaders } = request.raw;
  const values: string[] = [];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const key = rawHeaders[i];
    if (key?.length === name.length && key.toLowerCase() === name) values.push(rawHeaders[i + 1] ?? '');
  }
  return values;
}

function addCorsHeaders(reply: FastifyReply, origin: string): void {
  reply.header('access-control-allow-origin', origin);
  reply.header('access-control-expose-headers', EXPOSED_HEADERS);
  reply.header('vary', 'Origin');
}

function answerPreflight(request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const asked = request.headers['access-control-request-headers'] ?? '';
  const granted = asked.split(',').map((name) => name.trim().toLowerCase());
  reply.header('access-control-allow-methods', ALLOWED_METHODS);
  reply.header('access-control-allow-headers', granted.filter((name) => ALLOWED_HEADER.test(name)).join(', '));
  reply.header('access-control-max-age', '600');
  if (request.headers['access-control-request-private-network'] === 'true') {
    reply.header('access-control-allow-private-network', 'true');
  }
  return reply.code(204).send();
}
