/** Several requests on one stream, through the pool that keeps it: each sees only its own frames, none outlives a fault. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import type { Stream } from '@libp2p/interface';
import { systemClock } from '../../node/common/clock.ts';
import { MeshError } from '../../node/common/errors.ts';
import { silentLogger } from '../../node/common/logger.ts';
import { PeerStreams } from '../../node/network/peer-streams.ts';
import { FrameChannel } from '../../protocols/frame-channel.ts';
import { FrameReader } from '../../protocols/frame-reader.ts';
import { encodeFrames, type OutgoingFrame } from '../../protocols/framing.ts';
import { encodeChunk } from '../../protocols/inference/chunk-message.ts';
import type { InferenceEvent, InferenceRequest } from '../../protocols/inference/events.ts';
import { encodeAccept, encodeEnd, FRAME } from '../../protocols/inference/messages.ts';
import { encodeRequest } from '../../protocols/inference/open-message.ts';
import { type InferenceHandler, serveInference } from '../../protocols/inference/server.ts';
import { INFERENCE_PROTOCOL } from '../../protocols/protocol-id.ts';
import {
  ACCEPTED,
  type AskOptions,
  answer,
  chunk,
  collect,
  END,
  makeRequest,
  until,
  type WireMesh,
  type WireMeshOptions,
  wireMesh,
} from '../support/wire-mesh.ts';

interface PooledMesh {
  readonly mesh: WireMesh;
  readonly streams: PeerStreams;
  /** Every stream that was opened, in order. */
  readonly opened: Stream[];
  idle(): number;
  ask(request?: InferenceRequest, options?: AskOptions): AsyncGenerator<InferenceEvent>;
}

async function pooledMesh(
  test: TestContext,
  handler: InferenceHandler,
  options: WireMeshOptions & { maxIdleMs?: number } = {},
): Promise<PooledMesh> {
  const mesh = await wireMesh(test, handler, options);
  const opened: Stream[] = [];
  const swarm = {
    async openStream(_: string, protocol: string, signal?: AbortSignal): Promise<Stream> {
      const stream = await mesh.pair.open(protocol, signal);
      opened.push(stream);
      return stream;
    },
    onConnection: () => () => {},
  };
  const { maxIdleMs = 50_000 } = options;
  const streams = new PeerStreams({ clock: systemClock, logger: silentLogger, swarm }, { maxIdleMs });
  test.after(() => streams.stop());
  const peer = mesh.pair.serving.peerId.toString();
  return {
    mesh,
    streams,
    opened,
    idle: () => streams.idle(peer),
    ask: (request, rest = {}) =>
      mesh.ask(request, { ...rest, acquire: (signal: AbortSignal) => streams.acquire(peer, signal) }),
  };
}

/** Says its own body, one word a token. */
async function* echo({ body }: InferenceRequest): AsyncGenerator<InferenceEvent> {
  yield ACCEPTED;
  for (const [index, word] of Buffer.from(body).toString().split(' ').entries()) yield chunk(index, word);
  yield END;
}

const say = (text: string): InferenceRequest => makeRequest(Buffer.from(text));
const tokens = (index: number): OutgoingFrame[] => encodeChunk(chunk(index));
const whole = (): Uint8Array => encodeFrames([encodeAccept(ACCEPTED), ...tokens(0), encodeEnd(END)]);

/** The first stream is `hostile`'s; the others are served honestly. */
const firstOnly = (hostile: (channel: FrameChannel) => Promise<void>): WireMeshOptions => {
  let first = true;
  return {
    instead: async (stream, from) => {
      if (!first) return await serveInference(stream, from, echo, { clock: systemClock });
      first = false;
      await hostile(new FrameChannel(stream, systemClock)).catch(() => {});
    },
  };
};

test('two requests in turn on one stream see only their own frames', { timeout: 10_000 }, async (t) => {
  const { ask, opened } = await pooledMesh(t, echo);
  assert.equal((await collect(ask(say('one two three')))).text, 'onetwothree');
  assert.deepEqual(await Array.fromAsync(ask(say('four'))), [ACCEPTED, chunk(0, 'four'), END]);
  assert.equal(opened.length, 1);
});

test('two hundred requests in turn open one stream and leave no listener behind', { timeout: 20_000 }, async (t) => {
  const booked: number[] = [];
  let released = 0;
  const reserveBytes = (sizeBytes: number): (() => void) => {
    booked.push(sizeBytes);
    return () => void released++;
  };
  const { ask, opened, mesh } = await pooledMesh(t, echo, { reserveBytes });
  await collect(ask(say('first')));
  const [stream] = opened;
  assert.ok(stream);
  const count = (): number[] => ['message', 'end', 'close', 'drain'].map((type) => stream.listenerCount(type));
  const before = count();
  for (let i = 1; i < 200; i++) assert.equal((await collect(ask(say(`n${i}`)))).text, `n${i}`);
  assert.equal(opened.length, 1);
  assert.deepEqual(count(), before);
  assert.equal(booked.length, 200);
  await until(() => released === 200);
  assert.deepEqual(mesh.violations, []);
});

test('sixty-four requests at once, twice, each get their own answer', { timeout: 20_000 }, async (t) => {
  const { ask, idle } = await pooledMesh(t, echo);
  for (const round of ['a', 'b']) {
    const texts = Array.from({ length: 64 }, (_, i) => `${round}${i}`);
    const answers = await Promise.all(texts.map((text) => collect(ask(say(text)))));
    assert.deepEqual(
      answers.map(({ text }) => text),
      texts,
    );
    assert.ok(idle() <= 8, `${idle()} are kept`);
  }
});

test('after an ERROR the stream carries the next request', { timeout: 10_000 }, async (t) => {
  let calls = 0;
  const { ask, opened } = await pooledMesh(t, (request) => {
    if (++calls === 1) throw new MeshError('overloaded', 'full', { retryAfterMs: 1500 });
    return echo(request);
  });
  await assert.rejects(collect(ask()), { code: 'overloaded' });
  assert.equal((await collect(ask(say('next')))).text, 'next');
  assert.equal(opened.length, 1);
});

for (const sizeBytes of [2, 8 * 1024 * 1024]) {
  test(`after a refusal of ${sizeBytes} bytes that were not read the next request works`, async (t) => {
    let room = false;
    const reserveBytes = (): (() => void) | null => (room ? () => {} : null);
    const { ask, opened, mesh } = await pooledMesh(t, () => answer(1), { reserveBytes });
    await assert.rejects(collect(ask(makeRequest(new Uint8Array(sizeBytes)))), { code: 'overloaded' });
    room = true;
    assert.equal((await collect(ask())).text, 't0 ');
    await until(() => opened[0]?.status !== 'open');
    assert.deepEqual(mesh.violations, []);
  });
}

test('a cancel ends its stream and its own generation, and the next request works', { timeout: 10_000 }, async (t) => {
  const signals: AbortSignal[] = [];
  async function* endless(signal: AbortSignal): AsyncGenerator<InferenceEvent> {
    yield ACCEPTED;
    for (let index = 0; !signal.aborted; index++) {
      yield chunk(index);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  const { ask, opened } = await pooledMesh(t, (request, { signal }) => {
    signals.push(signal);
    return request.body.byteLength === 0 ? endless(signal) : echo(request);
  });
  await collect(ask(say('one')));
  for await (const event of ask(makeRequest(new Uint8Array(0)))) if (event.type === 'chunk') break;
  await until(() => signals[1]?.aborted === true && opened[0]?.status === 'aborted');
  assert.equal(signals[0]?.aborted, false);
  assert.equal((await collect(ask(say('two')))).text, 'two');
});

test('a signal that aborts after its answer harms no later request on the stream', { timeout: 10_000 }, async (t) => {
  const { ask, opened } = await pooledMesh(t, echo);
  const early = new AbortController();
  const first = ask(say('one'), { signal: early.signal });
  for await (const event of first) if (event.type === 'end') break;
  const second = ask(say('two words'));
  await second.next();
  early.abort(new Error('late'));
  await first.return(undefined);
  assert.equal((await collect(second)).text, 'twowords');
  assert.equal(opened.length, 1);
});

test('an idle stream that the serving side ended is replaced silently', { timeout: 10_000 }, async (t) => {
  const { ask, opened, idle, mesh } = await pooledMesh(t, echo, { limits: { idleMs: 30 } });
  await collect(ask(say('one')));
  await until(() => idle() === 0 && opened[0]?.status === 'closed');
  assert.equal((await collect(ask(say('two')))).text, 'two');
  assert.equal(opened.length, 2);
  assert.deepEqual(mesh.violations, []);
});

test('a kept stream that dies at the next OPEN is replaced without counting', { timeout: 10_000 }, async (t) => {
  const hostile = async ({ reader, stream }: FrameChannel): Promise<void> => {
    await reader.read();
    stream.send(whole());
    await reader.read();
    stream.abort(new Error('gone'));
  };
  const { ask, opened } = await pooledMesh(t, echo, firstOnly(hostile));
  assert.equal((await collect(ask())).text, 't0 ');
  assert.equal((await collect(ask(say('next')))).text, 'next');
  assert.ok(opened.length >= 2);
});

test('a stream too old to be trusted is not used again', { timeout: 10_000 }, async (t) => {
  const { ask, opened } = await pooledMesh(t, echo, { maxIdleMs: 0 });
  await collect(ask(say('one')));
  assert.equal((await collect(ask(say('two')))).text, 'two');
  assert.equal(opened.length, 2);
});

test('a peer that speaks on an idle stream loses it, and is asked on another', { timeout: 10_000 }, async (t) => {
  const speak = Promise.withResolvers<void>();
  const hostile = async ({ reader, stream }: FrameChannel): Promise<void> => {
    await reader.read();
    stream.send(whole());
    await speak.promise;
    stream.send(whole());
  };
  const { ask, opened, idle } = await pooledMesh(t, echo, firstOnly(hostile));
  assert.equal((await collect(ask())).text, 't0 ');
  assert.equal(idle(), 1);
  speak.resolve();
  await until(() => idle() === 0);
  assert.equal(opened[0]?.status, 'aborted');
  assert.equal((await collect(ask(say('next')))).text, 'next');
});

test('an OPEN in the middle of an answer is a violation and stops the answer', { timeout: 10_000 }, async (t) => {
  const stopped = Promise.withResolvers<void>();
  async function* held(signal: AbortSignal): AsyncGenerator<InferenceEvent> {
    signal.addEventListener('abort', () => stopped.resolve());
    yield ACCEPTED;
    await stopped.promise;
  }
  const { mesh } = await pooledMesh(t, (_, { signal }) => held(signal));
  const stream = await mesh.pair.open(INFERENCE_PROTOCOL);
  const reader = new FrameReader(stream);
  const open = (): Uint8Array => encodeFrames([...encodeRequest(makeRequest(), { hops: 1 })]);
  stream.send(open());
  assert.equal((await reader.read())?.type, FRAME.accept);
  stream.send(open());
  await stopped.promise;
  await until(() => stream.status === 'reset' && mesh.serving() === 0);
  assert.deepEqual(
    mesh.violations.map(({ code }) => code),
    ['protocol_violation'],
  );
});
