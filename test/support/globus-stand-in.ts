/**
 * Stands in for auth.globus.org and compute.api.globus.org: refuses whatever they refuse, keeps their limit of requests,
 * runs functions, and fails on request.
 */
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import type { RemoteFunction } from './globus-stand-in-functions.ts';
import { readPacked } from './globus-stand-in-packing.ts';
import { stopServer } from './http-server.ts';

export const COMPUTE_SCOPE = 'https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all';

/** An endpoint. Tasks wait while it has no managers. */
export interface StandInEndpoint {
  status: 'online' | 'offline';
  managers: number;
  /** Functions that may run there; empty: all. */
  readonly allowed: readonly string[];
}

export interface StandInOptions {
  readonly requests?: number;
  readonly windowMs?: number;
  readonly expiresInS?: number;
}

/** What one request is answered with instead. `dropped`: it is done, but its answer does not come. */
export type Fault =
  | 'reset'
  | 'dropped'
  | 'hang'
  | { readonly status: number; readonly body?: object; readonly headers?: Record<string, string> };

interface Task {
  state: 'waiting' | 'success' | 'failed';
  readonly endpoint: string;
  readonly run: () => Promise<void>;
  result?: string;
  exception?: string;
}

/** One request that came. */
interface Seen {
  readonly method: string;
  readonly path: string;
  readonly body: string;
  readonly at: number;
}

export class GlobusStandIn {
  /** Service accounts: secret by id. */
  readonly accounts = new Map<string, string>();
  readonly endpoints = new Map<string, StandInEndpoint>();
  readonly functions = new Map<string, RemoteFunction>();
  /** How a result is packed; the real service has several ways. */
  pack: (value: unknown) => string = (value) => `11\n${JSON.stringify(value)}`;
  /** A submit with more bytes is refused. */
  maxSubmitBytes = 10 * 1024 * 1024;
  /** Does a task begin by itself? */
  isRunning = true;
  readonly seen: Seen[] = [];
  /** Requests beyond the limit. */
  excess = 0;
  readonly #options: Required<StandInOptions>;
  readonly #server: Server = createServer((request, response) => void this.#serve(request, response).catch(() => {}));
  readonly #tokens = new Set<string>();
  readonly #tasks = new Map<string, Task>();
  readonly #faults: { readonly on: RegExp; readonly fault: Fault }[] = [];
  #counted: number[] = [];

  constructor({ requests = 20, windowMs = 10_000, expiresInS = 172_800 }: StandInOptions = {}) {
    this.#options = { requests, windowMs, expiresInS };
  }

  static async start(options: StandInOptions = {}, port = 0): Promise<GlobusStandIn> {
    const standIn = new GlobusStandIn(options);
    await standIn.listen(port);
    return standIn;
  }

  async listen(port = 0): Promise<void> {
    this.#server.listen(port, '127.0.0.1');
    await once(this.#server, 'listening');
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get hosts(): { readonly authUrl: string; readonly computeUrl: string } {
    return { authUrl: this.url, computeUrl: this.url };
  }

  /** The next request whose method and path match is answered so. */
  failNext(on: RegExp, fault: Fault): void {
    this.#faults.push({ on, fault });
  }

  /** From now on every token that was given is refused. */
  revokeTokens(): void {
    this.#tokens.clear();
  }

  /** Requests whose method and path match. */
  count(on: RegExp): number {
    return this.seen.filter(({ method, path }) => on.test(`${method} ${path}`)).length;
  }

  /** Runs what waits, where it can run. */
  async run(): Promise<void> {
    await Promise.all(
      [...this.#tasks.values()].map(async (task) => {
        const isReady = (this.endpoints.get(task.endpoint)?.managers ?? 0) > 0;
        if (task.state === 'waiting' && isReady) await task.run();
      }),
    );
  }

  /** A cold endpoint gets its nodes: tasks that wait there run. */
  async warm(endpoint: string): Promise<void> {
    const known = this.endpoints.get(endpoint);
    if (known !== undefined) known.managers = 1;
    await this.run();
  }

  /** Breaks all connections and takes no more; `listen` begins again. */
  async stop(): Promise<void> {
    await stopServer(this.#server);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {});
    const { method = '', url: path = '' } = request;
    const asked = { method, path, body: await text(request), at: performance.now() };
    this.seen.push(asked);
    const [fault] = this.#faults.splice(this.#faultOf(`${method} ${path}`), 1);
    if (fault?.fault === 'hang') return;
    if (fault?.fault === 'reset') request.socket.destroy();
    else if (fault !== undefined && fault.fault !== 'dropped') {
      reply(response, fault.fault.status, fault.fault.body ?? {}, fault.fault.headers);
    } else {
      const [status, body] = path === '/v2/oauth2/token' ? this.#token(request, asked) : this.#compute(request, asked);
      if (fault?.fault === 'dropped') request.socket.destroy();
      else reply(response, status, body);
    }
  }

  #faultOf(asked: string): number {
    const at = this.#faults.findIndex(({ on }) => on.test(asked));
    return at === -1 ? this.#faults.length : at;
  }

  #token({ headers }: IncomingMessage, { method, body }: Seen): Answer {
    const [id = '', secret] = Buffer.from(
      /^Basic ([A-Za-z0-9+/]+=*)$/.exec(headers.authorization ?? '')?.[1] ?? '',
      'base64',
    )
      .toString('utf8')
      .split(/:(.*)/s);
    if (method !== 'POST') return [405, {}];
    if (!/^application\/x-www-form-urlencoded(;|$)/.test(headers['content-type'] ?? '')) return [415, {}];
    if (!this.accounts.has(id)) return [400, { error: 'invalid_client' }];
    if (this.accounts.get(id) !== secret) return [401, { error: 'unauthorized_client' }];
    const form = new URLSearchParams(body);
    if (form.get('grant_type') !== 'client_credentials') return [400, { error: 'unsupported_grant_type' }];
    if (form.get('scope') !== COMPUTE_SCOPE || [...form.keys()].length !== 2) return [400, { error: 'invalid_scope' }];
    const token = `Ag${randomUUID().replaceAll('-', '')}`;
    this.#tokens.add(token);
    const issued = { access_token: token, expires_in: this.#options.expiresInS, token_type: 'Bearer' };
    return [200, { ...issued, resource_server: 'funcx_service', scope: COMPUTE_SCOPE, other_tokens: [] }];
  }

  #compute({ headers }: IncomingMessage, { method, path, body, at }: Seen): Answer {
    const { requests, windowMs } = this.#options;
    this.#counted = [...this.#counted.filter((each) => each > at - windowMs), at];
    if (this.#counted.length > requests) {
      this.excess += 1;
      return refused(429, 'TOO_MANY_REQUESTS', 'too many requests');
    }
    const token = /^Bearer (\S+)$/.exec(headers.authorization ?? '')?.[1] ?? '';
    if (!this.#tokens.has(token)) return refused(401, 'NOT_AUTHENTICATED', 'the token is not valid');
    const status = /^GET \/v2\/endpoints\/([0-9a-f-]{36})\/status$/.exec(`${method} ${path}`)?.[1];
    if (status !== undefined) return this.#status(status);
    const submit = /^POST \/v3\/endpoints\/([0-9a-f-]{36})\/submit$/.exec(`${method} ${path}`)?.[1];
    if (submit === undefined && `${method} ${path}` !== 'POST /v2/batch_status') return [404, {}];
    if (headers['content-type'] !== 'application/json') return [415, {}];
    return submit === undefined ? this.#batchStatus(body) : this.#submit(submit, body);
  }

  #status(uuid: string): Answer {
    const endpoint = this.endpoints.get(uuid);
    if (endpoint === undefined) return refused(404, 'ENDPOINT_NOT_FOUND', 'there is no such endpoint');
    const { status, managers } = endpoint;
    const counts = { total_workers: managers * 4, idle_workers: managers * 4, pending_tasks: 0, outstanding_tasks: {} };
    return [200, { status, details: { managers, ...counts } }];
  }

  #submit(uuid: string, body: string): Answer {
    const endpoint = this.endpoints.get(uuid);
    if (endpoint === undefined) return refused(404, 'ENDPOINT_NOT_FOUND', 'there is no such endpoint');
    if (Buffer.byteLength(body) > this.maxSubmitBytes)
      return refused(413, 'PAYLOAD_TOO_LARGE', 'the payload is too large');
    const json = JSON.parse(body) as Record<string, unknown>;
    const { create_queue: createQueue, result_serializers: serializers, tasks, ...rest } = json;
    const isStrict = createQueue === false && Object.keys(rest).length === 0;
    const isJson = Array.isArray(serializers) && serializers.join() === 'globus_compute_sdk.serialize.JSONData';
    if (!isStrict || !isJson) return refused(422, 'INVALID_REQUEST', 'unexpected fields');
    const calls = Object.entries(tasks as Record<string, string[]>);
    for (const [uuidOfFunction] of calls) {
      if (!this.functions.has(uuidOfFunction)) return refused(404, 'FUNCTION_NOT_FOUND', 'there is no such function');
      if (endpoint.allowed.length > 0 && !endpoint.allowed.includes(uuidOfFunction)) {
        return refused(403, 'FUNCTION_NOT_PERMITTED', 'the function may not run there');
      }
    }
    const given = calls.map(([name, packed]) => [name, packed.map((each) => this.#take(uuid, name, each))] as const);
    const ids = { request_id: randomUUID(), task_group_id: randomUUID(), endpoint_id: uuid };
    return [200, { ...ids, tasks: Object.fromEntries(given) }];
  }

  #take(endpoint: string, name: string, packed: string): string {
    const { args } = readPacked(packed);
    const id = randomUUID();
    const run = async (): Promise<void> => {
      try {
        const value = await this.functions.get(name)?.(args);
        Object.assign(task, { state: 'success', result: this.pack(value) });
      } catch (error) {
        Object.assign(task, { state: 'failed', exception: tracebackOf((error as Error).message) });
      }
    };
    const task: Task = { state: 'waiting', endpoint, run };
    this.#tasks.set(id, task);
    if (this.isRunning && (this.endpoints.get(endpoint)?.managers ?? 0) > 0) void run();
    return id;
  }

  #batchStatus(body: string): Answer {
    const { task_ids: ids, ...rest } = JSON.parse(body) as { task_ids: string[] };
    if (!Array.isArray(ids) || ids.length === 0 || Object.keys(rest).length > 0)
      return refused(422, 'INVALID_REQUEST', '');
    const results = ids.map((id) => {
      const task = this.#tasks.get(id);
      if (task === undefined) return [id, { task_id: id, status: 'unknown', reason: 'unknown task' }];
      const { state, result, exception } = task;
      if (state === 'waiting') return [id, { task_id: id, status: 'waiting-for-nodes', completion_t: null }];
      return [id, { task_id: id, status: state, result, exception, completion_t: String(Date.now() / 1000) }];
    });
    return [200, { response: 'batch', results: Object.fromEntries(results) }];
  }
}

type Answer = readonly [status: number, body: object];

function refused(status: number, code: string, reason: string): Answer {
  return [status, { status: 'Failed', code, error_args: [], http_status_code: status, detail: code, reason }];
}

function reply(response: ServerResponse, status: number, body: object, headers: Record<string, string> = {}): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(body));
}

/** As Python prints what a function raised. */
function tracebackOf(message: string): string {
  return `Traceback (most recent call last):\n  File "parsl/app/errors.py", line 12, in wrapper\n    return func(*args, **kwargs)\nException: ${message}\n`;
}
