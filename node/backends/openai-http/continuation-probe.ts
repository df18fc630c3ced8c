/** Finds out by two or three small questions whether a server can go on with a chat answer that another began. */
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import { MeshError } from '../../common/errors.ts';
import type { PrefillDialect } from './continuation-body.ts';
import type { HttpClient, HttpLimits } from './http-client.ts';
import { bearer } from './model-list.ts';
import { readStart } from './read-text.ts';

export interface ContinuationProbeOptions {
  /** Shown as bearer; null = none. */
  readonly key: string | null;
  readonly signal: AbortSignal;
}

const LIMITS: HttpLimits = { connectMs: 3000, headersMs: 5000, silenceMs: 5000 };
const MAX_BODY_BYTES = 1024 * 1024;

/**
 * `llama-server` tells its settings at `/props`; vLLM its version at `/version`, and that it is the owner of its models.
 * A server that is neither may ignore what it does not know and begin a new answer, so that it counts as unable.
 *
 * @throws MeshError when it cannot be reached.
 */
export async function probeContinuation(
  client: Pick<HttpClient, 'call'>,
  options: ContinuationProbeOptions,
): Promise<PrefillDialect> {
  const props = await ask(client, '/props', options);
  if (props !== null && 'default_generation_settings' in props) return 'llama-server';
  const version = await ask(client, '/version', options);
  if (typeof version?.['version'] !== 'string') return null;
  const models = (await ask(client, '/v1/models', options))?.['data'];
  const isVllm = (model: unknown): boolean => isRecord(model) && model['owned_by'] === 'vllm';
  return Array.isArray(models) && models.some(isVllm) ? 'vllm' : null;
}

/** The JSON object there; null when there is none. */
async function ask(
  client: Pick<HttpClient, 'call'>,
  path: string,
  { key, signal }: ContinuationProbeOptions,
): Promise<Record<string, unknown> | null> {
  const headers = { accept: 'application/json', ...bearer(key) };
  const answer = await client.call({ method: 'GET', path, headers }, LIMITS, signal);
  try {
    if (answer.status !== 200) return null;
    const json: unknown = JSON.parse(await readStart(answer.body, MAX_BODY_BYTES));
    return isRecord(json) ? json : null;
  } catch (error) {
    if (error instanceof MeshError) throw error;
    return null;
  } finally {
    answer.close();
  }
}
