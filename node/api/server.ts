/** The HTTP facade: OpenAI's API and the node's own, on one local port. */
import type { AddressInfo, Server } from 'node:net';
import Fastify, { type FastifyInstance } from 'fastify';
import { abortable, sleep } from '../common/clock.ts';
import { MeshError, toMeshError } from '../common/errors.ts';
import type { Startable } from '../common/lifecycle.ts';
import {
  type FacadeComponents,
  type FacadeOptions,
  type ResolvedFacadeOptions,
  resolveFacadeOptions,
} from './components.ts';
import { rawErrorAnswer, sendError } from './errors.ts';
import { type GuardRules, guardRules } from './guard.ts';
import { installGuard } from './guard-hook.ts';
import { OpenAnswers } from './open-answers.ts';
import { newHeaderId } from './request-id.ts';
import { addBatchRoutes } from './routes/batches.ts';
import { addClusterRoutes } from './routes/clusters.ts';
import { addEmbeddingRoutes } from './routes/embeddings.ts';
import { addEventRoutes } from './routes/events.ts';
import { addInferenceRoutes } from './routes/inference.ts';
import { addLoadBalancingRoutes } from './routes/load-balancing.ts';
import { addModelRoutes } from './routes/models.ts';
import { addNodeRoutes } from './routes/node.ts';
import { addPoolRoutes } from './routes/pool.ts';
import { addRequestRoutes } from './routes/requests.ts';
import { addRerankRoutes } from './routes/rerank.ts';
import { addResidencyRoutes } from './routes/residency.ts';
import { addResourceServer } from './routes/resource-server.ts';
import { addServiceRoutes } from './routes/service.ts';
import { addTokenizeRoutes } from './routes/tokenize.ts';
import { answerUnknownRoutes } from './unknown-route.ts';

/** How long the last events of aborted answers may take to reach the sockets. */
const FAREWELL_MS = 250;

/** Answers HTTP between `start` and `stop`. */
export class Facade implements Startable {
  readonly #components: FacadeComponents;
  readonly #options: ResolvedFacadeOptions;
  readonly #answers = new OpenAnswers();
  #app: FastifyInstance | null = null;
  #port: number;
  #rules: GuardRules | null = null;
  #draining = false;

  constructor(components: FacadeComponents, options: FacadeOptions) {
    this.#components = components;
    this.#options = resolveFacadeOptions(options);
    this.#port = options.port;
  }

  /**
   * Listens.
   *
   * @throws MeshError `invalid_request` that names the flag to change when the address cannot be used.
   */
  async start(): Promise<void> {
    if (this.#app !== null) return;
    this.#draining = false;
    this.#rules = null;
    const app = this.#build();
    const { host, port } = this.#options;
    try {
      await app.listen({ host: listenAddress(host), port });
    } catch (thrown) {
      await app.close();
      throw listenError(thrown, host, port);
    }
    app.server.maxConnections = this.#options.maxConnections;
    this.#app = app;
    this.#port = portOf(app.server);
  }

  /** Base URL, for example `http://127.0.0.1:8642`; with the configured port before `start`. */
  address(): string {
    const { host } = this.#options;
    const reachable = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '[::1]' : host;
    const name = reachable.includes(':') && !reachable.startsWith('[') ? `[${reachable}]` : reachable;
    return `http://${name}:${this.#port}`;
  }

  /** From now on inference requests get 503 `draining`; those that run go on, and status stays readable. */
  drain(): void {
    this.#draining = true;
  }

  /** Stops listening, lets running answers finish until `signal` aborts, then ends them with an error. */
  async stop(signal: AbortSignal): Promise<void> {
    const app = this.#app;
    if (app === null) return;
    this.#app = null;
    this.drain();
    const closed = app.close();
    const finished = await abortable(this.#answers.idle(), signal).then(
      () => true,
      () => false,
    );
    if (!finished) {
      this.#answers.abortAll(new MeshError('draining', 'This node was shut down before the answer was complete.'));
      await Promise.race([this.#answers.idle(), sleep(this.#components.clock, FAREWELL_MS)]);
    }
    app.server.closeAllConnections();
    await closed;
  }

  #build(): FastifyInstance {
    const { bodyLimitBytes, headersTimeoutMs, requestTimeoutMs, timeoutCheckMs, keepAliveMs } = this.#options;
    const app = Fastify({
      bodyLimit: bodyLimitBytes,
      requestTimeout: requestTimeoutMs,
      keepAliveTimeout: keepAliveMs,
      // The guard answers a missing Host itself, in OpenAI's dialect.
      http: { headersTimeout: headersTimeoutMs, connectionsCheckingInterval: timeoutCheckMs, requireHostHeader: false },
      trustProxy: false,
      return503OnClosing: false,
      genReqId: newHeaderId,
      routerOptions: { ignoreTrailingSlash: true, maxParamLength: 512 },
      ajv: { customOptions: { coerceTypes: false, removeAdditional: false } },
      // No hook runs for a path that cannot be decoded.
      frameworkErrors: (error, request, reply) => void sendError(reply.header('x-request-id', request.id), error),
      clientErrorHandler: (error, socket) => {
        if (socket.writable && (error as NodeJS.ErrnoException).code !== 'ECONNRESET')
          socket.end(rawErrorAnswer(error));
        else socket.destroy();
      },
    });
    this.#addHooks(app);
    this.#addRoutes(app);
    return app;
  }

  #addHooks(app: FastifyInstance): void {
    const { metrics, logger } = this.#components;
    app.removeAllContentTypeParsers();
    // The body stays bytes: it travels to other nodes exactly as it came.
    app.addContentTypeParser('application/json', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
    app.addHook('onRequest', async (request, reply) => {
      reply.header('x-request-id', request.id);
    });
    installGuard(app, () => this.#guardRules(app.server));
    app.setErrorHandler((thrown, request, reply) => {
      const error = sendError(reply, thrown);
      if (error.code === 'internal_error')
        logger.error({ requestId: request.id, err: error.cause ?? error }, 'request failed');
    });
    app.addHook('onResponse', async (request, reply) => {
      const status = reply.raw.writableFinished ? reply.statusCode : 499;
      metrics.httpRequests.inc({ status: `${Math.floor(status / 100)}xx` });
      const route = request.routeOptions.url ?? null;
      const durationMs = Math.round(reply.elapsedTime);
      logger.debug({ requestId: request.id, method: request.method, route, status, durationMs }, 'http');
    });
  }

  #addRoutes(app: FastifyInstance): void {
    const stopping = (): boolean => this.#draining;
    answerUnknownRoutes(app, () => this.address());
    const results = { answers: this.#answers, stopping, loadWaitMs: this.#options.loadWaitMs };
    // These two have no /v1 at some servers, whose clients come here as well.
    for (const prefix of ['', '/v1', '/api/v1/inference']) {
      addRerankRoutes(app, prefix, this.#components, results);
      addTokenizeRoutes(app, prefix, this.#components, results);
    }
    for (const prefix of ['/v1', '/api/v1/inference']) {
      addEmbeddingRoutes(app, prefix, this.#components, results);
      addInferenceRoutes(app, prefix, this.#components, { answers: this.#answers, stopping, times: this.#options });
      addModelRoutes(app, prefix, this.#components);
    }
    addNodeRoutes(app, this.#components, stopping);
    addServiceRoutes(app, this.#components);
    addBatchRoutes(app, this.#components, stopping);
    addClusterRoutes(app, this.#components);
    addResidencyRoutes(app, this.#components);
    addLoadBalancingRoutes(app, this.#components);
    addRequestRoutes(app, this.#components);
    addEventRoutes(app, this.#components);
    addPoolRoutes(app, this.#components, () => this.#port);
    const { federation } = this.#components;
    const first = { answers: this.#answers, stopping, times: this.#options };
    if (federation !== undefined) addResourceServer(app, this.#components, { ...first, federation });
  }

  /** Built at the first request: the rules name the port, which `port: 0` leaves open until then. */
  #guardRules(server: Server): GuardRules {
    const callbackHost = this.#components.streamCallbacks?.host ?? null;
    this.#rules ??= guardRules({ ...this.#options, callbackHost, port: portOf(server) });
    return this.#rules;
  }
}

/** One socket only: the name `localhost` would open a second one, which limits and stop would not cover. */
function listenAddress(host: string): string {
  return host === 'localhost' ? '127.0.0.1' : host.replace(/^\[|\]$/g, '');
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}

/** Says which flag to change. */
function listenError(thrown: unknown, host: string, port: number): MeshError {
  const cause = toMeshError(thrown);
  const code = (thrown as NodeJS.ErrnoException | null)?.code;
  if (code === 'EADDRINUSE') {
    const message = `Port ${port} on ${host} is in use. Stop the other program, or choose a port with --port N (0 = any free one).`;
    return new MeshError('invalid_request', message, { param: '--port', cause: thrown });
  }
  if (code === 'EACCES') {
    const message = `Port ${port} may not be opened by this user. Choose one above 1023 with --port N.`;
    return new MeshError('invalid_request', message, { param: '--port', cause: thrown });
  }
  const message = `Cannot listen on ${host}:${port} (${cause.message}). Choose an address of this machine with --host H.`;
  return new MeshError('invalid_request', message, { param: '--host', cause: thrown });
}
