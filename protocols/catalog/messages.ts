/** Frames of the catalog protocol as messages, both ways. The specification is spec.md. */
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { violation } from '../frame-decoder.ts';
import { type Frame, MAX_BODY_PART_BYTES, type OutgoingFrame } from '../framing.ts';
import { BOUNDARIES } from '../inference/events.ts';
import type { CatalogEntry, NodeHello, NodeLoad } from './catalog.ts';

/** The type bytes. The publisher sends all but ECHO. */
export const FRAME = {
  hello: 0x21,
  snapshot: 0x22,
  delta: 0x23,
  heartbeat: 0x24,
  goodbye: 0x25,
  echo: 0x31,
} as const;

/** Most entries of one catalog. */
export const MAX_ENTRIES = 4096;
/** Most peer hints in one HELLO. */
export const MAX_PEER_HINTS = 64;
/** Characters of a node's name. */
export const MAX_NAME_CHARS = 64;
/** Characters of a hint. */
const MAX_HINT_CHARS = 256;
/** A name as it may arrive, before control characters are taken out and it is cut. */
const MAX_RAW_NAME_CHARS = 1024;
/** Bytes of entries in a frame; one entry takes under 2 KiB. */
const MAX_ENTRIES_BYTES = MAX_BODY_PART_BYTES - 2048;

const Count = Type.Integer({ minimum: 0, maximum: 0x7fff_ffff });
const Sequence = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
const Label = Type.String({ maxLength: 64, pattern: '^[\\x20-\\x7e]*$' });
const ModelId = Type.String({ minLength: 1, maxLength: 256, pattern: '^[A-Za-z0-9][A-Za-z0-9._:/@+ -]*$' });

const Entry = Type.Object({
  id: ModelId,
  digest: Type.Union([Type.String({ pattern: '^[0-9a-f]{64}$' }), Type.Null()]),
  quantization: Type.Union([Label, Type.Null()]),
  contextLength: Count,
  sizeBytes: Sequence,
  state: Type.Union([Type.Literal('resident'), Type.Literal('loading'), Type.Literal('on-disk')]),
  slots: Count,
  tokensPerSecond: Type.Union([Type.Number({ minimum: 0, maximum: 1e9 }), Type.Null()]),
  boundary: Type.Optional(Type.String({ maxLength: 32 })),
});
const HelloHead = Type.Object({
  version: Label,
  name: Type.String({ maxLength: MAX_RAW_NAME_CHARS }),
  epoch: Sequence,
  engineBuild: Label,
  peerHints: Type.Array(Type.String({ maxLength: MAX_HINT_CHARS, pattern: '^[\\x21-\\x7e]+$' }), {
    maxItems: MAX_PEER_HINTS,
  }),
});
const SnapshotHead = Type.Object({
  seq: Sequence,
  entries: Type.Array(Entry, { maxItems: MAX_ENTRIES }),
  more: Type.Boolean(),
});
const DeltaHead = Type.Object({
  seq: Sequence,
  upsert: Type.Array(Entry, { maxItems: MAX_ENTRIES }),
  remove: Type.Array(ModelId, { maxItems: MAX_ENTRIES }),
});
const LoadHead = Type.Object({
  inFlight: Count,
  queued: Count,
  engineAgeMs: Type.Number({ minimum: 0, maximum: 1e12 }),
  draining: Type.Boolean(),
});
const HeartbeatHead = Type.Object({ n: Sequence, load: LoadHead });
const GoodbyeHead = Type.Object({ reason: Type.Literal('stopping') });
const EchoHead = Type.Object({ n: Sequence });

const checkHello = Compile(HelloHead);
const checkSnapshot = Compile(SnapshotHead);
const checkDelta = Compile(DeltaHead);
const checkHeartbeat = Compile(HeartbeatHead);
const checkGoodbye = Compile(GoodbyeHead);
const checkEcho = Compile(EchoHead);
const checkEntry = Compile(Entry);

/** What a publisher says, decoded and checked. */
export type CatalogMessage =
  | { readonly type: 'hello'; readonly hello: NodeHello }
  | {
      readonly type: 'snapshot';
      readonly seq: number;
      readonly entries: readonly CatalogEntry[];
      readonly more: boolean;
    }
  | {
      readonly type: 'delta';
      readonly seq: number;
      readonly upsert: readonly CatalogEntry[];
      readonly remove: readonly string[];
    }
  | { readonly type: 'heartbeat'; readonly n: number; readonly load: NodeLoad }
  | { readonly type: 'goodbye' };

/** A change of a catalog. */
export interface CatalogChange {
  readonly upsert: readonly CatalogEntry[];
  readonly remove: readonly string[];
}

/** A hello within the bounds of the wire: long names and surplus hints are cut. */
export function boundHello(hello: NodeHello): NodeHello {
  const { version, name, epoch, engineBuild, peerHints } = hello;
  const hints = peerHints.filter((hint) => hint.length <= MAX_HINT_CHARS).slice(0, MAX_PEER_HINTS);
  return { version, name: safeName(name), epoch, engineBuild, peerHints: hints };
}

export function encodeHello(hello: NodeHello): OutgoingFrame {
  return { type: FRAME.hello, head: boundHello(hello) };
}

/** A whole catalog as SNAPSHOT frames numbered from `seq` on; at least one. */
export function encodeSnapshot(entries: readonly CatalogEntry[], seq: number): OutgoingFrame[] {
  const parts = split(entries.map(plainEntry));
  if (parts.length === 0) parts.push([]);
  return parts.map((part, at) => ({
    type: FRAME.snapshot,
    head: { seq: seq + at, entries: part, more: at < parts.length - 1 },
  }));
}

/** A change as DELTA frames numbered from `seq` on; none for no change. Removals go first. */
export function encodeDelta(change: CatalogChange, seq: number): OutgoingFrame[] {
  const parts = split<string | CatalogEntry>([...change.remove, ...change.upsert.map(plainEntry)]);
  return parts.map((part, at) => ({
    type: FRAME.delta,
    head: {
      seq: seq + at,
      upsert: part.filter((item) => typeof item !== 'string'),
      remove: part.filter((item) => typeof item === 'string'),
    },
  }));
}

export function encodeHeartbeat(n: number, load: NodeLoad): OutgoingFrame {
  const { inFlight, queued, engineAgeMs, draining } = load;
  return { type: FRAME.heartbeat, head: { n, load: { inFlight, queued, engineAgeMs, draining } } };
}

export function encodeGoodbye(): OutgoingFrame {
  return { type: FRAME.goodbye, head: { reason: 'stopping' } };
}

export function encodeEcho(n: number): OutgoingFrame {
  return { type: FRAME.echo, head: { n } };
}

/** @throws MeshError `protocol_violation`. */
export function decodeCatalogMessage(frame: Frame): CatalogMessage {
  const { head } = frame;
  switch (frame.type) {
    case FRAME.hello:
      if (!checkHello.Check(head)) throw violation('a bad HELLO head');
      return { type: 'hello', hello: boundHello(head) };
    case FRAME.snapshot:
      if (!checkSnapshot.Check(head)) throw violation('a bad SNAPSHOT head');
      return { type: 'snapshot', seq: head.seq, entries: head.entries.map(plainEntry), more: head.more };
    case FRAME.delta:
      if (!checkDelta.Check(head)) throw violation('a bad DELTA head');
      return { type: 'delta', seq: head.seq, upsert: head.upsert.map(plainEntry), remove: head.remove };
    case FRAME.heartbeat: {
      if (!checkHeartbeat.Check(head)) throw violation('a bad HEARTBEAT head');
      const { inFlight, queued, engineAgeMs, draining } = head.load;
      return { type: 'heartbeat', n: head.n, load: { inFlight, queued, engineAgeMs, draining } };
    }
    case FRAME.goodbye:
      if (!checkGoodbye.Check(head)) throw violation('a bad GOODBYE head');
      return { type: 'goodbye' };
    default:
      throw violation(`a frame of unknown type 0x${frame.type.toString(16).padStart(2, '0')}`);
  }
}

/** The number of the heartbeat that came back. @throws MeshError `protocol_violation`. */
export function decodeEcho(frame: Frame): number {
  if (frame.type !== FRAME.echo || !checkEcho.Check(frame.head)) throw violation('something that is no ECHO');
  return frame.head.n;
}

/** What turns `before` into `after`; null when they say the same. */
export function diffCatalogs(
  before: ReadonlyMap<string, CatalogEntry>,
  after: ReadonlyMap<string, CatalogEntry>,
): CatalogChange | null {
  const remove = [...before.keys()].filter((id) => !after.has(id));
  const upsert = [...after.values()].filter((entry) => !sameEntry(before.get(entry.id), entry));
  return remove.length === 0 && upsert.length === 0 ? null : { upsert, remove };
}

/** The entries that can be advertised, by id: ids that the wire does not allow stay at home. */
export function advertisable(entries: readonly CatalogEntry[]): ReadonlyMap<string, CatalogEntry> {
  const fit = entries.filter((entry) => checkEntry.Check(entry)).slice(0, MAX_ENTRIES);
  return new Map(fit.map((entry) => [entry.id, plainEntry(entry)]));
}

function sameEntry(a: CatalogEntry | undefined, b: CatalogEntry): boolean {
  return a !== undefined && JSON.stringify(plainEntry(a)) === JSON.stringify(plainEntry(b));
}

/** Our fields only, in one order. A distance that nobody knows here is the furthest. */
function plainEntry(entry: Omit<CatalogEntry, 'boundary'> & { readonly boundary?: string | undefined }): CatalogEntry {
  const { id, digest, quantization, contextLength, sizeBytes, state, slots, tokensPerSecond, boundary } = entry;
  const own = { id, digest, quantization, contextLength, sizeBytes, state, slots, tokensPerSecond };
  if (boundary === undefined) return own;
  return { ...own, boundary: BOUNDARIES.find((known) => known === boundary) ?? 'public' };
}

function split<T>(items: readonly T[]): T[][] {
  const parts: T[][] = [];
  let part: T[] = [];
  let partBytes = 0;
  for (const item of items) {
    const itemBytes = Buffer.byteLength(JSON.stringify(item)) + 1;
    if (part.length > 0 && partBytes + itemBytes > MAX_ENTRIES_BYTES) {
      parts.push(part);
      part = [];
      partBytes = 0;
    }
    part.push(item);
    partBytes += itemBytes;
  }
  if (part.length > 0) parts.push(part);
  return parts;
}

function safeName(name: string): string {
  // Control, format, line and paragraph characters: a name is printed in terminals.
  const clean = name.toWellFormed().replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, '');
  return [...clean].slice(0, MAX_NAME_CHARS).join('').trim();
}
