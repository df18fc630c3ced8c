import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { systemClock } from '../../node/common/clock.ts';
import { MeshError } from '../../node/common/errors.ts';
import type { InferenceEvent } from '../../protocols/inference/events.ts';
import { INFERENCE_PROTOCOL } from '../../protocols/protocol-id.ts';
import { ACCEPTED, answer, chunk, collect, END, makeRequest, until, wireMesh } from '../support/wire-mesh.ts';

const TEXT_OF_200 = Array.from({ length: 200 }, (_, index) => `t${index} `).join('');

test('an answer travels in order, with its node, its tokens and its end', async (t) => {
  const seen: { from: string; hops: number; authorization: string | null }[] = [];
  const mesh = await wireMesh(t, (_, { from, hops, authorization }) => {
    seen.push({ from, hops, authorization });
    return answer(2);
  });
  const events = await Array.fromAsync(mesh.ask(makeRequest(), { authorization: 'Bearer k' }));
  assert.deepEqual(events, [ACCEPTED, chunk(0), chunk(1), END]);
  assert.deepEqual(seen, [{ from: mesh.pair.asking.peerId.toString(), hops: 1, authorization: 'Bearer k' }]);
  await until(() => mesh.serving() === 0 && mesh.pair.openStreams(INFERENCE_PROTOCOL) === 0);
});

test('a body of 15 MiB arrives whole', async (t) => {
  const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
  const body = randomBytes(15 * 1024 * 1024);
  let arrived = '';
  const mesh = await wireMesh(t, (request) => {
    arrived = digest(request.body);
    return answer(1);
  });
  await collect(mesh.ask(makeRequest(body)));
  assert.equal(arrived, digest(body));
});

test('sixty-four requests at once each get their own answer', async (t) => {
  const mesh = await wireMesh(t, () => answer(200));
  const answers = await Promise.all(Array.from({ length: 64 }, () => collect(mesh.ask())));
  for (const { text, tokens } of answers) {
    assert.equal(text, TEXT_OF_200);
    assert.equal(tokens.length, 200);
  }
});

test('a reader that is slow holds the writer back and still gets every word', async (t) => {
  const count = 600;
  const text = 'x'.repeat(60_000);
  let produced = 0;
  async function* lots(): AsyncGenerator<InferenceEvent> {
    yield ACCEPTED;
    for (let index = 0; index < count; index++) {
      produced++;
      yield chunk(index, text);
    }
    yield END;
  }
  const mesh = await wireMesh(t, () => lots());
  let bytes = 0;
  let aheadAtFirst = 0;
  for await (const event of mesh.ask()) {
    if (event.type !== 'chunk') continue;
    // At first not at all, then slowly: what refills the reader must not undo the pause that the refill calls for.
    if (event.index < 100) await new Promise((resolve) => setTimeout(resolve, event.index === 0 ? 300 : 8));
    if (event.index === 0) aheadAtFirst = produced;
    bytes += event.text.length;
  }
  assert.equal(bytes, count * text.length);
  assert.ok(aheadAtFirst < count / 2, `${aheadAtFirst} of ${count} chunks were made while nobody read`);
});

test('leaving the iteration stops the generation there', async (t) => {
  const stopped = Promise.withResolvers<unknown>();
  async function* endless(signal: AbortSignal): AsyncGenerator<InferenceEvent> {
    signal.addEventListener('abort', () => stopped.resolve(signal.reason));
    yield ACCEPTED;
    for (let index = 0; !signal.aborted; index++) {
      yield chunk(index);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  const mesh = await wireMesh(t, (_, { signal }) => endless(signal));
  let chunks = 0;
  for await (const event of mesh.ask()) {
    if (event.type === 'chunk' && ++chunks === 3) break;
  }
  await stopped.promise;
  await until(() => mesh.serving() === 0 && mesh.pair.openStreams(INFERENCE_PROTOCOL) === 0);
});

test('aborting the signal ends a wait at once with its own MeshError, or else client_closed', async (t) => {
  async function* silent(signal: AbortSignal): AsyncGenerator<InferenceEvent> {
    yield ACCEPTED;
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
  }
  const mesh = await wireMesh(t, (_, { signal }) => silent(signal));
  const reasons = [
    [new MeshError('draining', 'stopping'), 'draining'],
    [new Error('gone'), 'client_closed'],
  ] as const;
  for (const [reason, code] of reasons) {
    const controller = new AbortController();
    const events = mesh.ask(makeRequest(), { signal: controller.signal });
    assert.equal((await events.next()).value.type, 'accepted');
    const waiting = events.next();
    controller.abort(reason);
    await assert.rejects(waiting, { code });
  }
  await until(() => mesh.serving() === 0);
});

test('return() ends a wait at once', async (t) => {
  async function* silent(signal: AbortSignal): AsyncGenerator<InferenceEvent> {
    yield ACCEPTED;
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
  }
  const mesh = await wireMesh(t, (_, { signal }) => silent(signal));
  const events = mesh.ask();
  await events.next();
  const waiting = events.next().catch(() => 'left');
  await events.return(undefined);
  assert.equal(await waiting, 'left');
  await until(() => mesh.serving() === 0);
});

test('progress keeps a long wait alive, before ACCEPT and after it', async (t) => {
  async function* slow(): AsyncGenerator<InferenceEvent> {
    await new Promise((resolve) => setTimeout(resolve, 400));
    yield ACCEPTED;
    await new Promise((resolve) => setTimeout(resolve, 400));
    yield* [chunk(0), END];
  }
  const mesh = await wireMesh(t, () => slow(), { limits: { progressMs: 40 } });
  const events = await Array.fromAsync(mesh.ask(makeRequest(), { limits: { firstFrameMs: 250, silenceMs: 250 } }));
  const types = events.map(({ type }) => type);
  assert.ok(types.indexOf('accepted') > 0);
  assert.equal(types.lastIndexOf('progress'), types.indexOf('accepted') - 1);
  assert.deepEqual(types.slice(-3), ['accepted', 'chunk', 'end']);
});

test("the handler's error reaches the asking side with its code and facts", async (t) => {
  const mesh = await wireMesh(t, () => {
    throw new MeshError('overloaded', 'full', { retryAfterMs: 1500 });
  });
  await assert.rejects(collect(mesh.ask()), (error: MeshError) => {
    assert.equal(error.code, 'overloaded');
    assert.equal(error.facts.retryAfterMs, 1500);
    return true;
  });
  await until(() => mesh.serving() === 0);
});

test('a handler that ends without an end is an internal error, not a whole answer', async (t) => {
  async function* cut(): AsyncGenerator<InferenceEvent> {
    yield ACCEPTED;
    yield chunk(0);
  }
  const mesh = await wireMesh(t, () => cut());
  await assert.rejects(collect(mesh.ask()), { code: 'internal_error' });
});

test('a node without room for a body says so before the body is there', async (t) => {
  const booked: number[] = [];
  let room = false;
  let released = 0;
  const reserveBytes = (sizeBytes: number): (() => void) | null => {
    booked.push(sizeBytes);
    return room ? () => void released++ : null;
  };
  const mesh = await wireMesh(t, () => answer(1), { reserveBytes });
  const body = new Uint8Array(8 * 1024 * 1024);
  await assert.rejects(collect(mesh.ask(makeRequest(body))), { code: 'overloaded' });
  room = true;
  await collect(mesh.ask(makeRequest(body)));
  await until(() => mesh.serving() === 0);
  assert.deepEqual(booked, [body.byteLength, body.byteLength]);
  assert.equal(released, 1);
});

test('a body over the limit is refused as too large', async (t) => {
  const mesh = await wireMesh(t, () => answer(1), { limits: { maxBodyBytes: 1000 } });
  await assert.rejects(collect(mesh.ask(makeRequest(new Uint8Array(1001)))), { code: 'payload_too_large' });
  assert.equal((await collect(mesh.ask(makeRequest(new Uint8Array(1000))))).text, 't0 ');
});

test('a pooled stream that died is replaced without counting, a fresh one is not', async (t) => {
  const mesh = await wireMesh(t, () => answer(1));
  let acquired = 0;
  const acquire = async (fresh: boolean, signal: AbortSignal) => {
    const stream = await mesh.pair.open(INFERENCE_PROTOCOL, signal);
    if (++acquired < 3) stream.abort(new Error('died in the pool'));
    return { stream, fresh };
  };
  const { text } = await collect(mesh.ask(makeRequest(), { acquire: (signal) => acquire(false, signal) }));
  assert.equal(text, 't0 ');
  assert.equal(acquired, 3);
  acquired = 0;
  await assert.rejects(collect(mesh.ask(makeRequest(), { acquire: (signal) => acquire(true, signal) })), {
    code: 'peer_unreachable',
  });
  assert.equal(acquired, 1);
});

test('a stream that comes too late is given up, and reset when it comes', async (t) => {
  const mesh = await wireMesh(t, () => answer(1));
  const late = Promise.withResolvers<{ stream: Awaited<ReturnType<typeof mesh.pair.open>>; fresh: boolean }>();
  await assert.rejects(collect(mesh.ask(makeRequest(), { acquire: () => late.promise, limits: { acquireMs: 20 } })), {
    code: 'peer_unreachable',
  });
  const stream = await mesh.pair.open(INFERENCE_PROTOCOL);
  late.resolve({ stream, fresh: true });
  await until(() => stream.status === 'aborted');
});

test('an idle stream is closed quietly', async (t) => {
  const mesh = await wireMesh(t, () => answer(1), { limits: { idleMs: 30 } });
  const stream = await mesh.pair.open(INFERENCE_PROTOCOL);
  await until(() => stream.remoteWriteStatus === 'closed');
  assert.equal(stream.status, 'open');
  await stream.close();
  await until(() => mesh.serving() === 0);
  assert.deepEqual(mesh.violations, []);
});

test('a lost connection stops the generation and fails the request as unreachable', async (t) => {
  const stopped = Promise.withResolvers<void>();
  async function* endless(signal: AbortSignal): AsyncGenerator<InferenceEvent> {
    signal.addEventListener('abort', () => stopped.resolve());
    yield ACCEPTED;
    for (let index = 0; !signal.aborted; index++) {
      yield chunk(index);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }
  const mesh = await wireMesh(t, (_, { signal }) => endless(signal));
  await assert.rejects(
    async () => {
      for await (const event of mesh.ask()) {
        if (event.type === 'chunk' && event.index > 3) mesh.pair.connection.abort(new Error('cable cut'));
      }
    },
    { code: 'peer_unreachable' },
  );
  await stopped.promise;
  await until(() => mesh.serving() === 0);
});

test('a warm stream answers like a fresh one', async (t) => {
  const mesh = await wireMesh(t, () => answer(200));
  const stream = await mesh.pair.open(INFERENCE_PROTOCOL);
  const startedAt = systemClock.now();
  const { text } = await collect(mesh.ask(makeRequest(), { acquire: async () => ({ stream, fresh: false }) }));
  assert.equal(text, TEXT_OF_200);
  t.diagnostic(`200 tokens over a warm stream took ${(systemClock.now() - startedAt).toFixed(1)} ms`);
});
