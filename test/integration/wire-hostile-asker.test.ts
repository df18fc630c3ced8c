/** Peers that abuse the serving half: bounded memory, an owned error, other streams unharmed. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Stream } from '@libp2p/interface';
import { encodeFrames, type OutgoingFrame } from '../../protocols/framing.ts';
import type { InferenceEvent } from '../../protocols/inference/events.ts';
import { FRAME } from '../../protocols/inference/messages.ts';
import { encodeRequest } from '../../protocols/inference/open-message.ts';
import { INFERENCE_PROTOCOL } from '../../protocols/protocol-id.ts';
import { ACCEPTED, answer, chunk, collect, makeRequest, until, type WireMesh, wireMesh } from '../support/wire-mesh.ts';

const TEXT_OF_50 = Array.from({ length: 50 }, (_, index) => `t${index} `).join('');

const open = (body: Uint8Array = Buffer.from('{}'), fields: object = {}): OutgoingFrame[] => {
  const [first, ...rest] = encodeRequest(makeRequest(body), { hops: 1 });
  assert.ok(first);
  return [{ ...first, head: { ...first.head, ...fields } }, ...rest];
};

/** An answer of fifty tokens that is not over before `released`. */
async function* heldAnswer(released: Promise<void>): AsyncGenerator<InferenceEvent> {
  for await (const event of answer(50)) {
    yield event;
    if (event.type === 'chunk' && event.index === 10) await released;
  }
}

/** A mesh on which an honest request is under way while `attack` runs, and which must end whole. */
async function underAttack(t: TestContext, attack: (mesh: WireMesh) => Promise<void>): Promise<WireMesh> {
  const attacked = Promise.withResolvers<void>();
  const mesh = await wireMesh(t, () => heldAnswer(attacked.promise), { limits: { bodySilenceMs: 150, closeMs: 150 } });
  const asked = mesh.ask();
  // Under way on both sides: libp2p takes few streams while a connection is still being made.
  await asked.next();
  const honest = collect(asked);
  honest.catch(() => {});
  try {
    await attack(mesh);
  } finally {
    attacked.resolve();
  }
  assert.equal((await honest).text, TEXT_OF_50);
  assert.equal((await collect(mesh.ask())).text, TEXT_OF_50);
  await until(() => mesh.serving() === 0 && mesh.pair.openStreams(INFERENCE_PROTOCOL) === 0);
  return mesh;
}

const VIOLATIONS: Record<string, () => Uint8Array> = {
  'a length prefix of 4 GiB': () => Buffer.from('ffffffff0f', 'hex'),
  'random bytes': () => Buffer.from('0713deadbeef0102', 'hex'),
  'a head of invalid UTF-8': () => Buffer.from('0701057b22ff227d', 'hex'),
  'BODY before OPEN': () => encodeFrames([{ type: FRAME.body, head: {}, body: Buffer.from('{}') }]),
  'OPEN twice': () => encodeFrames([...open(), ...open()]),
  'OPEN within a body': () => encodeFrames([...open(Buffer.from('{}'), { bodyBytes: 10 }), ...open()]),
  'a body longer than announced': () => encodeFrames(open(Buffer.from('{"a":1}'), { bodyBytes: 2 })),
  'an empty BODY': () => encodeFrames([...open(Buffer.from('{}'), { bodyBytes: 10 }), { type: FRAME.body, head: {} }]),
  'more after the body': () => encodeFrames([...open(), { type: FRAME.body, head: {}, body: Buffer.from('x') }]),
  'a frame of the serving side': () => encodeFrames([{ type: FRAME.end, head: {} }]),
  'an unknown type of frame': () => encodeFrames([{ type: 0x7f, head: {} }]),
  'a negative body length': () => encodeFrames(open(Buffer.from('{}'), { bodyBytes: -1 })),
  'a request id with a newline': () => encodeFrames(open(Buffer.from('{}'), { requestId: `${'a'.repeat(31)}\n` })),
};
for (const [name, bytes] of Object.entries(VIOLATIONS)) {
  test(`${name} resets its stream, counts as a violation, and harms no other`, { timeout: 10_000 }, async (t) => {
    const mesh = await underAttack(t, async ({ pair }) => {
      const stream = await pair.open(INFERENCE_PROTOCOL);
      stream.send(bytes());
      await until(() => stream.status === 'reset');
    });
    assert.deepEqual(
      mesh.violations.map(({ code }) => code),
      ['protocol_violation'],
    );
  });
}

const SILENCES: Record<string, () => Uint8Array> = {
  'a length then silence': () => Buffer.from('fdff03', 'hex'),
  'half an OPEN then silence': () => encodeFrames(open()).subarray(0, 20),
  'an OPEN of 16 MiB then silence': () => encodeFrames(open(Buffer.from('{}'), { bodyBytes: 16 * 1024 * 1024 })),
};
for (const [name, bytes] of Object.entries(SILENCES)) {
  test(`${name} resets its stream and harms no other`, { timeout: 10_000 }, async (t) => {
    await underAttack(t, async ({ pair }) => {
      const stream = await pair.open(INFERENCE_PROTOCOL);
      stream.send(bytes());
      await until(() => stream.status === 'reset');
    });
  });
}

test('a request that made too many hops is refused before its body', { timeout: 10_000 }, async (t) => {
  await underAttack(t, async ({ pair }) => {
    const stream = await pair.open(INFERENCE_PROTOCOL);
    stream.send(encodeFrames(open(Buffer.from('{}'), { hops: 2 })));
    await until(() => stream.remoteWriteStatus === 'closed');
    stream.abort(new Error('refused'));
  });
});

test('three thousand streams get the allowed ones served and the rest refused', { timeout: 60_000 }, async (t) => {
  let peak = 0;
  const rssBefore = process.memoryUsage().rss;
  const mesh = await underAttack(t, async (attacked) => {
    const streams: Stream[] = [];
    for (let batch = 0; batch < 30; batch++) {
      const opened = await Promise.allSettled(
        Array.from({ length: 100 }, () => attacked.pair.open(INFERENCE_PROTOCOL, AbortSignal.timeout(2000))),
      );
      for (const result of opened) if (result.status === 'fulfilled') streams.push(result.value);
      peak = Math.max(peak, attacked.serving());
    }
    t.diagnostic(`${streams.length} opens resolved; at most ${peak} were served at once`);
    for (const stream of streams) stream.abort(new Error('enough'));
    await until(() => attacked.serving() <= 1);
  });
  t.diagnostic(`resident memory grew by ${((process.memoryUsage().rss - rssBefore) / 2 ** 20).toFixed(0)} MiB`);
  assert.ok(peak <= 257, `${peak} were served at once`);
  assert.deepEqual(mesh.violations, []);
});

test('a peer that never reads loses its stream, and its generation stops', { timeout: 10_000 }, async (t) => {
  const text = 'x'.repeat(50_000);
  let produced = 0;
  const stopped = Promise.withResolvers<void>();
  async function* endless(signal: AbortSignal): AsyncGenerator<InferenceEvent> {
    signal.addEventListener('abort', () => stopped.resolve());
    yield ACCEPTED;
    for (; !signal.aborted; produced++) yield chunk(produced, text);
  }
  const mesh = await wireMesh(t, (_, { signal }) => endless(signal), { limits: { drainMs: 200 } });
  const stream = await mesh.pair.open(INFERENCE_PROTOCOL);
  stream.pause();
  stream.send(encodeFrames(open()));
  await stopped.promise;
  await until(() => mesh.serving() === 0);
  assert.ok(produced * text.length < 6 * 2 ** 20, `${produced * text.length} bytes were made for nobody`);
});

/** What the asking side has said when it resets its stream. */
const ASKING_STEPS: Record<string, () => Uint8Array> = {
  'before it said anything': () => new Uint8Array(0),
  'within the length of OPEN': () => encodeFrames(open()).subarray(0, 1),
  'within OPEN': () => encodeFrames(open()).subarray(0, 50),
  'after OPEN, before the body': () => encodeFrames(open(new Uint8Array(0), { bodyBytes: 10 })),
  'within the body': () => encodeFrames(open(new Uint8Array(150_000))).subarray(0, 100_000),
  'after the whole request': () => encodeFrames(open()),
};
for (const [step, bytes] of Object.entries(ASKING_STEPS)) {
  test(`a reset by the asking side ${step} harms no other`, { timeout: 10_000 }, async (t) => {
    const mesh = await underAttack(t, async (attacked) => {
      const stream = await attacked.pair.open(INFERENCE_PROTOCOL);
      const said = bytes();
      if (said.byteLength > 0) stream.send(said);
      await until(() => attacked.serving() === 2);
      stream.abort(new Error('reset'));
      await until(() => attacked.serving() === 1);
    });
    assert.deepEqual(mesh.violations, []);
  });
}

for (const step of ['accepted', 'chunk', 'end'] as const) {
  test(`a reset by the asking side after it saw ${step} harms no other`, { timeout: 10_000 }, async (t) => {
    const mesh = await underAttack(t, async (attacked) => {
      if (step === 'end') return;
      for await (const event of attacked.ask()) if (event.type === step) break;
      await until(() => attacked.serving() === 1);
    });
    if (step === 'end') for await (const event of mesh.ask()) if (event.type === 'end') break;
    await until(() => mesh.serving() === 0);
    assert.deepEqual(mesh.violations, []);
  });
}
