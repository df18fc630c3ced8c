import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MeshError } from '../../../node/common/errors.ts';
import { AdvertCheck } from '../../../protocols/catalog/advert-check.ts';
import type { CatalogEntry, NodeHello, NodeLoad } from '../../../protocols/catalog/catalog.ts';
import {
  advertisable,
  type CatalogMessage,
  decodeCatalogMessage,
  decodeEcho,
  diffCatalogs,
  encodeDelta,
  encodeEcho,
  encodeGoodbye,
  encodeHeartbeat,
  encodeHello,
  encodeSnapshot,
  FRAME,
  MAX_ENTRIES,
} from '../../../protocols/catalog/messages.ts';
import { FrameDecoder } from '../../../protocols/frame-decoder.ts';
import { encodeFrames, type OutgoingFrame } from '../../../protocols/framing.ts';
import fc from '../../support/fc.ts';

const HELLO: NodeHello = { version: '0.1.0', name: 'desk', epoch: 1, engineBuild: 'b1', peerHints: [] };
const LOAD: NodeLoad = { inFlight: 1, queued: 0, engineAgeMs: 3, draining: false };
const BOUNDS = { maxEntries: 4, framesPerSecond: 10, frameBurst: 5 };

const isViolation = (error: unknown): boolean => error instanceof MeshError && error.code === 'protocol_violation';

function entry(id: string, fields: Partial<CatalogEntry> = {}): CatalogEntry {
  return {
    id,
    digest: null,
    quantization: 'F16',
    contextLength: 2048,
    sizeBytes: 1000,
    state: 'resident',
    slots: 4,
    tokensPerSecond: null,
    ...fields,
  };
}

function travel(frames: readonly OutgoingFrame[]): CatalogMessage[] {
  const decoder = new FrameDecoder();
  decoder.push(encodeFrames(frames));
  const seen: CatalogMessage[] = [];
  for (let frame = decoder.next(); frame !== null; frame = decoder.next()) seen.push(decodeCatalogMessage(frame));
  return seen;
}

function accept(frames: readonly OutgoingFrame[], times: readonly number[] = []): (CatalogMessage | null)[] {
  const check = new AdvertCheck(BOUNDS);
  return travel(frames).map((message, at) => check.next(message, times[at] ?? 0));
}

test('the frames of the specification are these bytes', () => {
  const hex = (frame: OutgoingFrame): string => Buffer.from(encodeFrames([frame])).toString('hex');
  assert.equal(hex(encodeEcho(7)), `0931077b226e223a377d`);
  assert.equal(hex(encodeGoodbye()), `1725157b22726561736f6e223a2273746f7070696e67227d`);
});

const anyEntry = fc.record({
  id: fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._:/@+ -]{0,255}$/),
  digest: fc.option(fc.stringMatching(/^[0-9a-f]{64}$/)),
  quantization: fc.option(fc.constantFrom('F16', 'Q4_K_M')),
  contextLength: fc.nat(),
  sizeBytes: fc.maxSafeNat(),
  state: fc.constantFrom('resident', 'loading', 'on-disk'),
  slots: fc.nat(1000),
  tokensPerSecond: fc.option(fc.double({ min: 0, max: 1e6, noNaN: true })),
}) as fc.Arbitrary<CatalogEntry>;

test('any catalog and any change of it travel whole', () => {
  fc.assert(
    fc.property(fc.uniqueArray(anyEntry, { selector: ({ id }) => id }), fc.nat(50), (entries, seq) => {
      const wire = JSON.parse(JSON.stringify(entries)) as CatalogEntry[];
      const [snapshot] = travel(encodeSnapshot(entries, seq));
      assert.deepEqual(snapshot, { type: 'snapshot', seq, entries: wire, more: false });
      const remove = entries.map(({ id }) => id);
      const deltas = travel(encodeDelta({ upsert: entries, remove }, seq)) as (CatalogMessage & { type: 'delta' })[];
      assert.deepEqual(
        deltas.flatMap(({ upsert }) => upsert),
        wire,
      );
      assert.deepEqual(
        deltas.flatMap((delta) => delta.remove),
        remove,
      );
      assert.deepEqual(
        deltas.map((delta) => delta.seq),
        deltas.map((_, at) => seq + at),
      );
    }),
    { numRuns: 50 },
  );
});

test('a catalog of 4,096 models travels in many frames', () => {
  const entries = Array.from({ length: MAX_ENTRIES }, (_, n) => entry(`model-${n}`.padEnd(200, 'x')));
  const messages = travel(encodeSnapshot(entries, 0));
  assert.ok(messages.length > 10);
  const check = new AdvertCheck({ ...BOUNDS, maxEntries: MAX_ENTRIES });
  check.next({ type: 'hello', hello: HELLO }, 0);
  const told = messages.map((message) => check.next(message, 0));
  assert.ok(told.slice(0, -1).every((message) => message === null));
  assert.equal((told.at(-1) as CatalogMessage & { type: 'snapshot' }).entries.length, MAX_ENTRIES);
});

test('a change is what turns one catalog into the other', () => {
  const small = fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c'), fc.constantFrom(1, 2)), { maxLength: 4 });
  const catalog = (pairs: [string, number][]): ReadonlyMap<string, CatalogEntry> =>
    advertisable(pairs.map(([id, slots]) => entry(id, { slots })));
  fc.assert(
    fc.property(small, small, (before, after) => {
      const change = diffCatalogs(catalog(before), catalog(after));
      const result = new Map(catalog(before));
      for (const id of change?.remove ?? []) result.delete(id);
      for (const changed of change?.upsert ?? []) result.set(changed.id, changed);
      assert.deepEqual(Object.fromEntries(result), Object.fromEntries(catalog(after)));
    }),
  );
  assert.equal(diffCatalogs(catalog([['a', 1]]), catalog([['a', 1]])), null);
});

test('a name loses its control characters and what is too long', () => {
  const [message] = travel([encodeHello({ ...HELLO, name: `\u001b[31mdesk\n\u202e${'x'.repeat(100)}` })]);
  assert.ok(message?.type === 'hello');
  assert.equal(message.hello.name, `[31mdesk${'x'.repeat(56)}`);
});

test('surplus hints are cut by the publisher', () => {
  const peerHints = Array.from({ length: 100 }, (_, n) => `/ip4/10.0.0.${n}/tcp/1`);
  const [message] = travel([encodeHello({ ...HELLO, peerHints })]);
  assert.ok(message?.type === 'hello');
  assert.equal(message.hello.peerHints.length, 64);
});

test('an id that the wire does not allow is not advertised', () => {
  const ids = [...advertisable([entry('ok'), entry('-bad'), entry('a\nb'), entry('x'.repeat(257))]).keys()];
  assert.deepEqual(ids, ['ok']);
});

const BAD_HEADS: Record<string, [number, object]> = {
  'an id with a control character': [FRAME.snapshot, { seq: 0, entries: [entry('a\u0007')], more: false }],
  'an id of 257 characters': [FRAME.snapshot, { seq: 0, entries: [entry('x'.repeat(257))], more: false }],
  'a digest that is none': [FRAME.snapshot, { seq: 0, entries: [entry('a', { digest: 'xyz' })], more: false }],
  'a negative number of slots': [FRAME.delta, { seq: 0, upsert: [entry('a', { slots: -1 })], remove: [] }],
  'more than 64 hints': [FRAME.hello, { ...HELLO, peerHints: new Array(65).fill('/ip4/1.1.1.1') }],
  'an epoch that is a string': [FRAME.hello, { ...HELLO, epoch: '1' }],
  'no load': [FRAME.heartbeat, { n: 1 }],
  'a load that is negative': [FRAME.heartbeat, { n: 1, load: { ...LOAD, inFlight: -1 } }],
  'an unknown reason to go': [FRAME.goodbye, { reason: 'bored' }],
  'an unknown type': [0x7f, {}],
};
for (const [name, [type, head]] of Object.entries(BAD_HEADS)) {
  test(`${name} breaks the protocol`, () => {
    assert.throws(() => travel([{ type, head }]), isViolation);
  });
}

test('heads of any JSON give a message or break the protocol', () => {
  const any = fc.dictionary(
    fc.constantFrom(
      'seq',
      'entries',
      'more',
      'upsert',
      'remove',
      'n',
      'load',
      'reason',
      'name',
      'peerHints',
      '__proto__',
    ),
    fc.jsonValue({ maxDepth: 2 }),
  );
  fc.assert(
    fc.property(fc.constantFrom(...Object.values(FRAME)), any, (type, head) => {
      for (const decode of [decodeCatalogMessage, decodeEcho]) {
        try {
          decode({ type, head, body: new Uint8Array(0) });
        } catch (error) {
          assert.ok(isViolation(error));
        }
      }
    }),
    { numRuns: 500 },
  );
});

const hello = encodeHello(HELLO);
const snapshot = encodeSnapshot([entry('a')], 0);
const delta = (seq: number, ids: string[]): OutgoingFrame[] =>
  encodeDelta({ upsert: ids.map((id) => entry(id)), remove: [] }, seq);
const BAD_ORDERS: Record<string, readonly OutgoingFrame[]> = {
  'a snapshot before HELLO': snapshot,
  'a heartbeat before HELLO': [encodeHeartbeat(0, LOAD)],
  'a delta before the snapshot': [hello, ...delta(0, ['b'])],
  'a second snapshot': [hello, ...snapshot, ...encodeSnapshot([], 1)],
  'a gap in the sequence': [hello, ...snapshot, ...delta(2, ['b'])],
  'a sequence number twice': [hello, ...snapshot, ...delta(1, ['b']), ...delta(1, ['c'])],
  'a model twice in a snapshot': [hello, ...encodeSnapshot([entry('a'), entry('a')], 0)],
  'an endless snapshot': [hello, { type: FRAME.snapshot, head: { seq: 0, entries: [], more: true } }],
  'more models than allowed': [hello, ...snapshot, ...delta(1, ['b', 'c', 'd', 'e'])],
  'a flood of frames': [hello, ...snapshot, ...[0, 1, 2, 3, 4, 5].map((n) => encodeHeartbeat(n, LOAD))],
};
for (const [name, frames] of Object.entries(BAD_ORDERS)) {
  test(`${name} breaks the protocol`, () => {
    assert.throws(() => accept(frames), isViolation);
  });
}

test('frames at the allowed rate pass for ever', () => {
  const beats = Array.from({ length: 100 }, (_, n) => encodeHeartbeat(n, LOAD));
  const times = [0, 0, ...beats.map((_, n) => n * 100)];
  assert.equal(accept([hello, ...snapshot, ...beats], times).length, 102);
});
