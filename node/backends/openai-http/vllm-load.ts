/** How many requests wait at a vLLM server: one figure of its Prometheus metrics. */
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import type { HttpClient, HttpLimits } from './http-client.ts';
import { parseJson } from './parse-json.ts';
import { readStart } from './read-text.ts';

const LIMITS: HttpLimits = { connectMs: 3000, headersMs: 3000, silenceMs: 2000 };
const MAX_BYTES = 2 * 1024 * 1024;
/** One line a model and engine, for example `vllm:num_requests_waiting{model_name="m"} 3.0`. */
const WAITING = /^vllm:num_requests_waiting(?:\{[^\n]*\})?[ \t]+([0-9.e+]+)/gm;

/** Is this the model list of a vLLM server? */
export function isVllm(modelList: string): boolean {
  const json = parseJson(modelList);
  const models = isRecord(json) ? json['data'] : null;
  return Array.isArray(models) && models.some((model) => isRecord(model) && model['owned_by'] === 'vllm');
}

/** Of all models of the server; 0 where it does not tell. Throws nothing but the signal's reason. */
export async function fetchWaiting(
  client: Pick<HttpClient, 'call'>,
  { headers, signal }: { readonly headers: Readonly<Record<string, string>>; readonly signal: AbortSignal },
): Promise<number> {
  const ask = { method: 'GET', path: '/metrics', headers: { accept: 'text/plain', ...headers } } as const;
  try {
    const answer = await client.call(ask, LIMITS, signal);
    try {
      return answer.status === 200 ? parseWaiting(await readStart(answer.body, MAX_BYTES)) : 0;
    } finally {
      answer.close();
    }
  } catch {
    signal.throwIfAborted();
    return 0;
  }
}

/** The sum over all models and engines. */
export function parseWaiting(metrics: string): number {
  let waiting = 0;
  for (const [, value] of metrics.matchAll(WAITING)) waiting += Number(value) || 0;
  return waiting;
}
