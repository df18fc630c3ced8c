/** A request as the arguments of FIRST's function, and what the function returned as an answer of OpenAI's: pure. */
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import type { InferenceKind, InferenceRequest } from '../../../protocols/inference/events.ts';
import { MeshError } from '../../common/errors.ts';
import { parseJson } from '../openai-http/parse-json.ts';
import { packArguments } from './packing.ts';

/** Where the function is to push a streamed answer. */
export interface PushTarget {
  /** Base URL that the function reaches. */
  readonly url: string;
  readonly taskId: string;
  readonly token: string;
}

/** Of the model server, seen from the function. */
export interface CalledModel {
  readonly model: string;
  readonly apiPort: number;
}

const CALLS: Partial<Record<InferenceKind, string>> = {
  chat: 'chat/completions',
  completion: 'completions',
  embedding: 'embeddings',
};
/** What the function reads beside the model server's own parameters: never the client's to say. */
const RESERVED = [
  'openai_endpoint',
  'api_port',
  'streaming_server_host',
  'streaming_server_port',
  'streaming_server_protocol',
  'stream_task_id',
  'stream_task_token',
] as const;
/** What the function adds to the answer. */
const MEASURED = ['response_time', 'throughput_tokens_per_second'] as const;

/** The path below `/v1/` that answers this kind of request; null when FIRST's function cannot. */
export function callOf(kind: InferenceKind): string | null {
  return CALLS[kind] ?? null;
}

/** Does the client want the answer piece by piece? */
export function wantsStream(request: InferenceRequest): boolean {
  return bodyOf(request)['stream'] === true;
}

/**
 * The packed arguments. Without `push` the answer comes whole, whatever the body says.
 *
 * @throws MeshError `invalid_request` for a body that is no JSON object, or a kind that the function does not know.
 */
export function packCall(request: InferenceRequest, { model, apiPort }: CalledModel, push: PushTarget | null): string {
  const call = callOf(request.kind);
  if (call === null) {
    throw new MeshError('invalid_request', `Models behind Globus Compute answer no ${request.kind} requests`);
  }
  const params: Record<string, unknown> = { ...bodyOf(request) };
  for (const name of RESERVED) delete params[name];
  if (push === null) {
    delete params['stream'];
    delete params['stream_options'];
  }
  return packArguments([
    { model_params: { ...params, openai_endpoint: call, api_port: apiPort, model, ...(push && pushed(push)) } },
  ]);
}

/** The answer without what the function added to it; whatever is no object stays as it is. */
export function answerOf(text: string): string {
  const json = parseJson(text);
  if (!isRecord(json)) return text;
  const answer: Record<string, unknown> = { ...json };
  for (const name of MEASURED) delete answer[name];
  return JSON.stringify(answer);
}

/** How many pieces a function that pushed its answer read from the model server; null for a whole answer. */
export function pushedPieces(text: string): number | null {
  const json = parseJson(text);
  if (!isRecord(json) || json['streaming'] !== true) return null;
  const count = json['total_chunks'];
  return typeof count === 'number' && Number.isSafeInteger(count) ? count : 0;
}

function pushed({ url, taskId, token }: PushTarget): Record<string, unknown> {
  const { hostname, port, protocol } = new URL(url);
  const isSecure = protocol === 'https:';
  return {
    stream: true,
    streaming_server_host: hostname,
    streaming_server_port: port === '' ? (isSecure ? 443 : 80) : Number(port),
    streaming_server_protocol: isSecure ? 'https' : 'http',
    stream_task_id: taskId,
    stream_task_token: token,
  };
}

function bodyOf({ body }: InferenceRequest): Readonly<Record<string, unknown>> {
  const json = parseJson(Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString('utf8'));
  if (isRecord(json)) return json;
  throw new MeshError('invalid_request', 'The request body is no JSON object');
}
