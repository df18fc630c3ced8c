/** OPEN and BODY: a request, and the tokens of the answer that it goes on with. The specification is spec.md. */
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { MeshError } from '../../node/common/errors.ts';
import { violation } from '../frame-decoder.ts';
import { type Frame, MAX_BODY_PART_BYTES, type OutgoingFrame } from '../framing.ts';
import { BOUNDARIES, FINISH_REASONS, INFERENCE_KINDS, type InferenceRequest, type Resume } from './events.ts';
import { checked, FRAME, MAX_CHOICES, MAX_INT32, Sha256, unexpected } from './messages.ts';

/** Largest OpenAI body that travels. */
export const MAX_BODY_BYTES = 16 * 1024 * 1024;
/** Most tokens, of all choices together, that an answer to be continued may have. */
export const MAX_RESUMED_TOKENS = 1_048_576;

const TOKEN_BYTES = 4;
const MAX_UINT32 = 0xffff_ffff;

const ResumeHead = Type.Object({
  promptDigest: Sha256,
  artifact: Sha256,
  /** Tokens and finish reason of each; short, since 2,048 of them must fit a frame. */
  choices: Type.Array(
    Type.Tuple([
      Type.Integer({ minimum: 0, maximum: MAX_RESUMED_TOKENS }),
      Type.Union([Type.Enum([...FINISH_REASONS]), Type.Null()]),
    ]),
    { minItems: 1, maxItems: MAX_CHOICES },
  ),
});
const OpenHead = Type.Object({
  requestId: Type.String({ pattern: '^[0-9a-f]{32}$' }),
  kind: Type.Enum([...INFERENCE_KINDS]),
  model: Type.String({ minLength: 1, maxLength: 256 }),
  seed: Type.Integer({ minimum: 0, maximum: MAX_UINT32 }),
  bodyBytes: Type.Integer({ minimum: 0, maximum: MAX_UINT32 }),
  hops: Type.Integer({ minimum: 0, maximum: 255 }),
  authorization: Type.Optional(Type.String({ maxLength: 4096 })),
  priority: Type.Optional(Type.String({ maxLength: 32 })),
  boundary: Type.Optional(Type.String({ maxLength: 32 })),
  resume: Type.Optional(ResumeHead),
});
const checkOpen = Compile(OpenHead);

/** What OPEN says beside the body itself. */
export type Open = Static<typeof OpenHead>;

/**
 * OPEN and as many BODY frames as body and tokens need, made as they are sent.
 *
 * @throws MeshError `cannot_resume` for more tokens than may travel.
 */
export function* encodeRequest(
  request: InferenceRequest,
  options: { hops: number; authorization?: string | undefined },
): Generator<OutgoingFrame> {
  const { requestId, kind, model, seed, body, resume, priority, boundary = 'public' } = request;
  const { hops, authorization } = options;
  const head = { requestId, kind, model, seed, bodyBytes: body.byteLength, hops, authorization, priority, boundary };
  if (resume === undefined) yield* encodeOpen(head, body);
  else yield* encodeOpen({ ...head, resume: resumeHead(resume) }, Buffer.concat([body, tokenBytes(resume)]));
}

/** @throws MeshError `protocol_violation`. */
export function decodeOpen(frame: Frame): Open {
  if (frame.type !== FRAME.open) throw unexpected(frame, 'OPEN');
  const open = checked(checkOpen, frame.head, 'OPEN');
  if (open.resume !== undefined && open.kind !== 'chat' && open.kind !== 'completion') {
    throw violation('an answer to go on with that has no tokens');
  }
  return open;
}

/** Tokens of all choices of the answer to go on with. */
export function resumedTokens(open: Open): number {
  return (open.resume?.choices ?? []).reduce((sum, [count]) => sum + count, 0);
}

/** Bytes that OPEN and its BODY frames carry: the request body, then the tokens. */
export function payloadBytes(open: Open): number {
  return open.bodyBytes + resumedTokens(open) * TOKEN_BYTES;
}

/** The request of an OPEN and its whole payload. @throws MeshError `protocol_violation` for a token without bound. */
export function requestOf(open: Open, payload: Uint8Array): InferenceRequest {
  const { requestId, kind, model, seed, bodyBytes, resume } = open;
  const rank = open.priority === 'batch' ? { priority: 'batch' as const } : {};
  const request = { requestId, kind, model, seed, body: payload.subarray(0, bodyBytes), ...rank, ...limitOf(open) };
  if (resume === undefined) return request;
  const bytes = Buffer.from(payload.buffer, payload.byteOffset + bodyBytes, payload.byteLength - bodyBytes);
  let at = 0;
  const choices = resume.choices.map(([count, finish]) => {
    const tokens = Array.from({ length: count }, (_, index) => readToken(bytes, at + index * TOKEN_BYTES));
    at += count * TOKEN_BYTES;
    return { tokens, finish, text: '' };
  });
  return { ...request, resume: { promptDigest: resume.promptDigest, artifact: resume.artifact, choices } };
}

/** What does not say how far it may go stays in the mesh: it may come from a node that has not asked itself. */
function limitOf({ boundary }: Open): Pick<InferenceRequest, 'boundary'> {
  if (boundary === 'public') return {};
  return { boundary: BOUNDARIES.find((known) => known === boundary) ?? 'mesh' };
}

function* encodeOpen(head: object, payload: Uint8Array): Generator<OutgoingFrame> {
  const room = Math.max(0, MAX_BODY_PART_BYTES - Buffer.byteLength(JSON.stringify(head)));
  yield { type: FRAME.open, head, body: payload.subarray(0, room) };
  for (let at = room; at < payload.byteLength; at += MAX_BODY_PART_BYTES) {
    yield { type: FRAME.body, head: {}, body: payload.subarray(at, at + MAX_BODY_PART_BYTES) };
  }
}

function resumeHead({ promptDigest, artifact, choices }: Resume): Open['resume'] {
  const total = choices.reduce((sum, { tokens }) => sum + tokens.length, 0);
  if (total > MAX_RESUMED_TOKENS)
    throw new MeshError('cannot_resume', `an answer of ${total} tokens is too long to go on`);
  return { promptDigest, artifact, choices: choices.map(({ tokens, finish }) => [tokens.length, finish]) };
}

function tokenBytes({ choices }: Resume): Uint8Array {
  const tokens = choices.flatMap((choice) => choice.tokens);
  const bytes = Buffer.alloc(tokens.length * TOKEN_BYTES);
  tokens.forEach((token, index) => {
    bytes.writeUInt32LE(token, index * TOKEN_BYTES);
  });
  return bytes;
}

function readToken(bytes: Buffer, at: number): number {
  const token = bytes.readUInt32LE(at);
  if (token > MAX_INT32) throw violation('a token without bound');
  return token;
}
