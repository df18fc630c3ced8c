/** HTTP requests to one server: kept connections, a bound on every wait, no redirects, no link-local addresses. */
import dns from 'node:dns';
import http from 'node:http';
import https from 'node:https';
import type { LookupFunction } from 'node:net';
import { Watchdog } from '../../../protocols/watchdog.ts';
import type { Clock } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';
import { isForbiddenAddress, isNearbyAddress } from '../../storage/node-url.ts';

export interface HttpClientOptions {
  /** What errors call the server. */
  readonly name: string;
  /** Base URL without trailing slash and `/v1`. */
  readonly url: string;
  /** Its name must not resolve to loopback or a private network either. Default false. */
  readonly publicOnly?: boolean;
}

/** The server took the request and then said nothing for too long: it may only be busy. */
export class AnswerTimeout extends MeshError {}

/** All durations in milliseconds. */
export interface HttpLimits {
  /** Name look-up, TCP and TLS. */
  readonly connectMs: number;
  /** From the connection to the headers of the answer: sending the body, queueing, loading and, unstreamed, all of the generation. */
  readonly headersMs: number;
  /** Between two pieces of the answer's body; comments of an event stream count as pieces. */
  readonly silenceMs: number;
}

export interface HttpAsk {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'PUT' | 'DELETE';
  /** After the base URL, for example `/v1/models`. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  /** Iterate once; reads from the socket only as fast as it is iterated. Throws MeshError only. */
  readonly body: AsyncIterable<Uint8Array>;
  /** From the next piece on, this long a silence at most, milliseconds. */
  boundSilence(silenceMs: number): void;
  /** The rest matters no longer, but it ends soon: keeps the connection for the next request where possible. */
  settle(): void;
  /** Closes the connection unless the answer was read to its end or settled. Always call it. */
  close(): void;
}

/** A connection that is closed after a burst is opened again at the next one, which costs more than to keep it. */
const IDLE_CONNECTIONS = 256;
const IDLE_MS = 30_000;
/** How long what follows a complete answer may take before the connection is closed. */
const SETTLE_MS = 1000;
const MAX_HEADER_BYTES = 16 * 1024;

export class HttpClient {
  readonly #clock: Clock;
  readonly #options: HttpClientOptions;
  readonly #agent: http.Agent;
  readonly #isSecure: boolean;

  constructor(components: { readonly clock: Clock }, options: HttpClientOptions) {
    this.#clock = components.clock;
    this.#options = options;
    this.#isSecure = options.url.startsWith('https:');
    const agentOptions = {
      keepAlive: true,
      maxFreeSockets: IDLE_CONNECTIONS,
      timeout: IDLE_MS,
      scheduling: 'lifo',
    } as const;
    this.#agent = this.#isSecure ? new https.Agent(agentOptions) : new http.Agent(agentOptions);
  }

  /**
   * Resolves with the headers of the answer, whatever its status. Aborting `signal` destroys the socket at once, also
   * while the body is read.
   *
   * @throws MeshError `peer_unreachable` (connect, reset, bound), `upstream_error` (no HTTP), or the signal's.
   */
  async call(ask: HttpAsk, limits: HttpLimits, signal: AbortSignal): Promise<HttpAnswer> {
    const exchange = new Exchange(this.#clock, this.#options.name, limits, signal);
    try {
      const response = await this.#send(ask, exchange);
      return exchange.answer(response);
    } catch (error) {
      exchange[Symbol.dispose]();
      throw exchange.ownError(error);
    }
  }

  /** Closes idle connections; busy ones close once they have been idle for a while. */
  closeIdle(): void {
    for (const sockets of Object.values(this.#agent.freeSockets)) for (const socket of sockets ?? []) socket.destroy();
  }

  /** Breaks all connections. */
  destroy(): void {
    this.#agent.destroy();
  }

  async #send(ask: HttpAsk, exchange: Exchange): Promise<http.IncomingMessage> {
    const first = this.#request(ask);
    try {
      return await exchange.send(first, ask.body);
    } catch (error) {
      // The server closed an idle connection just as it was taken: this says nothing about the server.
      const isStale = first.reusedSocket && (error as NodeJS.ErrnoException).code === 'ECONNRESET';
      if (!isStale || exchange.aborted) throw error;
      return await exchange.send(this.#request(ask, false), ask.body);
    }
  }

  #request({ method, path, headers, body }: HttpAsk, kept = true): http.ClientRequest {
    const length = body === undefined ? {} : { 'content-length': String(body.byteLength) };
    const options: http.RequestOptions = {
      method,
      headers: { 'accept-encoding': 'identity', ...headers, ...length },
      lookup: this.#options.publicOnly === true ? publicLookup : safeLookup,
      maxHeaderSize: MAX_HEADER_BYTES,
      agent: kept ? this.#agent : false,
    };
    const url = `${this.#options.url}${path}`;
    return this.#isSecure ? https.request(url, options) : http.request(url, options);
  }
}

/** One request and its answer under one watchdog. */
class Exchange implements Disposable {
  readonly #clock: Clock;
  readonly #name: string;
  readonly #limits: HttpLimits;
  readonly #signal: AbortSignal;
  readonly #watchdog: Watchdog;
  readonly #onAbort = (): void => this.#break();
  #request: http.ClientRequest | null = null;
  #response: http.IncomingMessage | null = null;
  #settled = false;
  #silenceMs: number;

  constructor(clock: Clock, name: string, limits: HttpLimits, signal: AbortSignal) {
    this.#clock = clock;
    this.#name = name;
    this.#limits = limits;
    this.#signal = signal;
    this.#silenceMs = limits.silenceMs;
    this.#watchdog = new Watchdog(clock, signal);
    this.#watchdog.signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  get aborted(): boolean {
    return this.#watchdog.signal.aborted;
  }

  send(request: http.ClientRequest, body: Uint8Array | undefined): Promise<http.IncomingMessage> {
    this.#request = request;
    this.#arm(this.#limits.connectMs, 'did not take the connection', MeshError);
    return new Promise((resolve, reject) => {
      request.on('error', reject);
      request.once('close', () => reject(new Error('closed')));
      request.once('response', resolve);
      request.once('socket', (socket) => {
        const connected = (): void => this.#arm(this.#limits.headersMs, 'gave no answer');
        if (!socket.connecting) connected();
        else socket.once('encrypted' in socket ? 'secureConnect' : 'connect', connected);
      });
      if (this.aborted) this.#break();
      else request.end(body);
    });
  }

  answer(response: http.IncomingMessage): HttpAnswer {
    this.#response = response;
    // The iteration below reports it; without this listener one that comes between two reads would be lost.
    response.on('error', () => {});
    return {
      status: response.statusCode ?? 0,
      headers: response.headers,
      body: this.#read(response),
      boundSilence: (silenceMs) => {
        this.#silenceMs = silenceMs;
      },
      settle: () => {
        this.#settled = true;
      },
      close: () => this.#close(response),
    };
  }

  /** What a failure of this exchange means: the asker's own abort, a bound, or the server. */
  ownError(error: unknown): MeshError {
    const { signal } = this.#watchdog;
    const reason: unknown = signal.aborted ? signal.reason : error;
    if (reason instanceof MeshError) return reason;
    if (this.#signal.aborted) return new MeshError('client_closed', 'The request was given up');
    const { code = 'connection lost', message } = error as NodeJS.ErrnoException;
    // The parser's errors carry the raw bytes, so they do not become a cause.
    if (code.startsWith('HPE_')) return new MeshError('upstream_error', `${this.#name} does not speak HTTP (${code})`);
    if (code === FORBIDDEN_CODE) return new MeshError('peer_unreachable', `${this.#name}: ${message}`);
    return new MeshError('peer_unreachable', `${this.#name} cannot be reached (${code})`);
  }

  [Symbol.dispose](): void {
    this.#watchdog.signal.removeEventListener('abort', this.#onAbort);
    this.#watchdog[Symbol.dispose]();
  }

  async *#read(response: http.IncomingMessage): AsyncGenerator<Uint8Array> {
    const pieces = response.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer>;
    try {
      for (;;) {
        this.#arm(this.#silenceMs, 'fell silent');
        const next = await pieces.next();
        // Whoever iterates may take its time.
        this.#watchdog.disarm();
        if (next.done === true) return;
        yield next.value;
      }
    } catch (error) {
      throw this.ownError(error);
    } finally {
      // Lets go of the stream, which `settle` may want to run out.
      await pieces.return?.();
    }
  }

  #close(response: http.IncomingMessage): void {
    this[Symbol.dispose]();
    if (response.complete && response.readableEnded) return;
    if (!this.#settled || response.destroyed) {
      this.#break();
      return;
    }
    const cancel = this.#clock.after(SETTLE_MS, () => response.destroy());
    response.once('close', cancel);
    response.resume();
  }

  #break(): void {
    this.#response?.destroy();
    this.#request?.destroy();
  }

  #arm(boundMs: number, what: string, Kind: typeof MeshError = AnswerTimeout): void {
    this.#watchdog.arm(boundMs, () => new Kind('peer_unreachable', `${this.#name} ${what} within ${boundMs / 1000} s`));
  }
}

const FORBIDDEN_CODE = 'EFORBIDDEN';

/** Names may come to point to link-local or metadata addresses after they were registered. */
const safeLookup = lookupOf((address) => !isForbiddenAddress(address), 'a link-local or metadata address');
const publicLookup = lookupOf(
  (address) => !isForbiddenAddress(address) && !isNearbyAddress(address),
  'a link-local, metadata or private address',
);

/** The problem does not say which name: that of a manifest's server is not to be shown. */
function lookupOf(isAllowed: (address: string) => boolean, otherwise: string): LookupFunction {
  return (hostname, options, callback) => {
    dns.lookup(hostname, { ...options, all: true }, (error, addresses) => {
      if (error !== null) {
        callback(error, '', 0);
        return;
      }
      const allowed = addresses.filter(({ address }) => isAllowed(address));
      const [first] = allowed;
      if (first === undefined) {
        const problem = new Error(`its name points to ${otherwise}, which is not allowed`);
        callback(Object.assign(problem, { code: FORBIDDEN_CODE }), '', 0);
      } else if (options.all === true) callback(null, allowed);
      else callback(null, first.address, first.family);
    });
  };
}
