import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Connection, Stream } from '@libp2p/interface';
import { firstToOpen, unreachable } from '../../../node/network/outbound.ts';
import { Ways } from '../../../node/network/ways.ts';
import { ManualClock } from '../../support/manual-clock.ts';

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

const connectionOf = (id: string, open: number): Connection =>
  ({ id, status: 'open', timeline: { open } }) as unknown as Connection;

/** A stream that notes whether it was reset. */
function streamOf() {
  const stream = { isReset: false, abort: () => Object.assign(stream, { isReset: true }) };
  return stream as unknown as Stream & { readonly isReset: boolean };
}

/** Ways to open a stream, settled by the test. */
function waysOf(count: number) {
  const began: number[] = [];
  const signals: AbortSignal[] = [];
  const made = Array.from({ length: count }, () => Promise.withResolvers<Stream>());
  const openings = made.map(({ promise }, index) => (signal: AbortSignal) => {
    began.push(index);
    signals.push(signal);
    return promise;
  });
  return { began, signals, made, openings };
}

function race(count: number) {
  const clock = new ManualClock();
  const client = new AbortController();
  const ways = waysOf(count);
  const running = firstToOpen(ways.openings, { clock, signal: client.signal });
  running.catch(() => {});
  return { ...ways, clock, client, running };
}

test('the connection on which something was heard last is used, be it the oldest', () => {
  const clock = new ManualClock();
  const ways = new Ways({ clock });
  const [old, young] = [connectionOf('old', 1), connectionOf('young', 2)];
  const heartbeats = streamOf();
  ways.opened(old);
  ways.carries(heartbeats, old);
  clock.advance(100);
  ways.opened(young);
  const ids = (): string[] => ways.ordered([old, young]).map(({ id }) => id);
  assert.deepEqual(ids(), ['young', 'old'], 'its handshake was the last sign of life');
  clock.advance(400);
  ways.heard(heartbeats);
  assert.deepEqual(ids(), ['old', 'young']);
  clock.advance(700);
  assert.deepEqual([ways.silentMs([old, young]), ways.silentMs([young])], [700, 1100]);
  assert.equal(ways.silentMs([]), Number.POSITIVE_INFINITY);
});

test('closed connections are no way, and of unknown ones the newest comes first', () => {
  const ways = new Ways({ clock: new ManualClock() });
  const closed = { ...connectionOf('closed', 3), status: 'closed' } as Connection;
  const ordered = ways.ordered([connectionOf('a', 1), closed, connectionOf('b', 2)]);
  assert.deepEqual(
    ordered.map(({ id }) => id),
    ['b', 'a'],
  );
});

test('connections that nobody uses are closed after a while, but never the one heard last', () => {
  const clock = new ManualClock();
  const ways = new Ways({ clock });
  const closed: string[] = [];
  const made = (id: string, remotePeer: string, streams: number): Connection => {
    const close = async (): Promise<void> => void closed.push(id);
    const parts = { id, status: 'open', timeline: { open: 0 }, remotePeer, close, streams: Array(streams).fill({}) };
    return parts as unknown as Connection;
  };
  const all = [made('used', 'A', 1), made('spare', 'A', 0), made('first', 'A', 0), made('only', 'B', 0)];
  const stop = ways.sweep(() => all);
  for (const connection of all) {
    ways.opened(connection);
    clock.advance(1);
  }
  clock.advance(4996);
  assert.deepEqual(closed, [], 'young ones may be about to be used');
  clock.advance(5000);
  assert.deepEqual(closed, ['spare']);
  stop();
  clock.advance(10_000);
  assert.deepEqual(closed, ['spare']);
});

test('a way that takes long does not hold up the next, and the stream that comes late is reset', async () => {
  const { clock, began, made, signals, running } = race(2);
  clock.advance(499);
  assert.deepEqual(began, [0]);
  clock.advance(1);
  assert.deepEqual(began, [0, 1]);
  const [late, first] = [streamOf(), streamOf()];
  made[1]?.resolve(first);
  assert.equal(await running, first);
  assert.equal(signals[0]?.aborted, true);
  made[0]?.resolve(late);
  await turn();
  assert.deepEqual([late.isReset, first.isReset], [true, false]);
});

test('a way that fails gives the next its turn at once; when all have failed, the first error says why', async () => {
  const { began, made, running } = race(2);
  made[0]?.reject(new Error('cut'));
  await turn();
  assert.deepEqual(began, [0, 1]);
  made[1]?.reject(new Error('refused'));
  await assert.rejects(running, { message: 'cut' });
});

test('a slow way may still win after the others have failed', async () => {
  const { clock, made, running } = race(2);
  clock.advance(500);
  made[1]?.reject(new Error('refused'));
  await turn();
  const stream = streamOf();
  made[0]?.resolve(stream);
  assert.equal(await running, stream);
});

test('who gives up gets no stream: the one that comes is reset, and no further way begins', async () => {
  const { clock, client, began, made, running } = race(3);
  client.abort(new Error('enough'));
  await assert.rejects(running, { message: 'enough' });
  const stream = streamOf();
  made[0]?.resolve(stream);
  clock.advance(5000);
  await turn();
  assert.deepEqual([stream.isReset, began], [true, [0]]);
});

test('whatever libp2p throws becomes a sentence', () => {
  assert.equal(unreachable(new Error('cut'), 'Cannot open').message, 'Cannot open: cut');
  assert.equal(
    unreachable(new Event('close'), 'Cannot open').message,
    'Cannot open: the connection had its event "close"',
  );
});
