/** What a manager's refusal means here: pure, from status and an RFC 7807 body to a `MeshError`. */
import type { IncomingHttpHeaders } from 'node:http';
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import { type ErrorCode, MeshError } from '../../common/errors.ts';
import { parseJson } from '../openai-http/parse-json.ts';
import { parseRetryAfter } from '../openai-http/upstream-errors.ts';

/** A refusal as it came. */
export interface ManagerRefusal {
  /** What errors call the cluster. */
  readonly name: string;
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
  /** Unix milliseconds, for `Retry-After` with a date. */
  readonly nowMs: number;
}

/** What the manager said, the cause of the error that it became. */
export interface ManagerProblem {
  readonly status: number;
  /** The last part of the problem's type, for example `auth-failed`; empty when it gave none. */
  readonly kind: string;
  /** One line, at most 300 characters; may be empty. */
  readonly text: string;
}

const MAX_TEXT = 300;
/** As older managers call it, by a 400. */
const DATE_REFUSED = 'invalid-auth-params';
const DATE_WORDS = /\bdate\b|time sync/i;

/** The error that an answer with a status outside 2xx becomes; its cause is the `ManagerProblem`. */
export function errorOfManager({ name, status, headers, body, nowMs }: ManagerRefusal): MeshError {
  const cause = readProblem(status, body);
  const retryAfterMs = parseRetryAfter(headers['retry-after'], nowMs);
  const wait = retryAfterMs === null ? {} : { retryAfterMs };
  const text = explained(cause);
  const message = `${name} answered ${status}${text === '' ? '' : `: ${text}`}`;
  return new MeshError(codeOf(status), message, { httpStatus: status, ...wait, cause });
}

/** What a manager said; null when the error did not come from one. */
export function problemOf(error: MeshError): ManagerProblem | null {
  const { cause } = error;
  return isRecord(cause) && typeof cause['kind'] === 'string' && typeof cause['status'] === 'number'
    ? { status: cause['status'], kind: cause['kind'], text: String(cause['text'] ?? '') }
    : null;
}

/** Did the manager refuse the signature, the key or the date? Older ones say so by a 400. */
export function isAuthRefusal(error: MeshError): boolean {
  const problem = problemOf(error);
  return problem !== null && (problem.status === 401 || (problem.status === 400 && problem.kind === DATE_REFUSED));
}

/** Did it refuse the date rather than the key? */
export function isDateRefusal(error: MeshError): boolean {
  const problem = problemOf(error);
  return problem !== null && isAuthRefusal(error) && DATE_WORDS.test(`${problem.kind} ${problem.text}`);
}

function codeOf(status: number): ErrorCode {
  if (status === 401) return 'unauthorized';
  if (status === 403) return 'forbidden';
  if (status === 404) return 'not_found';
  if (status === 408) return 'request_timeout';
  if (status === 413) return 'payload_too_large';
  if (status === 429) return 'rate_limited';
  return status >= 400 && status < 500 ? 'invalid_request' : 'upstream_error';
}

function explained({ status, kind, text }: ManagerProblem): string {
  const said = text === '' ? '' : ` (${text})`;
  if (status >= 300 && status < 400) return 'a redirect, which is never followed with a signature';
  if (status === 401) return `${refusedPart(kind, text)}${said}`;
  if (status === 403) return `the access key may not do this: ask its owner for the permission${said}`;
  return text;
}

/** Managers tell an unknown key from a wrong signature in their text only, if at all. */
function refusedPart(kind: string, text: string): string {
  const words = `${kind} ${text}`;
  if (DATE_WORDS.test(words)) return 'it refuses the date of the request';
  if (/(access|api)[- ]?key.{0,20}(not found|unknown|inactive)|(unknown|no such|inactive).{0,8}key/i.test(words)) {
    return 'it does not know the access key, or the key is inactive';
  }
  if (/signature/i.test(words)) return 'the signature does not fit, so the secret key is wrong';
  return 'it takes neither this access key nor its secret';
}

/** HTML says nothing. */
function readProblem(status: number, body: string): ManagerProblem {
  const json = parseJson(body);
  const said = isRecord(json) ? json : {};
  const type = typeof said['type'] === 'string' ? said['type'] : '';
  const words = [said['title'], said['msg'], said['detail']].filter((part) => typeof part === 'string');
  return { status, kind: type.split('/').at(-1) ?? '', text: oneLine([...new Set(words)].join(' ')) };
}

function oneLine(text: string): string {
  const line = text.replace(/[\p{C}\s]+/gu, ' ').trim();
  return line.length > MAX_TEXT ? `${line.slice(0, MAX_TEXT)}…` : line;
}
