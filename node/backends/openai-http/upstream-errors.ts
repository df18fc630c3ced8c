/** What a server's refusal means here: pure, from status, headers and body to a `MeshError`. */

import type { IncomingHttpHeaders } from 'node:http';
import { isRecord } from '../../../protocols/inference/bodies/body-json.ts';
import { type ErrorCode, MeshError } from '../../common/errors.ts';
import { parseJson } from './parse-json.ts';

/** A refusal as it came. */
export interface Refusal {
  /** What errors call the server. */
  readonly name: string;
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** As far as it was read. */
  readonly body: string;
  /** Unix milliseconds, for `Retry-After` with a date. */
  readonly nowMs: number;
}

const MAX_MESSAGE_LENGTH = 500;
/** Where a message that was too long ends. */
const CUT = '…';
/** So many characters of a secret in a row are no coincidence. */
const SHORTEST_PART = 4;
const MAX_RETRY_AFTER_MS = 3_600_000;

/** Codes that other meshnodes and common servers send, where the status alone says too little. */
const BY_CODE: ReadonlyMap<string, ErrorCode> = new Map<string, ErrorCode>([
  ['context_length_exceeded', 'context_length_exceeded'],
  ['exceed_context_size_error', 'context_length_exceeded'],
  ['model_not_available', 'model_not_loaded'],
  ['model_not_loaded', 'model_not_loaded'],
  ['model_not_found', 'model_not_loaded'],
  ['draining', 'draining'],
  ['overloaded', 'rate_limited'],
  ['rate_limited', 'rate_limited'],
  ['rate_limit_exceeded', 'rate_limited'],
  ['out_of_memory', 'out_of_memory'],
]);
/** Codes that these statuses may be told apart by; other statuses speak for themselves. */
const AMBIGUOUS = new Set([400, 404, 422, 503]);
/** In place of the server's words: those of a 401 often repeat half of the key. */
const TEXTS: ReadonlyMap<number, string> = new Map([[401, 'it wants another API key than this node has for it']]);
const NO_MODEL = /model.{0,300}(does not exist|not found)/is;
const TOO_LONG = /maximum context length|context (size|length|window)|exceeds? the (available )?context/i;

/** The error that an answer with a status outside 2xx becomes. */
export function errorOfRefusal(refusal: Refusal): MeshError {
  const { name, status, headers, nowMs } = refusal;
  const said = readError(refusal.body);
  const code = codeOf(status, said);
  const retryAfterMs = parseRetryAfter(headers['retry-after'], nowMs);
  const text =
    TEXTS.get(status) ?? (status >= 300 && status < 400 ? 'a redirect, which is never followed' : said.message);
  const reason = isReason(said.code) && !text.includes(said.code) ? ` (${said.code})` : '';
  const message = `${name} answered ${status}${text === '' ? '' : `: ${text}`}${reason}`;
  const facts = { httpStatus: status, ...(said.param === null ? {} : { param: said.param }) };
  return new MeshError(code, message, retryAfterMs === null ? facts : { ...facts, retryAfterMs });
}

/** The error that `{"error": …}` within an answer of status 200 becomes. */
export function errorInBand(name: string, error: unknown): MeshError {
  const said = readSaid({ error }, '');
  const status = Number(said.code);
  const isStatus = Number.isInteger(status) && status >= 400 && status <= 599;
  const code = isStatus ? codeOf(status, said) : (BY_CODE.get(said.code) ?? BY_CODE.get(said.type) ?? 'upstream_error');
  const message = `${name} failed while it answered${said.message === '' ? '' : `: ${said.message}`}`;
  return new MeshError(code, message, isStatus ? { httpStatus: status } : {});
}

/** `Retry-After` in milliseconds from now, at most an hour; null when it is absent or makes no sense. */
export function parseRetryAfter(value: string | undefined, nowMs: number): number | null {
  const text = value?.trim() ?? '';
  if (text === '') return null;
  const waitMs = /^\d+(\.\d+)?$/.test(text) ? Number(text) * 1000 : Date.parse(text) - nowMs;
  return Number.isFinite(waitMs) ? Math.min(Math.max(0, Math.round(waitMs)), MAX_RETRY_AFTER_MS) : null;
}

/**
 * The error with `secret` taken out of what it says, as it is, encoded, or cut short: a server may repeat what it was
 * sent, headers too.
 */
export function withoutSecret(error: MeshError, secret: string | null): MeshError {
  if (secret === null || secret === '') return error;
  const forms = formsOf(secret);
  const message = forms.reduce(withoutForm, error.message);
  const { param, ...facts } = error.facts;
  const isParamClean = param === undefined || !forms.some((form) => param.includes(form));
  if (message === error.message && isParamClean) return error;
  return new MeshError(error.code, message, param === undefined || !isParamClean ? facts : { ...facts, param });
}

/** As a program may spill it; in base64 also within a longer text, such as the `id:secret` of a Basic header. */
function formsOf(secret: string): readonly string[] {
  const bytes = Buffer.from(secret);
  const encoded = [0, 1, 2].flatMap((before) => {
    const text = Buffer.concat([Buffer.alloc(before), bytes]).toString('base64url');
    const own = text.slice(before === 0 ? 0 : before + 1, Math.floor(((bytes.length + before) * 8) / 6));
    return [own, own.replaceAll('-', '+').replaceAll('_', '/')];
  });
  const hex = bytes.toString('hex');
  const others = [encodeURIComponent(secret), JSON.stringify(secret).slice(1, -1), hex, hex.toUpperCase(), ...encoded];
  return [...new Set([secret, ...others.filter(({ length }) => length >= SHORTEST_PART)])];
}

function withoutForm(message: string, form: string): string {
  const whole = message.replaceAll(form, '[key]');
  if (!whole.includes(CUT)) return whole;
  for (let length = form.length - 1; length >= SHORTEST_PART; length -= 1) {
    const part = form.slice(0, length) + CUT;
    if (whole.includes(part)) return whole.replaceAll(part, `[key]${CUT}`);
  }
  return whole;
}

/** A word such as `content_policy_violation`: clients look for it, and our codes are fewer. */
const isReason = (code: string): boolean => /^[a-z]+(_[a-z]+)+$/.test(code) && code.length <= 64;

interface SaidError {
  readonly message: string;
  readonly code: string;
  readonly type: string;
  readonly param: string | null;
}

function codeOf(status: number, said: SaidError): ErrorCode {
  const named = BY_CODE.get(said.code) ?? BY_CODE.get(said.type);
  if (AMBIGUOUS.has(status) && named !== undefined) return named;
  if (status === 401) return 'unauthorized';
  if (status === 403) return 'forbidden';
  if (status === 408) return 'request_timeout';
  if (status === 413) return 'payload_too_large';
  if (status === 415) return 'unsupported_media_type';
  if (status === 429) return 'rate_limited';
  if (status === 404 && NO_MODEL.test(said.message)) return 'model_not_loaded';
  if (status === 400 && TOO_LONG.test(said.message)) return 'context_length_exceeded';
  return status >= 400 && status < 500 ? 'invalid_request' : 'upstream_error';
}

/** OpenAI's shape, that of servers which say `{"message"}` or `{"detail"}` only, or text. HTML says nothing. */
function readError(body: string): SaidError {
  const json = parseJson(body);
  return readSaid(json, json === undefined && !body.trimStart().startsWith('<') ? body : '');
}

/** `plain`: what counts as its message where there is none. */
function readSaid(json: unknown, plain: string): SaidError {
  const outer = isRecord(json) ? json : {};
  const inner = isRecord(outer['error']) ? outer['error'] : outer;
  const message = [inner['message'], outer['error'], outer['detail'], outer['message']].find(
    (it) => typeof it === 'string',
  );
  const param = inner['param'];
  return {
    message: oneLine(typeof message === 'string' ? message : plain),
    code: wordOf(inner['code']),
    type: wordOf(inner['type']),
    param: typeof param === 'string' && /^[\w.[\]-]{1,64}$/.test(param) ? param : null,
  };
}

/** Objects are no words, and some cannot even be made into a text. */
const wordOf = (value: unknown): string =>
  typeof value === 'string' || typeof value === 'number' ? String(value) : '';

function oneLine(text: string): string {
  const line = text.replace(/[\p{Cc}\s]+/gu, ' ').trim();
  return line.length > MAX_MESSAGE_LENGTH ? `${line.slice(0, MAX_MESSAGE_LENGTH)}${CUT}` : line;
}
