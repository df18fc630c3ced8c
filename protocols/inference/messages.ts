/** Frames of the inference protocol as messages, both ways. The specification is spec.md. */
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { type ErrorFacts, isErrorCode, MeshError } from '../../node/common/errors.ts';
import { decodeText, violation } from '../frame-decoder.ts';
import { type Frame, frameSizeBytes, MAX_BODY_PART_BYTES, MAX_FRAME_BYTES, type OutgoingFrame } from '../framing.ts';
import type { AcceptedEvent, ChunkEvent, EndEvent, InferenceRequest, ProgressEvent } from './events.ts';

/** The type bytes. The asking side sends 0x01 and 0x02, the serving side the others. */
export const FRAME = {
  open: 0x01,
  body: 0x02,
  progress: 0x11,
  accept: 0x12,
  chunk: 0x13,
  end: 0x14,
  error: 0x15,
} as const;

/** Largest OpenAI body that travels. */
export const MAX_BODY_BYTES = 16 * 1024 * 1024;
/** Most token ids in one CHUNK. */
export const MAX_CHUNK_TOKENS = 4096;
const MAX_MESSAGE_CHARS = 1024;
const MAX_PARAM_CHARS = 256;
const MAX_MS = 1e12;
const MAX_UINT32 = 0xffff_ffff;
const MAX_INT32 = 0x7fff_ffff;

const Count = Type.Integer({ minimum: 0, maximum: MAX_INT32 });
const Milliseconds = Type.Number({ minimum: 0, maximum: MAX_MS });
const Fingerprint = Type.String({ minLength: 1, maxLength: 128, pattern: '^[A-Za-z0-9]+$' });
const Sha256 = Type.String({ pattern: '^[0-9a-f]{64}$' });

const OpenHead = Type.Object({
  requestId: Type.String({ pattern: '^[0-9a-f]{32}$' }),
  kind: Type.Union([Type.Literal('chat'), Type.Literal('completion')]),
  model: Type.String({ minLength: 1, maxLength: 256 }),
  seed: Type.Integer({ minimum: 0, maximum: MAX_UINT32 }),
  bodyBytes: Type.Integer({ minimum: 0, maximum: MAX_UINT32 }),
  hops: Type.Integer({ minimum: 0, maximum: 255 }),
  authorization: Type.Optional(Type.String({ maxLength: 4096 })),
});
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
  finishReasons: Type.Array(Type.Union([Type.Literal('stop'), Type.Literal('length')]), { minItems: 1, maxItems: 128 }),
  usage: Type.Object({ promptTokens: Count, completionTokens: Count, cachedTokens: Count }),
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

const checkOpen = Compile(OpenHead);
const checkProgress = Compile(ProgressHead);
const checkAccept = Compile(AcceptHead);
const checkEnd = Compile(EndHead);
const checkError = Compile(ErrorHead);

/** What OPEN says beside the body itself. */
export type Open = Static<typeof OpenHead>;

/** PROGRESS on the wire; `running` (after ACCEPT) only says that the serving side lives, and is no event. */
export interface Progress {
  readonly state: ProgressEvent['state'] | 'running';
  readonly fraction: number | null;
}

/** OPEN and as many BODY frames as the body needs, made as they are sent. */
export function* encodeRequest(
  request: InferenceRequest,
  options: { hops: number; authorization?: string | undefined },
): Generator<OutgoingFrame> {
  const { requestId, kind, model, seed, body } = request;
  const { hops, authorization } = options;
  const head = { requestId, kind, model, seed, bodyBytes: body.byteLength, hops, authorization };
  const room = Math.max(0, MAX_BODY_PART_BYTES - Buffer.byteLength(JSON.stringify(head)));
  yield { type: FRAME.open, head, body: body.subarray(0, room) };
  for (let at = room; at < body.byteLength; at += MAX_BODY_PART_BYTES) {
    yield { type: FRAME.body, head: {}, body: body.subarray(at, at + MAX_BODY_PART_BYTES) };
  }
}

/** @throws MeshError `protocol_violation`. */
export function decodeOpen(frame: Frame): Open {
  if (frame.type !== FRAME.open) throw unexpected(frame, 'OPEN');
  return checked(checkOpen, frame.head, 'OPEN');
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

/** One CHUNK as a rule; several when tokens or text are more than a frame takes. None for a chunk of nothing. */
export function encodeChunk(event: ChunkEvent): OutgoingFrame[] {
  if (event.tokens.length === 0 && event.text === '') return [];
  const whole = chunkFrame(event.choice, event.index, event.tokens, event.text);
  if (event.tokens.length <= MAX_CHUNK_TOKENS && frameSizeBytes(whole) <= MAX_FRAME_BYTES) return [whole];
  const frames: OutgoingFrame[] = [];
  for (let at = 0; at < event.tokens.length; at += MAX_CHUNK_TOKENS) {
    const tokens = event.tokens.slice(at, at + MAX_CHUNK_TOKENS);
    frames.push(chunkFrame(event.choice, event.index + at, tokens, ''));
  }
  const after = event.index + event.tokens.length;
  for (const text of splitText(event.text)) frames.push(chunkFrame(event.choice, after, [], text));
  return frames;
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

/** By hand: it runs for every token. @throws MeshError `protocol_violation`. */
export function decodeChunk(frame: Frame): ChunkEvent {
  const { c: choice = 0, i: index, t: tokens } = frame.head as { c?: unknown; i?: unknown; t?: unknown };
  if (!isCount(choice) || !isCount(index) || !Array.isArray(tokens)) throw violation('a bad CHUNK head');
  if (tokens.length > MAX_CHUNK_TOKENS) throw violation('a CHUNK of too many tokens');
  if (!tokens.every(isCount)) throw violation('a token id that is none');
  if (tokens.length === 0 && frame.body.byteLength === 0) throw violation('a CHUNK of nothing');
  return { type: 'chunk', choice, index, tokens, text: decodeText(frame.body) };
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

function chunkFrame(choice: number, index: number, tokens: readonly number[], text: string): OutgoingFrame {
  const head = choice === 0 ? { i: index, t: tokens } : { c: choice, i: index, t: tokens };
  return { type: FRAME.chunk, head, body: text };
}

/** Pieces that fit a frame, none ending inside a character. */
function* splitText(text: string): Generator<string> {
  // A UTF-16 unit takes at most three bytes of UTF-8.
  const step = Math.floor(MAX_BODY_PART_BYTES / 3);
  for (let at = 0; at < text.length; ) {
    let end = Math.min(at + step, text.length);
    const last = text.charCodeAt(end - 1);
    if (end < text.length && last >= 0xd800 && last < 0xdc00) end--;
    yield text.slice(at, end);
    at = end;
  }
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= MAX_INT32;
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

interface Checker<T> {
  Check(value: unknown): value is T;
}

function checked<T>(checker: Checker<T>, head: object, name: string): T {
  if (!checker.Check(head)) throw violation(`a bad ${name} head`);
  return head;
}
