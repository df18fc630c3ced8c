/** One line of a batch: what is asked, and what is written of it. Pure. */
import { createHash } from 'node:crypto';
import { scanJson } from '../../protocols/inference/bodies/json-scan.ts';
import { ERROR_TABLE, MeshError } from '../common/errors.ts';

/** What may be asked in batches, and as which kind of request. */
export const BATCH_ENDPOINTS = {
  '/v1/chat/completions': 'chat',
  '/v1/completions': 'completion',
  '/v1/embeddings': 'embedding',
} as const;

export type BatchEndpoint = keyof typeof BATCH_ENDPOINTS;

/** A line that is a request. */
export interface BatchRequestLine {
  readonly customId: string;
  readonly model: string;
  readonly body: Readonly<Record<string, unknown>>;
}

/** Why a line is none. The message never holds what stands in the line. */
export interface BatchLineMistake {
  readonly code: string;
  readonly message: string;
  readonly param: string | null;
}

const CUSTOM_ID_CHARS = 512;
const MODEL_CHARS = 256;

export const isMistake = (read: BatchRequestLine | BatchLineMistake): read is BatchLineMistake => 'code' in read;

/** Reads a line of a batch for this endpoint. */
export function readBatchLine(bytes: Uint8Array, endpoint: string): BatchRequestLine | BatchLineMistake {
  const json = parse(bytes);
  if (json instanceof MeshError) return mistake('invalid_json_line', json.message, json.facts.param ?? null);
  if (json === null) return mistake('invalid_json_line', 'This line is not valid JSON in UTF-8.');
  if (!isRecord(json)) return mistake('invalid_json_line', 'This line is not a JSON object.');
  const { custom_id: customId, method, url, body } = json;
  if (typeof customId !== 'string' || customId === '' || customId.length > CUSTOM_ID_CHARS) {
    return mistake(
      'missing_required_parameter',
      `custom_id must be a text of 1 to ${CUSTOM_ID_CHARS} characters.`,
      'custom_id',
    );
  }
  if (method !== 'POST') return mistake('invalid_method', 'method must be "POST".', 'method');
  if (url !== endpoint) return mistake('mismatched_url', `url must be that of the batch, "${endpoint}".`, 'url');
  if (!isRecord(body)) return mistake('missing_required_parameter', 'body must be a JSON object.', 'body');
  const { model, stream } = body;
  if (typeof model !== 'string' || model === '' || model.length > MODEL_CHARS) {
    return mistake('missing_required_parameter', 'body.model must name a model.', 'body.model');
  }
  if (stream === true) return mistake('invalid_request', 'Answers of a batch are not streamed.', 'body.stream');
  return { customId, model, body };
}

/** The same for every try of a line, before a crash and after it, so that it is sampled alike. */
export function lineIdentity(batchId: string, line: number): { readonly requestId: string; readonly seed: number } {
  const digest = createHash('sha256').update(`${batchId}:${line}`).digest();
  return { requestId: digest.toString('hex', 0, 16), seed: digest.readUInt32LE(16) };
}

interface Answered {
  readonly requestId: string;
  readonly customId: string;
}

/** A line of the output file; `body` is JSON. */
export function answeredLine({ requestId, customId }: Answered, body: string): string {
  const response = `{"status_code":200,"request_id":"${requestId}","body":${body}}`;
  return `{"id":"batch_req_${requestId}","custom_id":${JSON.stringify(customId)},"response":${response},"error":null}`;
}

/** A line of the error file: the request was refused, or failed for good. */
export function refusedLine({ requestId, customId }: Answered, error: MeshError): string {
  const { httpStatus, openaiType: type } = ERROR_TABLE[error.code];
  const body = { error: { message: error.message, type, param: error.facts.param ?? null, code: error.code } };
  const response = { status_code: error.facts.httpStatus ?? httpStatus, request_id: requestId, body };
  return JSON.stringify({ id: `batch_req_${requestId}`, custom_id: customId, response, error: null });
}

/** A line of the error file: nothing was asked. `line`: its number in the input. */
export function unaskedLine(
  { requestId, customId }: { readonly requestId: string; readonly customId: string | null },
  { code, message, line }: { readonly code: string; readonly message: string; readonly line: number },
): string {
  return JSON.stringify({
    id: `batch_req_${requestId}`,
    custom_id: customId,
    response: null,
    error: { code, message, line },
  });
}

/** The line's JSON; null for none, an error for what is too deep to be written again. */
function parse(bytes: Uint8Array): unknown {
  try {
    scanJson(bytes);
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) as unknown;
  } catch (error) {
    return error instanceof MeshError ? error : null;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const mistake = (code: string, message: string, param: string | null = null): BatchLineMistake => ({
  code,
  message,
  param,
});
