/** Errors in the dialect of FIRST's clients: `{"error":{"code","message","info"}}`. Source: FIRST's error codes. */
import type { FastifyReply } from 'fastify';
import { type ErrorCode, MeshError } from '../../common/errors.ts';
import { sendError, statusOf } from '../errors.ts';

/** What FIRST refuses before it asks anybody, with its status. */
const REFUSALS = {
  cluster_not_found: 404,
  endpoint_not_found: 404,
  batch_not_found: 404,
  unauthorized: 401,
  access_denied: 403,
  cluster_under_maintenance: 503,
  unsupported_framework: 400,
  unsupported_endpoint: 400,
  batch_unavailable: 400,
  internal_endpoint_error: 500,
  too_many_requests: 429,
} as const;

type RefusalCode = keyof typeof REFUSALS;

/** FIRST's names of our codes; a fault of the caller that has no name there keeps ours. */
const FIRST_CODES: Partial<Record<ErrorCode, string>> = {
  unauthorized: 'unauthorized',
  forbidden: 'access_denied',
  not_found: 'endpoint_not_found',
  rate_limited: 'too_many_requests',
  overloaded: 'too_many_requests',
  request_timeout: 'request_timeout',
  internal_error: 'internal_error',
};

interface FirstErrorBody {
  readonly error: { readonly code: string; readonly message: string; readonly info: Readonly<Record<string, unknown>> };
}

/** A refusal by one of FIRST's own codes. Only for what is thrown before an answer begins. */
export class FirstRefusal extends Error {
  override readonly name = 'FirstRefusal';
  readonly code: RefusalCode;
  /** Figures beside the message; safe to show. */
  readonly info: Readonly<Record<string, unknown>>;
  readonly retryAfterMs: number | null;

  constructor(
    code: RefusalCode,
    message: string,
    { info = {}, retryAfterMs = null }: { info?: Readonly<Record<string, unknown>>; retryAfterMs?: number | null } = {},
  ) {
    super(message);
    this.code = code;
    this.info = info;
    this.retryAfterMs = retryAfterMs;
  }
}

/** Answers with `thrown`, and returns it as an error of ours, for the log. */
export function sendFirstError(reply: FastifyReply, thrown: unknown, requestId: string): MeshError {
  if (thrown instanceof FirstRefusal) {
    const { code, message, info, retryAfterMs } = thrown;
    if (retryAfterMs !== null) reply.header('retry-after', String(Math.ceil(retryAfterMs / 1000)));
    const body: FirstErrorBody = { error: { code, message, info } };
    reply.code(REFUSALS[code]).type('application/json; charset=utf-8').send(body);
    return new MeshError('invalid_request', message);
  }
  return sendError(reply, thrown, (error) => firstErrorBody(error, requestId));
}

function firstErrorBody(error: MeshError, requestId: string): FirstErrorBody {
  const { param } = error.facts;
  const code = FIRST_CODES[error.code] ?? (statusOf(error) >= 500 ? 'internal_endpoint_error' : error.code);
  const info = {
    ...(param === undefined ? {} : { param }),
    ...(error.code === 'internal_error' ? { error_id: requestId } : {}),
  };
  return { error: { code, message: error.message, info } };
}
