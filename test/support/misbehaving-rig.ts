/** A facade in front of misbehaving servers: the real HTTP path of a node, without its mesh, and a client that reads bytes. */
import { once } from 'node:events';
import http from 'node:http';
import type { LocalBackend } from '../../node/backends/backend.ts';
import { HttpNodes } from '../../node/backends/openai-http/http-nodes.ts';
import { DEFAULT_OPENAI_HTTP_LIMITS } from '../../node/backends/openai-http/openai-exchange.ts';
import { sleep, systemClock } from '../../node/common/clock.ts';
import { silentLogger } from '../../node/common/logger.ts';
import { Metrics } from '../../node/common/metrics.ts';
import { Breakers } from '../../node/routing/breakers.ts';
import { DEFAULT_BREAKER } from '../../node/routing/circuit-breaker.ts';
import { DEFAULT_DISPATCH, MeshDispatcher } from '../../node/routing/mesh-dispatcher.ts';
import { type AliasTable, ModelAliases } from '../../node/routing/model-aliases.ts';
import { RequestLog } from '../../node/routing/request-log.ts';
import { Router } from '../../node/routing/router.ts';
import { RoutingStats } from '../../node/routing/routing-stats.ts';
import { DEFAULT_LOAD_BALANCING } from '../../node/routing/settings.ts';
import { httpRegistry } from './http-registry.ts';
import { NO_ENGINE, NO_PEERS } from './lone-routing.ts';
import { MisbehavingServer, type MisbehavingServerOptions } from './misbehaving-server.ts';
import { startFacade } from './scripted-facade.ts';

export interface RigOptions extends MisbehavingServerOptions {
  readonly aliases?: AliasTable;
  /** Servers, all alike; the node knows them as `api:s0`, `api:s1`, …. Default 1. */
  readonly servers?: number;
  /** What this node itself serves. Default: nothing. */
  readonly local?: LocalBackend;
  /** Limits for a first token where others can be asked, at real speed. Default: the product's. */
  readonly silentRouteMs?: number;
}

/** What a client of the facade saw of one answer. */
export interface Seen {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly model: string | null;
  readonly text: string;
  readonly finish: string | null;
  readonly usage: { readonly prompt_tokens: number; readonly completion_tokens: number } | null;
  readonly error: { readonly code: string; readonly message: string } | null;
  /** `[DONE]` of a stream, or all of a JSON document. */
  readonly done: boolean;
  readonly tookMs: number;
}

export interface Rig {
  readonly servers: readonly MisbehavingServer[];
  readonly metrics: Metrics;
  readonly requestLog: RequestLog;
  readonly url: string;
  ask(model: string, options?: { readonly stream?: boolean; readonly boundary?: string }): Promise<Seen>;
  stop(): Promise<void>;
}

/** All of the product's own bounds are divided by `speedUp`, as are the servers' waits. */
export async function startRig(options: RigOptions = {}): Promise<Rig> {
  const { speedUp = 1, aliases = {}, servers: count = 1 } = options;
  const servers = await Promise.all(Array.from({ length: count }, () => new MisbehavingServer(options).start()));
  // The first is the preferred one.
  const registry = httpRegistry(servers.map(({ url }, index) => ({ name: `s${index}`, url, priority: -index })));
  const clock = systemClock;
  const logger = silentLogger;
  const limits = Object.fromEntries(
    Object.entries(DEFAULT_OPENAI_HTTP_LIMITS).map(([name, boundMs]) => [name, boundMs / speedUp]),
  );
  const httpNodes = new HttpNodes(
    { registry, clock, logger },
    { pollMs: 30_000 / speedUp, limits: { ...limits, connectMs: DEFAULT_OPENAI_HTTP_LIMITS.connectMs } },
  );
  httpNodes.start();
  const metrics = new Metrics();
  const stats = new RoutingStats({ clock });
  const breakers = new Breakers(
    { clock },
    { ...DEFAULT_BREAKER, resetTimeoutMs: DEFAULT_BREAKER.resetTimeoutMs / speedUp },
  );
  const requestLog = new RequestLog({ clock });
  const names = new ModelAliases(aliases);
  const settings = {
    loadBalancing: () => ({ ...DEFAULT_LOAD_BALANCING, strategy: 'priority' as const }),
    remote: () => ({ priority: 0, boundary: 'public' as const }),
    aliases: () => names,
  };
  const router = new Router({
    local: options.local ?? NO_ENGINE,
    ...NO_PEERS,
    gateways: httpNodes,
    stats,
    settings,
  });
  const dispatcher = new MeshDispatcher(
    { router, breakers, stats, metrics, clock, logger, settings, requestLog },
    {
      ...DEFAULT_DISPATCH,
      silentRouteMs: (options.silentRouteMs ?? DEFAULT_DISPATCH.silentRouteMs) / speedUp,
      repeatWithinMs: DEFAULT_DISPATCH.repeatWithinMs / speedUp,
    },
  );
  const facade = await startFacade(
    {},
    {},
    {
      dispatcher,
      metrics,
      aliases: () => names.list(),
      remoteModels: () => httpNodes.models(),
      requestRecord: (id) => requestLog.get(id),
    },
  );
  const isReady = (): boolean =>
    httpNodes.list().every(({ models }) => models.length > 0) && servers.every(({ looks }) => looks.includes('/props'));
  // What a server can is asked after its models; the answer to the last question is on its way.
  while (!isReady()) await sleep(clock, 10);
  await sleep(clock, 100);
  return {
    servers,
    metrics,
    requestLog,
    url: facade.url,
    ask: (model, asked = {}) => ask(facade.url, model, asked),
    async stop() {
      await facade.stop();
      await httpNodes.stop();
      await Promise.all(servers.map((server) => server.stop()));
    },
  };
}

async function ask(
  url: string,
  model: string,
  { stream = true, boundary }: { readonly stream?: boolean; readonly boundary?: string },
): Promise<Seen> {
  const startedAt = performance.now();
  const messages = [{ role: 'user', content: 'count to sixty' }];
  const body = JSON.stringify({ model, stream, messages, ...(stream && { stream_options: { include_usage: true } }) });
  const headers = {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    ...(boundary !== undefined && { 'x-meshnode-boundary': boundary }),
  };
  const request = http.request(`${url}/v1/chat/completions`, { method: 'POST', headers, agent: false });
  request.end(body);
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  let raw = '';
  for await (const piece of response.setEncoding('utf8')) raw += piece as string;
  const seen =
    response.headers['content-type']?.startsWith('text/event-stream') === true ? readStream(raw) : readWhole(raw);
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    tookMs: performance.now() - startedAt,
    ...seen,
  };
}

type Content = Omit<Seen, 'status' | 'headers' | 'tookMs'>;

interface Part {
  readonly model?: string;
  readonly choices?: readonly {
    readonly delta?: { readonly content?: string };
    readonly message?: { readonly content: string };
    readonly finish_reason: string | null;
  }[];
  readonly usage?: Seen['usage'];
  readonly error?: NonNullable<Seen['error']>;
}

function readWhole(raw: string): Content {
  const { model = null, choices = [], usage = null, error = null } = JSON.parse(raw) as Part;
  const [choice] = choices;
  const finish = choice?.finish_reason ?? null;
  return { model, text: choice?.message?.content ?? '', finish, usage, error, done: error === null };
}

function readStream(raw: string): Content {
  let [model, text, finish]: [string | null, string, string | null] = [null, '', null];
  let [usage, error]: [Seen['usage'], Seen['error']] = [null, null];
  let done = false;
  for (const line of raw.split('\n')) {
    if (!line.startsWith('data: ')) continue;
    done = line === 'data: [DONE]';
    if (done) continue;
    const part = JSON.parse(line.slice('data: '.length)) as Part;
    model ??= part.model ?? null;
    const [choice] = part.choices ?? [];
    text += choice?.delta?.content ?? '';
    finish = choice?.finish_reason ?? finish;
    usage = part.usage ?? usage;
    error = part.error ?? error;
  }
  return { model, text, finish, usage, error, done };
}
