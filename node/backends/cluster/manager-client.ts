/** A Backend.AI manager's REST API: every request signed afresh, JSON in and out. */
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import type { Clock } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';
import { parseClusterUrl } from '../../storage/cluster-registry.ts';
import { type HttpAsk, HttpClient } from '../openai-http/http-client.ts';
import { parseJson } from '../openai-http/parse-json.ts';
import { readText } from '../openai-http/read-text.ts';
import { withoutSecret } from '../openai-http/upstream-errors.ts';
import { ManagerClock } from './manager-clock.ts';
import { errorOfManager, isAuthRefusal, isDateRefusal } from './manager-problem.ts';
import { signedHeaders } from './signature.ts';

export interface ManagerClientComponents {
  readonly clock: Clock;
  /** Unix milliseconds, what requests are dated by. Default: the clock of the system. */
  readonly now?: () => number;
}

export interface ManagerClientOptions {
  /** URL of the manager; may have a path. */
  readonly endpoint: string;
  readonly accessKey: string;
  /** Read for every request; null = none is stored. */
  readonly secretKey: () => string | null;
  /** Without it, endpoints without TLS are refused: bodies are not signed. */
  readonly allowHttp: boolean;
  /** What errors call the cluster. */
  readonly name: string;
}

export interface ManagerAsk {
  readonly method: HttpAsk['method'];
  /** After the endpoint, with its query. */
  readonly path: string;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** Until the headers of the answer, milliseconds. Default 10,000. */
  readonly timeoutMs?: number;
}

export interface ManagerVersion {
  /** For example `v8.20240315`; what requests are signed with. */
  readonly api: string;
  /** The manager's own; empty when it does not say. */
  readonly manager: string;
}

const TIMEOUT_MS = 10_000;
const CONNECT_MS = 5000;
const SILENCE_MS = 10_000;
const MAX_BODY_BYTES = 8 * 1024 * 1024;
const API_VERSION = /^v(\d{1,3})\.(\d{8})$/;
/** From then on bodies are not part of the signature. */
const OLDEST_API = 'v4.20181215';

export class ManagerClient {
  readonly #options: ManagerClientOptions;
  readonly #http: HttpClient;
  readonly #base: URL;
  readonly #clock: ManagerClock;
  readonly #now: () => number;
  #version: ManagerVersion | null = null;

  /** @throws MeshError `invalid_request` when nothing may be sent to such an endpoint. */
  constructor({ clock, now = Date.now }: ManagerClientComponents, options: ManagerClientOptions) {
    this.#options = options;
    this.#base = parseClusterUrl(options.endpoint, options);
    this.#now = now;
    this.#clock = new ManagerClock(now);
    this.#http = new HttpClient({ clock }, { name: options.name, url: this.#base.href.replace(/\/$/, '') });
  }

  /** Manager's clock minus ours, milliseconds, as its last answer showed; 0 before. */
  get clockOffsetMs(): number {
    return this.#clock.offsetMs;
  }

  /** How the clocks disagree, for people; null while they agree to within what signatures allow. */
  get clockProblem(): string | null {
    return this.#clock.sentence(this.#options.name);
  }

  /**
   * One signed request. A refusal while the clocks are too far apart is tried once more, dated by the manager's. What
   * has no body is null. A request that changes something never travels on a connection that may just be closing.
   *
   * @throws MeshError `unauthorized` (says which: key, secret or clock), `forbidden`, `not_found`, `rate_limited`,
   *   `invalid_request`, `upstream_error`, `peer_unreachable`; `problemOf` tells what the manager said. Never holds a key.
   */
  async call<T>(ask: ManagerAsk, signal: AbortSignal): Promise<T> {
    const { api } = await this.version(signal);
    try {
      return (await this.#signed(ask, api, signal)) as T;
    } catch (error) {
      if (!(error instanceof MeshError) || !isAuthRefusal(error)) throw error;
      if (!this.#clock.correct()) throw this.#refused(error);
      return (await this.#again(ask, api, signal)) as T;
    }
  }

  /** Asked once, again after it was refused. @throws MeshError `upstream_error` when this is no manager, or too old. */
  async version(signal: AbortSignal): Promise<ManagerVersion> {
    this.#version ??= this.#parseVersion(await this.#exchange({ method: 'GET', path: '/' }, {}, signal));
    return this.#version;
  }

  /** Where the manager's API has compute sessions. */
  async sessionPrefix(signal: AbortSignal): Promise<'/session' | '/kernel'> {
    const { api } = await this.version(signal);
    return Number(API_VERSION.exec(api)?.[1]) > 4 ? '/session' : '/kernel';
  }

  /** Breaks all connections. */
  close(): void {
    this.#http.destroy();
  }

  async #again(ask: ManagerAsk, api: string, signal: AbortSignal): Promise<unknown> {
    try {
      return await this.#signed(ask, api, signal);
    } catch (error) {
      throw error instanceof MeshError && isAuthRefusal(error) ? this.#refused(error) : error;
    }
  }

  /** A refusal with what is known about the clocks; the manager may be another one by now, so its version is asked anew. */
  #refused(error: MeshError): MeshError {
    this.#version = null;
    const skew = this.clockProblem;
    const hint = isDateRefusal(error) ? `${skew}: set it right` : `besides, ${skew}`;
    const message = skew === null ? error.message : `${error.message}; ${hint}`;
    return new MeshError('unauthorized', message, { ...error.facts, cause: error.cause });
  }

  #signed(ask: ManagerAsk, version: string, signal: AbortSignal): Promise<unknown> {
    const { accessKey, secretKey, name } = this.#options;
    const secret = secretKey();
    if (secret === null) throw new MeshError('unauthorized', `There is no secret key for ${name}: register it again`);
    const { pathname, search } = new URL(`${this.#base.href.replace(/\/$/, '')}${ask.path}`);
    const request = { method: ask.method, path: pathname + search, host: this.#base.host, version };
    const headers = signedHeaders({ ...request, date: this.#clock.date() }, { accessKey, secretKey: secret });
    return this.#exchange(ask, headers, signal).catch((error: unknown) => {
      throw error instanceof MeshError ? withoutSecret(error, secret) : error;
    });
  }

  async #exchange(ask: ManagerAsk, headers: Record<string, string>, signal: AbortSignal): Promise<unknown> {
    const { method, path, body, timeoutMs = TIMEOUT_MS } = ask;
    const { name } = this.#options;
    if (method !== 'GET') this.#http.closeIdle();
    const bytes = body === undefined ? {} : { body: Buffer.from(JSON.stringify(body)) };
    const limits = { connectMs: Math.min(CONNECT_MS, timeoutMs), headersMs: timeoutMs, silenceMs: SILENCE_MS };
    const wanted = { accept: 'application/json, application/problem+json', ...headers };
    const answer = await this.#http.call({ method, path, headers: wanted, ...bytes }, limits, signal);
    try {
      this.#clock.heard(answer.headers.date);
      const text = await readText(answer.body, MAX_BODY_BYTES, name);
      const { status } = answer;
      if (status < 200 || status > 299) {
        throw errorOfManager({ name, status, headers: answer.headers, body: text, nowMs: this.#now() });
      }
      if (text.trim() === '') return null;
      const json = parseJson(text);
      if (json === undefined) throw new MeshError('upstream_error', `${name} answered something that is no JSON`);
      return json;
    } finally {
      answer.close();
    }
  }

  #parseVersion(json: unknown): ManagerVersion {
    const { name } = this.#options;
    const said = isRecord(json) ? json : {};
    const api = said['version'];
    const parts = typeof api === 'string' ? API_VERSION.exec(api) : null;
    if (typeof api !== 'string' || parts === null) {
      throw new MeshError('upstream_error', `${name} is no Backend.AI manager: it names no version of its API at /`);
    }
    if (isOlder(api, OLDEST_API)) {
      throw new MeshError('upstream_error', `${name} speaks ${api}, older than ${OLDEST_API}: its signatures differ`);
    }
    const manager = said['manager'];
    return { api, manager: typeof manager === 'string' ? manager.slice(0, 64) : '' };
  }
}

function isOlder(api: string, than: string): boolean {
  const [, major = '', day = ''] = API_VERSION.exec(api) ?? [];
  const [, leastMajor = '', leastDay = ''] = API_VERSION.exec(than) ?? [];
  return Number(major) < Number(leastMajor) || (Number(major) === Number(leastMajor) && day < leastDay);
}
