/**
 * The closed list of error codes and the one table of what each means. The facade (HTTP status), the dispatcher
 * (try elsewhere?), the breaker (count it?) and the wire read this table; nobody decides on messages or subclasses.
 */

/** How an outcome counts for the breaker of the backend that caused it. */
export type BreakerEffect = 'neutral' | 'failure';

interface ErrorPolicy {
  /** Status of an HTTP answer that has not begun. 499 is for the log only: nobody is there to read it. */
  readonly httpStatus: number;
  /** `error.type` in OpenAI's dialect. */
  readonly openaiType: string;
  /** May another candidate be tried before commit? */
  readonly elsewhere: boolean;
  readonly breaker: BreakerEffect;
}

const policy = (
  httpStatus: number,
  openaiType: string,
  elsewhere: boolean,
  breaker: BreakerEffect = 'neutral',
): ErrorPolicy => ({ httpStatus, openaiType, elsewhere, breaker });

export const ERROR_TABLE = {
  invalid_request: policy(400, 'invalid_request_error', false),
  context_length_exceeded: policy(400, 'invalid_request_error', false),
  unauthorized: policy(401, 'authentication_error', false),
  forbidden: policy(403, 'permission_error', false),
  not_found: policy(404, 'invalid_request_error', false),
  method_not_allowed: policy(405, 'invalid_request_error', false),
  request_timeout: policy(408, 'invalid_request_error', false),
  payload_too_large: policy(413, 'invalid_request_error', false),
  unsupported_media_type: policy(415, 'invalid_request_error', false),
  rate_limited: policy(429, 'rate_limit_error', true),
  overloaded: policy(429, 'rate_limit_error', true),
  model_not_available: policy(503, 'service_unavailable', false),
  model_not_loaded: policy(503, 'service_unavailable', true),
  /** A cluster starts it, or could not: minutes, not seconds. */
  model_starting: policy(503, 'service_unavailable', true),
  all_circuits_open: policy(503, 'service_unavailable', false),
  /** Asked to go on with an answer that it would not go on with exactly: another model file, another prompt. */
  cannot_resume: policy(503, 'service_unavailable', true),
  draining: policy(503, 'service_unavailable', true),
  peer_unreachable: policy(502, 'server_error', true, 'failure'),
  wedged: policy(504, 'server_error', true, 'failure'),
  first_token_timeout: policy(504, 'server_error', true, 'failure'),
  upstream_error: policy(502, 'server_error', true, 'failure'),
  protocol_violation: policy(502, 'server_error', true, 'failure'),
  engine_failed: policy(500, 'server_error', true, 'failure'),
  out_of_memory: policy(503, 'server_error', true, 'failure'),
  peer_lost: policy(502, 'server_error', false, 'failure'),
  internal_error: policy(500, 'server_error', false),
  client_closed: policy(499, 'client_closed', false),
} as const satisfies Record<string, ErrorPolicy>;

export type ErrorCode = keyof typeof ERROR_TABLE;

/** Machine-readable facts that travel with an error; all optional, all safe to show. */
export interface ErrorFacts {
  /** Name of the offending field or flag, `error.param` in OpenAI's dialect. */
  readonly param?: string;
  /** When trying again makes sense, milliseconds from now; becomes `Retry-After`. */
  readonly retryAfterMs?: number;
  /** Status that a remote HTTP server answered with, passed on as it came. */
  readonly httpStatus?: number;
  /** Trying again, here or by the client, would only add load; becomes `x-should-retry: false`. */
  readonly retryable?: false;
  /** Of the model that is awaited; `fraction`: 0 to 1, null where unknown. Not told to peers. */
  readonly progress?: { readonly state: 'queued' | 'loading'; readonly fraction: number | null };
}

/** The only error that crosses a floor on purpose. Matched by `code`, never by class or message. */
export class MeshError extends Error {
  override readonly name = 'MeshError';
  readonly code: ErrorCode;
  readonly facts: ErrorFacts;

  constructor(code: ErrorCode, message: string, options: ErrorFacts & { cause?: unknown } = {}) {
    const { cause, ...facts } = options;
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.facts = facts;
  }
}

/** Is this string one of our codes? For values that arrive from a peer. */
export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && Object.hasOwn(ERROR_TABLE, value);
}

/** Any thrown value as a `MeshError`; unknown ones become `fallback` with the original as cause. */
export function toMeshError(thrown: unknown, fallback: ErrorCode = 'internal_error'): MeshError {
  if (thrown instanceof MeshError) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new MeshError(fallback, message, { cause: thrown });
}
