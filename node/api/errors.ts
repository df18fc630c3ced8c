/** Errors in OpenAI's dialect. The only place of the facade that turns an error into an HTTP status. */
import type { FastifyReply } from 'fastify';
import { ERROR_TABLE, type ErrorCode, type ErrorFacts, MeshError, toMeshError } from '../common/errors.ts';

/** `{"error":{…}}`, the body of every failed answer and of a stream's error event. */
export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: ErrorCode;
    /** Not OpenAI's: how far the model is that is awaited. */
    readonly progress?: NonNullable<ErrorFacts['progress']>;
  };
}

/** What Fastify and Node name their own refusals, in our codes. */
const FRAMEWORK_CODES: Readonly<Record<string, ErrorCode>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: 'payload_too_large',
  FST_ERR_CTP_INVALID_MEDIA_TYPE: 'unsupported_media_type',
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: 'invalid_request',
  FST_ERR_CTP_EMPTY_JSON_BODY: 'invalid_request',
  FST_ERR_BAD_URL: 'invalid_request',
  FST_ERR_MAX_PARAM_LENGTH: 'invalid_request',
  ERR_HTTP_REQUEST_TIMEOUT: 'request_timeout',
  ECONNRESET: 'client_closed',
};

/** Texts of our own where the framework's do not say what to do. */
const FRAMEWORK_MESSAGES: Partial<Record<ErrorCode, string>> = {
  request_timeout: 'The request did not arrive in time. Send headers and body without pauses.',
  client_closed: 'The connection was closed before the request had arrived.',
};

/** Any thrown value as a `MeshError` whose message may be shown to a client: unknown errors lose theirs. */
export function toApiError(thrown: unknown): MeshError {
  if (thrown instanceof MeshError) return thrown;
  const frameworkCode = (thrown as { code?: unknown } | null)?.code;
  const code = typeof frameworkCode === 'string' ? FRAMEWORK_CODES[frameworkCode] : undefined;
  if (code !== undefined) {
    const message = FRAMEWORK_MESSAGES[code] ?? toMeshError(thrown).message;
    return new MeshError(code, message, { cause: thrown });
  }
  return new MeshError('internal_error', 'The node failed to handle this request; its log says why.', {
    cause: thrown,
  });
}

/** HTTP status of an answer that has not begun. A remote server's own status is passed on. */
export function statusOf(error: MeshError): number {
  const passedOn = error.facts.httpStatus;
  if (error.code === 'upstream_error' && passedOn !== undefined && passedOn >= 400 && passedOn <= 599) return passedOn;
  return ERROR_TABLE[error.code].httpStatus;
}

/** The error as a client reads it. */
export function errorBody(error: MeshError): ErrorBody {
  const { progress } = error.facts;
  return {
    error: {
      message: error.message,
      type: ERROR_TABLE[error.code].openaiType,
      param: error.facts.param ?? null,
      code: error.code,
      ...(progress === undefined ? {} : { progress }),
    },
  };
}

/** Headers that tell a client whether and when to try again. */
function retryHeaders(error: MeshError): Record<string, string> {
  const headers: Record<string, string> = {};
  const { retryAfterMs } = error.facts;
  if (retryAfterMs !== undefined) headers['retry-after'] = String(Math.max(0, Math.ceil(retryAfterMs / 1000)));
  if (error.code === 'model_not_available' || error.facts.retryable === false) headers['x-should-retry'] = 'false';
  if (error.code === 'draining') headers['connection'] = 'close';
  if (error.code === 'unauthorized') headers['www-authenticate'] = 'Bearer';
  return headers;
}

/** Answers with `thrown`, by default in OpenAI's dialect, and returns what it became. */
export function sendError(
  reply: FastifyReply,
  thrown: unknown,
  bodyOf: (error: MeshError) => object = errorBody,
): MeshError {
  const error = toApiError(thrown);
  // The rest of a body that is too large is read and dropped, bounded by the request timeout: a connection closed in
  // the client's face would reset before the client has read the answer.
  if (error.code === 'payload_too_large') reply.removeHeader('connection');
  reply.code(statusOf(error)).headers(retryHeaders(error)).type('application/json; charset=utf-8').send(bodyOf(error));
  return error;
}

/** The whole answer, head included, to bytes that are not HTTP: there is no reply object for those. */
export function rawErrorAnswer(thrown: unknown): string {
  const cause = (thrown as { code?: unknown } | null)?.code;
  const known = toApiError(thrown);
  const error =
    known.code === 'internal_error'
      ? new MeshError(
          'invalid_request',
          cause === 'HPE_HEADER_OVERFLOW' ? 'The request headers are too large.' : 'The request is not valid HTTP/1.1.',
        )
      : known;
  const body = JSON.stringify(errorBody(error));
  const status = statusOf(error);
  return [
    `HTTP/1.1 ${status} ${status === 408 ? 'Request Timeout' : 'Bad Request'}`,
    'Content-Type: application/json; charset=utf-8',
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
    '',
    body,
  ].join('\r\n');
}
