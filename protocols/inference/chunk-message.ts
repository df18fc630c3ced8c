/** CHUNK: tokens of an answer and what they released. The specification is spec.md. */
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { decodeText, violation } from '../frame-decoder.ts';
import { type Frame, frameSizeBytes, MAX_BODY_PART_BYTES, MAX_FRAME_BYTES, type OutgoingFrame } from '../framing.ts';
import { isPlain } from './chunk-join.ts';
import { type ChunkEvent, FINISH_REASONS, type Logprob, type TokenLogprob, type ToolCallDelta } from './events.ts';
import { checked, FRAME, MAX_INT32 } from './messages.ts';

/** Most token ids in one CHUNK. */
export const MAX_CHUNK_TOKENS = 4096;
/** Stands for minus infinity, which JSON has not; OpenAI's API says the same for "next to impossible". */
export const LEAST_LOGPROB = -9999;

const MAX_ALTERNATIVES = 128;
const MAX_TOKEN_CHARS = 4096;

const Short = Type.String({ minLength: 1, maxLength: 256 });
const LogprobHead = Type.Tuple([
  Type.String({ maxLength: MAX_TOKEN_CHARS }),
  Type.Number({ minimum: -1e6, maximum: 1 }),
  Type.Array(Type.Integer({ minimum: 0, maximum: 255 }), { maxItems: MAX_TOKEN_CHARS }),
]);
const TokenLogprobHead = Type.Tuple([LogprobHead, Type.Array(LogprobHead, { maxItems: MAX_ALTERNATIVES })]);
/** What few chunks have. */
const ExtrasHead = Type.Object({
  r: Type.Optional(Type.String()),
  x: Type.Optional(
    Type.Array(
      Type.Object({
        i: Type.Integer({ minimum: 0, maximum: 1023 }),
        d: Type.Optional(Short),
        n: Type.Optional(Short),
        a: Type.String(),
      }),
    ),
  ),
  l: Type.Optional(Type.Array(TokenLogprobHead, { maxItems: MAX_CHUNK_TOKENS })),
  p: Type.Optional(Type.Array(Type.Union([TokenLogprobHead, Type.Null()]))),
  f: Type.Optional(Type.Enum([...FINISH_REASONS])),
  m: Type.Optional(Type.Literal(1)),
});
type Extras = Static<typeof ExtrasHead>;
const checkExtras = Compile(ExtrasHead);

/** A CHUNK as it came: a whole chunk, or a part of one that the next CHUNK of the answer goes on with. */
export interface ChunkPart {
  readonly chunk: ChunkEvent;
  readonly goesOn: boolean;
}

/** One CHUNK as a rule; several parts when there is more than a frame takes. None for a chunk of nothing. */
export function encodeChunk(event: ChunkEvent): OutgoingFrame[] {
  if (isEmpty(event)) return [];
  const whole = chunkFrame(event);
  if (event.tokens.length <= MAX_CHUNK_TOKENS && frameSizeBytes(whole) <= MAX_FRAME_BYTES) return [whole];
  const parts = [...splitChunk(event)];
  return parts.map((part, at) => {
    if (at < parts.length - 1) return chunkFrame(part, { m: 1 });
    return chunkFrame(event.finish === undefined ? part : { ...part, finish: event.finish });
  });
}

/** By hand as far as every token needs it. @throws MeshError `protocol_violation`. */
export function decodeChunk(frame: Frame): ChunkPart {
  const head = frame.head as Extras & { c?: unknown; i?: unknown; t?: unknown };
  const { c: choice = 0, i: index, t: tokens } = head;
  const ok = isCount(choice) && isCount(index) && Array.isArray(tokens) && tokens.length <= MAX_CHUNK_TOKENS;
  if (!ok || !tokens.every(isCount)) throw violation('a bad CHUNK head');
  const plain: ChunkEvent = { type: 'chunk', choice, index, tokens, text: decodeText(frame.body) };
  if (hasNoExtras(head)) {
    if (tokens.length === 0 && plain.text === '') throw violation('a CHUNK of nothing');
    return { chunk: plain, goesOn: false };
  }
  const extras = checked(checkExtras, head, 'CHUNK');
  const chunk = { ...plain, ...extrasOf(extras) };
  if (isEmpty(chunk)) throw violation('a CHUNK of nothing');
  if (chunk.logprobs !== undefined && chunk.logprobs.length !== tokens.length) {
    throw violation('a CHUNK with log probabilities of other tokens');
  }
  return { chunk, goesOn: extras.m === 1 };
}

function chunkFrame(chunk: ChunkEvent, more: { readonly m?: 1 } = {}): OutgoingFrame {
  const { choice, index, tokens, text, reasoning, toolCalls, logprobs, promptLogprobs, finish } = chunk;
  const plain = choice === 0 ? { i: index, t: tokens } : { c: choice, i: index, t: tokens };
  if (isPlain(chunk) && more.m === undefined) {
    return { type: FRAME.chunk, head: plain, body: text };
  }
  const head = {
    ...plain,
    ...(reasoning === undefined || reasoning === '' ? {} : { r: reasoning }),
    ...(toolCalls === undefined || toolCalls.length === 0 ? {} : { x: toolCalls.map(callHead) }),
    ...(logprobs === undefined ? {} : { l: logprobs.map(tokenLogprobHead) }),
    ...(promptLogprobs === undefined
      ? {}
      : { p: promptLogprobs.map((entry) => (entry === null ? null : tokenLogprobHead(entry))) }),
    ...(finish === undefined ? {} : { f: finish }),
    ...more,
  };
  return { type: FRAME.chunk, head, body: text };
}

const hasNoExtras = ({ r, x, l, p, f, m }: Extras): boolean =>
  r === undefined && x === undefined && l === undefined && p === undefined && f === undefined && m === undefined;

function extrasOf({ r, x, l, p, f }: Extras): Partial<ChunkEvent> {
  return {
    ...(r === undefined ? {} : { reasoning: r }),
    ...(x === undefined ? {} : { toolCalls: x.map(callOf) }),
    ...(l === undefined ? {} : { logprobs: l.map(tokenLogprobOf) }),
    ...(p === undefined ? {} : { promptLogprobs: p.map((entry) => (entry === null ? null : tokenLogprobOf(entry))) }),
    ...(f === undefined ? {} : { finish: f }),
  };
}

/** What is said first has no index of its own; tokens and their log probabilities come last. */
function* splitChunk({ choice, index, ...chunk }: ChunkEvent): Generator<ChunkEvent> {
  const none: ChunkEvent = { type: 'chunk', choice, index, tokens: [], text: '' };
  for (const promptLogprobs of portions(chunk.promptLogprobs ?? [])) yield { ...none, promptLogprobs };
  for (const reasoning of splitText(chunk.reasoning ?? '')) yield { ...none, reasoning };
  for (const text of splitText(chunk.text)) yield { ...none, text };
  for (const { arguments: all, ...call } of chunk.toolCalls ?? []) {
    const [first = '', ...rest] = splitText(all);
    yield { ...none, toolCalls: [{ ...call, arguments: first }] };
    for (const part of rest) yield { ...none, toolCalls: [{ index: call.index, arguments: part }] };
  }
  if (chunk.logprobs === undefined) {
    for (let at = 0; at < chunk.tokens.length; at += MAX_CHUNK_TOKENS) {
      yield { ...none, index: index + at, tokens: chunk.tokens.slice(at, at + MAX_CHUNK_TOKENS) };
    }
    return;
  }
  let at = 0;
  for (const logprobs of portions(chunk.logprobs)) {
    yield { ...none, index: index + at, tokens: chunk.tokens.slice(at, at + logprobs.length), logprobs };
    at += logprobs.length;
  }
}

/** In runs that fit a frame. */
function* portions<T extends TokenLogprob | null>(entries: readonly T[]): Generator<T[]> {
  let portion: T[] = [];
  let sizeBytes = 0;
  for (const entry of entries) {
    // The token itself stands beside its log probability: ten digits and a comma at most.
    const entryBytes = Buffer.byteLength(JSON.stringify(entry === null ? null : tokenLogprobHead(entry))) + 12;
    if (portion.length > 0 && (sizeBytes + entryBytes > MAX_BODY_PART_BYTES || portion.length === MAX_CHUNK_TOKENS)) {
      yield portion;
      portion = [];
      sizeBytes = 0;
    }
    portion.push(entry);
    sizeBytes += entryBytes;
  }
  if (portion.length > 0) yield portion;
}

/** Pieces that fit a frame, as a body or within a head, none ending inside a character. */
function* splitText(text: string): Generator<string> {
  // JSON may take six bytes for a UTF-16 unit.
  const step = Math.floor(MAX_BODY_PART_BYTES / 6) - 100;
  for (let at = 0; at < text.length; ) {
    let end = Math.min(at + step, text.length);
    const last = text.charCodeAt(end - 1);
    if (end < text.length && last >= 0xd800 && last < 0xdc00) end--;
    yield text.slice(at, end);
    at = end;
  }
}

function isEmpty({ tokens, text, reasoning = '', toolCalls = [], promptLogprobs = [], finish }: ChunkEvent): boolean {
  if (tokens.length > 0 || text !== '') return false;
  return reasoning === '' && toolCalls.length === 0 && promptLogprobs.length === 0 && finish === undefined;
}

const callHead = ({ index, id, name, arguments: text }: ToolCallDelta): object => ({
  i: index,
  d: id,
  n: name,
  a: text,
});

function callOf({ i, d, n, a }: NonNullable<Extras['x']>[number]): ToolCallDelta {
  return { index: i, ...(d === undefined ? {} : { id: d }), ...(n === undefined ? {} : { name: n }), arguments: a };
}

const logprobHead = ({ token, logprob, bytes }: Logprob): Static<typeof LogprobHead> => [
  token,
  Number.isFinite(logprob) ? Math.min(logprob, 0) : LEAST_LOGPROB,
  [...bytes],
];
const tokenLogprobHead = (entry: TokenLogprob): Static<typeof TokenLogprobHead> => [
  logprobHead(entry),
  entry.top.map(logprobHead),
];
const logprobOf = ([token, logprob, bytes]: Static<typeof LogprobHead>): Logprob => ({ token, bytes, logprob });
const tokenLogprobOf = ([own, top]: Static<typeof TokenLogprobHead>): TokenLogprob => ({
  ...logprobOf(own),
  top: top.map(logprobOf),
});

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= MAX_INT32;
}
