/**
 * A strict stand-in for a Backend.AI manager with its application proxy: real HTTP on loopback, every signed call
 * verified. What is wrong with a request is answered as RFC 7807 says; everything can be made to go wrong.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { stopServer } from '../http-server.ts';
import { AppProxy } from './app-proxy.ts';
import { Problem } from './problem.ts';
import { ManagerRoutes } from './routes.ts';
import { type Folder, type Service, Services } from './services.ts';
import { Sessions } from './sessions.ts';
import { type Keypair, verified } from './verify.ts';

/** The well-known dummy keys of documentation pages. */
export const KEYPAIR: Keypair = {
  accessKey: 'AKIAIOSFODNN7EXAMPLE',
  secretKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
};

export interface ManagerFaults {
  /** Connections break at once. */
  down: boolean;
  /** Signed calls are answered with this status, as HTML: a proxy in front that fails. */
  status: number | null;
  /** The manager's clock is ahead by so much, milliseconds. */
  clockOffsetMs: number;
  /** What a wrong clock is answered with. */
  skewStatus: 400 | 401;
  /** Calls that one key may make in fifteen minutes. */
  rateLimit: number;
  /** Before each answer, milliseconds. */
  delayMs: number;
}

export interface ManagerOptions {
  /** Default: any free one. */
  readonly port?: number;
  /** Of the application proxy. Default: any free one. */
  readonly appPort?: number;
  /** Default: v8.20240315. */
  readonly version?: string;
  /** Default: `KEYPAIR` alone. */
  readonly keypairs?: readonly Keypair[];
  /** Default: one model folder `llama-3-70b` and one general folder `data`. */
  readonly folders?: readonly Folder[];
}

/** One call that arrived, whether it was let in or not. */
export interface Called {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: string;
}

const FOLDERS: readonly Folder[] = [
  { id: 'f1', name: 'llama-3-70b', usage_mode: 'model' },
  { id: 'f2', name: 'data', usage_mode: 'general' },
];

export class ClusterManager {
  readonly faults: ManagerFaults = {
    down: false,
    status: null,
    clockOffsetMs: 0,
    skewStatus: 401,
    rateLimit: 10_000,
    delayMs: 0,
  };
  readonly sessions = new Sessions();
  readonly services = new Services();
  readonly app = new AppProxy({ services: this.services, nowMs: () => this.#nowMs() });
  readonly called: Called[] = [];
  readonly #version: string;
  readonly #routes: ManagerRoutes;
  readonly #keypairs: ReadonlyMap<string, Keypair>;
  readonly #used = new Map<string, number>();
  readonly #server: Server = createServer((request, response) => void this.#serve(request, response).catch(() => {}));

  private constructor({ version = 'v8.20240315', keypairs = [KEYPAIR], folders = FOLDERS }: ManagerOptions) {
    this.#version = version;
    const { sessions, services, app } = this;
    const sessionPrefix = Number(/\d+/.exec(version)?.[0]) > 4 ? 'session' : 'kernel';
    this.#routes = new ManagerRoutes({ sessions, services, app, nowMs: () => this.#nowMs() }, { sessionPrefix });
    this.#keypairs = new Map(keypairs.map((each) => [each.accessKey, each]));
    this.services.folders.push(...folders);
  }

  static async start(options: ManagerOptions = {}): Promise<ClusterManager> {
    const manager = new ClusterManager(options);
    await manager.app.start(options.appPort);
    manager.#server.listen(options.port ?? 0, '127.0.0.1');
    await once(manager.#server, 'listening');
    return manager;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** A service that runs, as somebody else made it. */
  addService(name: string, model: string, { replicas = 1, isPublic = false } = {}): Service {
    if (!this.services.folders.some((each) => each.name === model)) {
      this.services.folders.push({ id: `f-${model}`, name: model, usage_mode: 'model' });
    }
    const [keypair = KEYPAIR] = this.#keypairs.values();
    const config = { model, resources: { cpu: 1 } };
    const asked = { name, image: 'vllm', desired_session_count: 0, config, open_to_public: isPublic };
    const service = this.services.create(keypair.accessKey, asked);
    service.desired = replicas;
    service.active = replicas;
    return service;
  }

  /** Calls of one method whose path begins so. */
  calls(method: string, path: string): readonly Called[] {
    return this.called.filter((each) => each.method === method && each.path.startsWith(path));
  }

  async stop(): Promise<void> {
    this.sessions.stop();
    this.services.stop();
    await this.app.stop();
    await stopServer(this.#server);
  }

  #nowMs(): number {
    return Date.now() + this.faults.clockOffsetMs;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => {});
    const pieces: Buffer[] = [];
    for await (const piece of request) pieces.push(piece as Buffer);
    const { method = '', url = '', headers } = request;
    const body = Buffer.concat(pieces).toString('utf8');
    this.called.push({ method, path: url, headers, body });
    if (this.faults.down) {
      response.socket?.resetAndDestroy();
      return;
    }
    if (this.faults.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.faults.delayMs));
    response.setHeader('date', new Date(this.#nowMs()).toUTCString());
    try {
      const answer = method === 'GET' && url === '/' ? this.#hello() : this.#signed(request, response, body);
      if (answer === undefined) response.writeHead(204).end();
      else this.#send(response, 200, 'application/json', JSON.stringify(answer));
    } catch (thrown) {
      const problem = thrown instanceof Problem ? thrown : new Problem(500, 'internal-server-error', String(thrown));
      for (const [name, value] of Object.entries(problem.headers)) response.setHeader(name, value);
      this.#send(response, problem.status, 'application/problem+json', JSON.stringify(problem.body));
    }
  }

  #send(response: ServerResponse, status: number, type: string, text: string): void {
    if (this.faults.status === null) response.writeHead(status, { 'content-type': type }).end(text);
    else response.writeHead(this.faults.status, { 'content-type': 'text/html' }).end('<h1>Bad Gateway</h1>');
  }

  #hello(): object {
    return { version: this.#version, manager: '24.03.1' };
  }

  #signed(request: IncomingMessage, response: ServerResponse, text: string): object | undefined {
    const { skewStatus, rateLimit } = this.faults;
    const { accessKey } = verified(request, this.#keypairs, { nowMs: this.#nowMs(), skewStatus });
    const used = (this.#used.get(accessKey) ?? 0) + 1;
    this.#used.set(accessKey, used);
    response.setHeader('x-ratelimit-limit', rateLimit);
    response.setHeader('x-ratelimit-remaining', Math.max(0, rateLimit - used));
    response.setHeader('x-ratelimit-window', 900);
    if (used > rateLimit) {
      throw new Problem(429, 'rate-limit-exceeded', 'You have reached your API query rate limit.', '', {
        'retry-after': '2',
      });
    }
    return this.#routes.answer(accessKey, request.method ?? '', new URL(request.url ?? '/', this.url), text);
  }
}
