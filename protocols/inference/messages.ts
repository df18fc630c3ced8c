/** Frames of the serving side as messages, both ways; CHUNK and OPEN have files of their own. The specification is spec.md. */
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { type ErrorFacts, isErrorCode, MeshError } from '../../node/common/errors.ts';
import { violation } from '../frame-decoder.ts';
import { type Frame, MAX_BODY_PART_BYTES, type OutgoingFrame } from '../framing.ts';
import { type AcceptedEvent, type EndEvent, FINISH_REASONS, type ProgressEvent, type ResultEvent } from './events.ts';

/** The type bytes. The asking side sends 0x01 and 0x02, the serving side the others. */
export const FRAME = {
  open: 0x01,
  body: 0x02,
  progress: 0x11,
  accept: 0x12,
  chunk: 0x13,
  end: 0x14,
  error: 0x15,
  result: 0x16,
} as const;

/** Most answers to one request. */
export const MAX_CHOICES = 2048;
/** Counts and token ids are at most this. */
export const MAX_INT32 = 0x7fff_ffff;
const MAX_MESSAGE_CHARS = 1024;
const MAX_PARAM_CHARS = 256;
const MAX_MS = 1e12;

const Count = Type.Integer({ minimum: 0, maximum: MAX_INT32 });
const Milliseconds = Type.Number({ minimum: 0, maximum: MAX_MS });
const Fingerprint = Type.String({ minLength: 1, maxLength: 128, pattern: '^[A-Za-z0-9]+$' });
/** A digest in lower-case hex. */
export const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$' });

const ProgressHead = Type.Object({
  state: Type.Union([Type.Literal('queued'), Type.Literal('loading'), Type.Literal('running')]),
  fraction: Type.Union([Type.Number({ minimum: 0, maximum: 1 }), Type.Null()]),
});
const AcceptHead = Type.Object({
  node: Fingerprint,
  promptTokens: Count,
  promptDigest: Sha256,
  artifact: Type.Union([Sha256, Type.Null()]),
});
const EndHead = Type.Object({
  finishReasons: Type.Array(Type.Enum([...FINISH_REASONS]), { maxItems: MAX_CHOICES }),
  usage: Type.Object({
    promptTokens: Count,
    completionTokens: Count,
    cachedTokens: Count,
    reasoningTokens: Type.Optional(Count),
  }),
  timings: Type.Object({ promptMs: Milliseconds, predictedMs: Milliseconds }),
});
const ErrorHead = Type.Object({
  code: Type.String({ maxLength: 64 }),
  message: Type.String(),
  facts: Type.Object({
    param: Type.Optional(Type.String({ maxLength: MAX_PARAM_CHARS })),
    retryAfterMs: Type.Optional(Milliseconds),
    httpStatus: Type.Optional(Type.Integer({ minimum: 100, maximum: 599 })),
  }),
});

const checkProgress = Compile(ProgressHead);
const checkAccept = Compile(AcceptHead);
const checkEnd = Compile(EndHead);
const checkError = Compile(ErrorHead);

/** PROGRESS on the wire; `running` (after ACCEPT) only says that the serving side lives, and is no event. */
export interface Progress {
  readonly state: ProgressEvent['state'] | 'running';
  readonly fraction: number | null;
}

export function encodeProgress(progress: Progress): OutgoingFrame {
  return { type: FRAME.progress, head: { state: progress.state, fraction: progress.fraction } };
}

export function encodeAccept(event: AcceptedEvent): OutgoingFrame {
  const { node, promptTokens, promptDigest, artifact } = event;
  return { type: FRAME.accept, head: { node, promptTokens, promptDigest, artifact } };
}

export function encodeEnd(event: EndEvent): OutgoingFrame {
  const { finishReasons, usage, timings } = event;
  return { type: FRAME.end, head: { finishReasons, usage, timings } };
}

/** As many RESULT frames as the bytes need; none for no bytes. */
export function* encodeResult({ body }: ResultEvent): Generator<OutgoingFrame> {
  for (let at = 0; at < body.byteLength; at += MAX_BODY_PART_BYTES) {
    yield { type: FRAME.result, head: {}, body: body.subarray(at, at + MAX_BODY_PART_BYTES) };
  }
}

/** @throws MeshError `protocol_violation`. */
export function decodeResult(frame: Frame): ResultEvent {
  if (frame.body.byteLength === 0) throw violation('a RESULT of nothing');
  return { type: 'result', body: frame.body };
}

/** Any thrown value for the peer: what is not a `MeshError` is not told, for it may hold anything. */
export function encodeError(thrown: unknown): OutgoingFrame {
  const error = thrown instanceof MeshError ? thrown : new MeshError('internal_error', 'the node failed internally');
  return {
    type: FRAME.error,
    head: { code: error.code, message: safeMessage(error.message), facts: safeFacts(error.facts) },
  };
}

/** @throws MeshError `protocol_violation`. */
export function decodeProgress(frame: Frame): Progress {
  return checked(checkProgress, frame.head, 'PROGRESS');
}

/** @throws MeshError `protocol_violation`. */
export function decodeAccept(frame: Frame): AcceptedEvent {
  const { node, promptTokens, promptDigest, artifact } = checked(checkAccept, frame.head, 'ACCEPT');
  return { type: 'accepted', node, promptTokens, promptDigest, artifact };
}

/** @throws MeshError `protocol_violation`. */
export function decodeEnd(frame: Frame): EndEvent {
  const { finishReasons, usage, timings } = checked(checkEnd, frame.head, 'END');
  return {
    type: 'end',
    finishReasons,
    usage: {
      promptTokens: usage.promptTokens,
      completionTokens: usage.completionTokens,
      cachedTokens: usage.cachedTokens,
      ...(usage.reasoningTokens === undefined ? {} : { reasoningTokens: usage.reasoningTokens }),
    },
    timings: { promptMs: timings.promptMs, predictedMs: timings.predictedMs },
  };
}

/** What the peer reports as its failure: to be thrown. @throws MeshError `protocol_violation` for a bad ERROR. */
export function decodeError(frame: Frame): MeshError {
  const { code, message, facts } = checked(checkError, frame.head, 'ERROR');
  return new MeshError(isErrorCode(code) ? code : 'upstream_error', safeMessage(message), safeFacts(facts));
}

/** For a frame whose type is unknown or not due. */
export function unexpected(frame: Frame, due: string): MeshError {
  return violation(`a frame of type 0x${frame.type.toString(16).padStart(2, '0')} where ${due} was due`);
}

function safeMessage(message: string): string {
  return message.slice(0, MAX_MESSAGE_CHARS).replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, ' ');
}

/** The facts that travel, within the bounds that the other side checks. */
function safeFacts({
  param,
  retryAfterMs,
  httpStatus,
}: { [Fact in keyof ErrorFacts]: ErrorFacts[Fact] | undefined }): ErrorFacts {
  return {
    ...(param === undefined ? {} : { param: safeMessage(param).slice(0, MAX_PARAM_CHARS) }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs: Math.min(Math.max(retryAfterMs, 0) || 0, MAX_MS) }),
    ...(httpStatus === undefined || !isHttpStatus(httpStatus) ? {} : { httpStatus }),
  };
}

function isHttpStatus(value: number): boolean {
  return Number.isInteger(value) && value >= 100 && value <= 599;
}

/** A compiled schema. */
interface Checker<T> {
  Check(value: unknown): value is T;
}

/** The head as its schema says. @throws MeshError `protocol_violation` that names the frame. */
export function checked<T>(checker: Checker<T>, head: object, name: string): T {
  if (!checker.Check(head)) throw violation(`a bad ${name} head`);
  return head;
}
