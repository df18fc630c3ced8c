/** Asks the node that runs here, over its own HTTP facade. */
import {
  type CatalogEntry,
  findRunningNode,
  type NodeLoad,
  type RunningNode,
  readSecretFile,
  type SecretStoreView,
} from '../node/index.ts';
import { CliError, configOf, type Invocation } from './command.ts';

const REQUEST_TIMEOUT_MS = 10_000;

/** `GET /api/v1/node`. */
export interface NodeAnswer {
  readonly name: string;
  readonly version: string;
  readonly fingerprint: string;
  readonly uptimeMs: number;
  readonly api: string;
  readonly multiaddrs: readonly string[];
  readonly draining: boolean;
  /** `open`, `paused` or `draining`. */
  readonly state?: string;
  readonly engineBuild: string;
  readonly secrets?: SecretStoreView;
  readonly models: readonly CatalogEntry[];
}

/** One of `GET /api/v1/peers`. */
export interface PeerAnswer {
  readonly fingerprint: string;
  readonly name: string;
  readonly version: string;
  readonly status: string;
  readonly kind?: string;
  readonly url?: string;
  readonly priority: number;
  readonly addresses: readonly string[];
  readonly latencyMs: number | null;
  readonly load: NodeLoad | null;
  readonly models: readonly CatalogEntry[];
}

/** A running node and the key that it wants. */
export class NodeApi {
  readonly running: RunningNode;
  readonly #apiKey: string | null;

  constructor(running: RunningNode, apiKey: string | null) {
    this.running = running;
    this.#apiKey = apiKey;
  }

  async node(): Promise<NodeAnswer> {
    return (await this.#get('/api/v1/node')) as NodeAnswer;
  }

  async peers(): Promise<readonly PeerAnswer[]> {
    return ((await this.#get('/api/v1/peers')) as { peers: readonly PeerAnswer[] }).peers;
  }

  /** Ids of all models that can be used here, as the node orders them. */
  async modelIds(): Promise<readonly string[]> {
    const { data } = (await this.#get('/v1/models')) as { data: readonly { id: string }[] };
    return data.map((model) => model.id);
  }

  /** Any other path of the node's own API. */
  async read<T>(path: string): Promise<T> {
    return (await this.#get(path)) as T;
  }

  /** Tells the node to do something, with a JSON object. */
  async tell<T>(path: string, body: object): Promise<T> {
    const response = await this.#request(path, {
      method: 'POST',
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    return (await response.json()) as T;
  }

  /** Sends bytes as they come; bounded by the signal only. */
  async send<T>(path: string, contentType: string, body: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<T> {
    const headers = { 'content-type': contentType };
    const response = await this.#request(path, { method: 'POST', signal, headers, body, duplex: 'half' });
    return (await response.json()) as T;
  }

  /** The bytes of an answer as they come; bounded by the signal only. */
  async bytes(path: string, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
    const { body } = await this.#request(path, { signal });
    if (body === null) throw new CliError('the node sent an empty answer');
    return body;
  }

  /**
   * Sends a chat request; resolves when the answer's headers are here.
   *
   * @throws CliError with the node's own message when it refuses.
   */
  async chat(body: object, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const response = await this.#request('/v1/chat/completions', {
      method: 'POST',
      signal,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    if (response.body === null) throw new CliError('the node sent an empty answer');
    return response.body;
  }

  async #get(path: string): Promise<unknown> {
    const response = await this.#request(path, { signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS) });
    try {
      return await response.json();
    } catch {
      throw new CliError(`the node's answer to ${path} cannot be read: is it another version?`);
    }
  }

  async #request(path: string, init: RequestInit & { headers?: Record<string, string> }): Promise<Response> {
    const key: Record<string, string> = this.#apiKey === null ? {} : { authorization: `Bearer ${this.#apiKey}` };
    let response: Response;
    try {
      response = await fetch(this.running.api + path, { ...init, headers: { ...init.headers, ...key } });
    } catch (error) {
      if (init.signal?.aborted === true && !isTimeout(error)) throw error;
      const reason = isTimeout(error) ? 'did not answer in time' : 'closed the connection';
      throw new CliError(`the node at ${this.running.api} ${reason}: see meshnode doctor`);
    }
    if (response.ok) return response;
    if (response.status === 401)
      throw new CliError('this node wants a key: pass --api-key-file FILE as it was started with');
    throw new CliError(await refusalOf(response));
  }
}

/**
 * The node that runs with this data dir.
 *
 * @throws CliError when there is none.
 */
export async function connect(invocation: Invocation): Promise<NodeApi> {
  const api = await tryConnect(invocation);
  if (api === null) throw new CliError('no node is running here: start one with `meshnode start`');
  return api;
}

/** The node that runs with this data dir, or null: for commands that also work without. */
export async function tryConnect(invocation: Invocation): Promise<NodeApi | null> {
  const { config } = configOf(invocation);
  const apiKey = config.facade.apiKeyFile === null ? null : await readSecretFile(config.facade.apiKeyFile);
  const running = await findRunningNode(config.dataDir, { apiKey });
  return running === null ? null : new NodeApi(running, apiKey);
}

async function refusalOf(response: Response): Promise<string> {
  const body: unknown = await response.json().catch(() => null);
  return errorMessage(body) ?? `the node answered with status ${response.status}`;
}

/** The message in an error of OpenAI's shape, or null. */
export function errorMessage(body: unknown): string | null {
  if (typeof body !== 'object' || body === null || !('error' in body)) return null;
  const { error } = body;
  if (typeof error !== 'object' || error === null || !('message' in error)) return null;
  return typeof error.message === 'string' ? error.message : null;
}

function isTimeout(error: unknown): boolean {
  return error instanceof Error && error.name === 'TimeoutError';
}
