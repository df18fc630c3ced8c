/** Peers that abuse the asking half: an error of the right code, nothing invalid reaches the caller, no leak. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Stream } from '@libp2p/interface';
import { systemClock } from '../../node/common/clock.ts';
import { FrameReader } from '../../protocols/frame-reader.ts';
import { encodeFrames, type OutgoingFrame } from '../../protocols/framing.ts';
import { encodeChunk } from '../../protocols/inference/chunk-message.ts';
import type { InferenceEvent } from '../../protocols/inference/events.ts';
import { encodeAccept, encodeEnd, encodeProgress, FRAME } from '../../protocols/inference/messages.ts';
import { serveInference } from '../../protocols/inference/server.ts';
import { INFERENCE_PROTOCOL } from '../../protocols/protocol-id.ts';
import {
  ACCEPTED,
  answer,
  chunk,
  collect,
  END,
  makeRequest,
  until,
  type WireMesh,
  wireMesh,
} from '../support/wire-mesh.ts';

const progress = encodeProgress({ state: 'queued', fraction: null });
const accept = encodeAccept(ACCEPTED);
const end = encodeEnd(END);
const tokens = (index: number): OutgoingFrame => {
  const [frame] = encodeChunk(chunk(index));
  assert.ok(frame);
  return frame;
};
const raw = (text: string): Uint8Array => Buffer.from(text, 'hex');

/** The first stream gets `hostile` after it read the request; the others are served honestly. */
async function hostileMesh(t: TestContext, hostile: (stream: Stream) => Promise<void> | void): Promise<WireMesh> {
  let first = true;
  return await wireMesh(t, () => answer(50), {
    instead: async (stream, from) => {
      if (!first) return await serveInference(stream, from, () => answer(50), { clock: systemClock });
      first = false;
      const reader = new FrameReader(stream);
      await reader.read();
      await hostile(stream);
    },
  });
}

async function seen(events: AsyncIterable<InferenceEvent>): Promise<{ types: string[]; code: string | null }> {
  const types: string[] = [];
  try {
    for await (const event of events) types.push(event.type);
  } catch (error) {
    return { types, code: (error as { code: string }).code };
  }
  return { types, code: null };
}

/** Afterwards nothing of the attack is left, and the same connection serves on. */
async function unharmed(mesh: WireMesh): Promise<void> {
  assert.equal((await collect(mesh.ask())).tokens.length, 50);
  await until(() => mesh.pair.openStreams(INFERENCE_PROTOCOL) === 0);
}

const SHORT = { firstFrameMs: 150, silenceMs: 150 };

const VIOLATIONS: Record<string, Uint8Array> = {
  'a length prefix of 4 GiB': raw('ffffffff0f'),
  'tokens before ACCEPT': encodeFrames([tokens(0)]),
  'END before ACCEPT': encodeFrames([end]),
  'ACCEPT twice': encodeFrames([accept, accept]),
  'an index gap': encodeFrames([accept, tokens(0), tokens(2)]),
  'an index again': encodeFrames([accept, tokens(0), tokens(0)]),
  'tokens right after END': encodeFrames([accept, tokens(0), end, tokens(1)]),
  'text of invalid UTF-8': encodeFrames([accept, { type: FRAME.chunk, head: { i: 0, t: [1] }, body: raw('c3') }]),
  'a head of invalid UTF-8': raw('0713057b22ff227d'),
  'a negative token': encodeFrames([accept, { type: FRAME.chunk, head: { i: 0, t: [-1] } }]),
  'a chunk of nothing': encodeFrames([accept, { type: FRAME.chunk, head: { i: 0, t: [] } }]),
  'an ACCEPT without a node': encodeFrames([{ type: FRAME.accept, head: {} }]),
  'an unknown type of frame': encodeFrames([{ type: 0x7f, head: {} }]),
  'a frame of the asking side': encodeFrames([{ type: FRAME.body, head: {} }]),
};
for (const [name, bytes] of Object.entries(VIOLATIONS)) {
  test(`${name} from the serving side is a protocol violation`, { timeout: 10_000 }, async (t) => {
    const mesh = await hostileMesh(t, (stream) => void stream.send(bytes));
    const { types, code } = await seen(mesh.ask());
    assert.equal(code, 'protocol_violation');
    assert.ok(!types.includes('end'));
    await unharmed(mesh);
  });
}

test('tokens that come later than END are never seen, and the stream is reset', { timeout: 10_000 }, async (t) => {
  let stream: Stream | null = null;
  const mesh = await hostileMesh(t, (opened) => {
    stream = opened;
    opened.send(encodeFrames([accept, tokens(0), end]));
    setImmediate(() => setImmediate(() => opened.status === 'open' && opened.send(encodeFrames([tokens(1)]))));
  });
  const { types, code } = await seen(mesh.ask());
  if (code === null) assert.deepEqual(types, ['accepted', 'chunk', 'end']);
  else assert.equal(code, 'protocol_violation');
  await until(() => stream !== null && stream.status !== 'open');
  await unharmed(mesh);
});

const SILENCES: Record<string, readonly [Uint8Array, string[]]> = {
  silence: [new Uint8Array(0), []],
  'a length then silence': [raw('fdff03'), []],
  'ACCEPT then silence': [encodeFrames([accept]), ['accepted']],
  'half a chunk then silence': [encodeFrames([accept, tokens(0)]).subarray(0, -3), ['accepted']],
};
for (const [name, [bytes, types]] of Object.entries(SILENCES)) {
  test(`${name} from the serving side is given up as unreachable`, { timeout: 10_000 }, async (t) => {
    const mesh = await hostileMesh(t, (stream) => void (bytes.byteLength > 0 && stream.send(bytes)));
    assert.deepEqual(await seen(mesh.ask(makeRequest(), { limits: SHORT })), { types, code: 'peer_unreachable' });
    await unharmed(mesh);
  });
}

test('a serving side that takes none of a body is given up as unreachable', { timeout: 10_000 }, async (t) => {
  const mesh = await hostileMesh(t, (stream) => stream.pause());
  const body = new Uint8Array(8 * 1024 * 1024);
  const { types, code } = await seen(mesh.ask(makeRequest(body), { limits: { drainMs: 200 } }));
  assert.deepEqual({ types, code }, { types: [], code: 'peer_unreachable' });
  await unharmed(mesh);
});

/** What the serving side has said when it leaves. */
const SERVING_STEPS: Record<string, readonly [Uint8Array, string[]]> = {
  'before any frame': [new Uint8Array(0), []],
  'after PROGRESS': [encodeFrames([progress]), ['progress']],
  'after ACCEPT': [encodeFrames([progress, accept]), ['progress', 'accepted']],
  'after a chunk': [encodeFrames([accept, tokens(0)]), ['accepted', 'chunk']],
  'within a chunk': [encodeFrames([accept, tokens(0)]).subarray(0, -3), ['accepted']],
  'before END': [encodeFrames([accept, tokens(0), tokens(1)]), ['accepted', 'chunk', 'chunk']],
};
for (const [step, [bytes, types]] of Object.entries(SERVING_STEPS)) {
  for (const leave of ['reset', 'close'] as const) {
    test(`a ${leave} by the serving side ${step} makes it unreachable`, { timeout: 10_000 }, async (t) => {
      const mesh = await hostileMesh(t, async (stream) => {
        if (bytes.byteLength > 0) stream.send(bytes);
        if (leave === 'close') await stream.close();
        else setImmediate(() => stream.abort(new Error('reset')));
      });
      const result = await seen(mesh.ask());
      assert.equal(result.code, 'peer_unreachable');
      // A reset may overtake what was said before it; what is seen is a part of it in any case.
      assert.deepEqual(result.types, types.slice(0, result.types.length));
      if (leave === 'close') assert.deepEqual(result.types, types);
      await unharmed(mesh);
    });
  }
}

test('a reset after END leaves a whole answer', { timeout: 10_000 }, async (t) => {
  const mesh = await hostileMesh(t, (stream) => {
    stream.send(encodeFrames([accept, tokens(0), end]));
    stream.addEventListener('remoteCloseWrite', () => stream.abort(new Error('reset')));
  });
  assert.deepEqual(await seen(mesh.ask()), { types: ['accepted', 'chunk', 'end'], code: null });
  await unharmed(mesh);
});

test('an error with a code that is not ours is an upstream error', { timeout: 10_000 }, async (t) => {
  const head = { code: '__proto__', message: 'x\u0007y', facts: {} };
  const mesh = await hostileMesh(t, (stream) => void stream.send(encodeFrames([{ type: FRAME.error, head }])));
  await assert.rejects(collect(mesh.ask()), { code: 'upstream_error', message: 'x y' });
  await unharmed(mesh);
});
