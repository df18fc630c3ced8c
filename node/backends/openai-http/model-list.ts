/** What a server says it serves: `GET …/v1/models` as catalog entries. */

import type { CatalogEntry, ModelState } from '../../../protocols/catalog/catalog.ts';
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import type { Clock } from '../../common/clock.ts';
import { MeshError } from '../../common/errors.ts';
import { HttpClient, type HttpClientOptions, type HttpLimits } from './http-client.ts';
import { readText } from './read-text.ts';
import { errorOfRefusal, withoutSecret } from './upstream-errors.ts';
import { fetchWaiting, isVllm } from './vllm-load.ts';

/** All that a server can be asked for is worth this many entries. */
const MAX_MODELS = 4096;
const MAX_BODY_BYTES = 4 * 1024 * 1024;
const MODEL_ID = /^[^\p{C}]{1,256}$/u;
const STATES: readonly ModelState[] = ['resident', 'loading', 'on-disk'];
/** Servers do not say how many requests they run at once; what an engine here would, so that shares stay fair. */
const ASSUMED_SLOTS = 4;
const PROBE_LIMITS: HttpLimits = { connectMs: 3000, headersMs: 10_000, silenceMs: 5000 };

export interface ModelList {
  readonly models: readonly CatalogEntry[];
  /** Milliseconds from the question to the headers of the answer. */
  readonly latencyMs: number;
  /** Requests that wait there; 0 where it does not tell. */
  readonly waiting: number;
}

export interface ModelListOptions {
  /** What errors call the server. */
  readonly name: string;
  /** Shown as bearer; null = none. */
  readonly key: string | null;
  readonly signal: AbortSignal;
  /** Below the base URL: where OpenAI's API is. Default `/v1`. */
  readonly apiPath?: string;
}

/** Where and how a server is asked. */
export interface AskedServer {
  readonly client: HttpClient;
  readonly clock: Clock;
}

/** Asks for a model list; errors as `fetchModels`. */
export type AskModels = (server: AskedServer, options: ModelListOptions) => Promise<ModelList>;

/** Of a server whose models its owner named: what it lists adds details, and that it lists none matters not. */
export function askNamed(ids: readonly string[]): AskModels {
  return async (server, options) => {
    const startedAt = server.clock.now();
    let list: ModelList;
    try {
      list = await fetchModels(server, options);
    } catch (error) {
      if (!(error instanceof MeshError) || !hasNoList(error)) throw error;
      list = { models: [], latencyMs: server.clock.now() - startedAt, waiting: 0 };
    }
    const listed = new Map(list.models.map((entry) => [entry.id, entry]));
    return { ...list, models: ids.map((id) => listed.get(id) ?? entryOf(id)) };
  };
}

/**
 * Asks a server what it serves, and vLLM also how many wait there.
 *
 * @throws MeshError `peer_unreachable`, `unauthorized`, `forbidden`, `rate_limited`, `upstream_error`, … that says
 *   what is wrong; never with the key in it.
 */
export async function fetchModels(
  { client, clock }: AskedServer,
  { name, key, signal, apiPath = '/v1' }: ModelListOptions,
): Promise<ModelList> {
  const startedAt = clock.now();
  const headers = { accept: 'application/json', ...bearer(key) };
  const ask = { method: 'GET', path: `${apiPath}/models`, headers } as const;
  try {
    const answer = await client.call(ask, PROBE_LIMITS, signal);
    try {
      const latencyMs = clock.now() - startedAt;
      const { status, headers } = answer;
      const body = await readText(answer.body, MAX_BODY_BYTES, name);
      if (status !== 200) throw errorOfRefusal({ name, status, headers, body, nowMs: Date.now() });
      const models = parseModels(body, name, ask.path);
      const waiting = isVllm(body) ? await fetchWaiting(client, { headers: bearer(key), signal }) : 0;
      return { models, latencyMs, waiting };
    } finally {
      answer.close();
    }
  } catch (error) {
    throw error instanceof MeshError ? withoutSecret(error, key) : error;
  }
}

/** `fetchModels` for one time, of a server by its URL: for commands. Errors as there. */
export async function probeServer(
  { clock }: { readonly clock: Clock },
  options: ModelListOptions & HttpClientOptions & { readonly ask?: AskModels },
): Promise<ModelList> {
  const client = new HttpClient({ clock }, options);
  const { ask = fetchModels } = options;
  try {
    return await ask({ client, clock }, options);
  } finally {
    client.destroy();
  }
}

/** The header that shows a key; no header without one. */
export function bearer(key: string | null): Record<string, string> {
  return key === null ? {} : { authorization: `Bearer ${key}` };
}

/**
 * Models of a peer's facade that only its own peers have are left out: a request travels one hop.
 *
 * @throws MeshError `upstream_error` when it is no list of models.
 */
export function parseModels(body: string, name: string, path: string = '/v1/models'): readonly CatalogEntry[] {
  let json: unknown;
  try {
    json = JSON.parse(body) as unknown;
  } catch {
    json = null;
  }
  const list = isRecord(json) ? json['data'] : null;
  if (!Array.isArray(list)) throw new MeshError('upstream_error', `${name} gave no list of models at ${path}`);
  const entries = new Map<string, CatalogEntry>();
  for (const item of list.slice(0, MAX_MODELS) as unknown[]) {
    const entry = parseModel(item);
    if (entry !== null) entries.set(entry.id, entry);
  }
  return [...entries.values()];
}

function parseModel(item: unknown): CatalogEntry | null {
  if (!isRecord(item) || typeof item['id'] !== 'string' || !MODEL_ID.test(item['id'])) return null;
  const own = isRecord(item['meshnode']) ? item['meshnode'] : {};
  if (isRecord(item['meshnode']) && item['owned_by'] === 'remote') return null;
  const meta = isRecord(item['meta']) ? item['meta'] : {};
  const quantization = own['quantization'];
  return {
    ...entryOf(item['id']),
    quantization: typeof quantization === 'string' ? quantization.slice(0, 32) : null,
    contextLength: firstCount(own['context_length'], item['max_model_len'], meta['n_ctx'], meta['n_ctx_train']),
    sizeBytes: firstCount(own['size_bytes'], meta['size']),
    state: STATES.find((state) => state === own['state']) ?? 'resident',
  };
}

/** A model of which only the name is known. */
function entryOf(id: string): CatalogEntry {
  const unknown = { digest: null, quantization: null, contextLength: 0, sizeBytes: 0, tokensPerSecond: null };
  return { id, ...unknown, state: 'resident', slots: ASSUMED_SLOTS };
}

/** It answered, only not with a list. */
const hasNoList = ({ code, facts }: MeshError): boolean =>
  facts.httpStatus === 404 || facts.httpStatus === 405 || (code === 'upstream_error' && facts.httpStatus === undefined);

const firstCount = (...values: readonly unknown[]): number =>
  values.find((value): value is number => Number.isSafeInteger(value) && Number(value) > 0) ?? 0;
